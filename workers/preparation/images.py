"""One image: decoded, made RGB, resized and encoded as FFCV's writer would. Runs in child processes: imports little.

Sizes, interpolation and encoder are those of `ffcv.fields.RGBImageField(max_resolution=..., jpeg_quality=...)`, with
which the published ImageNet files were written.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from workers import randomness
from workers.preparation.samples import Sample

JPEG, RAW = 0, 1  # ffcv.fields.rgb_image.IMAGE_MODES
LARGEST_SIDE = 8192
UPRIGHT = 1  # EXIF orientation
ORIENTATION_TAG = 0x0112


@dataclass(frozen=True)
class Encoding:
    """How images are stored.

    Attributes:
        max_side: longest side in pixels; larger images are made smaller, smaller ones stay as they are.
        jpeg_share: share of the images, in [0, 1], that are stored as JPEG; the others are stored as pixels.
        quality: of the JPEGs, 1 to 100.
        turn_upright: follow the orientation that cameras note in EXIF. The published ImageNet files do not.
    """

    max_side: int = 500
    jpeg_share: float = 0.5
    quality: int = 90
    turn_upright: bool = False

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("max-side", self.max_side, 8, LARGEST_SIDE),
            ("jpeg-share", self.jpeg_share, 0, 1),
            ("quality", self.quality, 1, 100),
        ):
            if not low <= value <= high:
                raise ValueError(f"--{name} {value}: allowed are {low} to {high}")

    def most_bytes(self, images: int) -> int:
        """What so many images take at most if all are squares of pixels."""
        return images * 3 * self.max_side**2

    def as_settings(self) -> dict[str, Any]:
        """For the manifest: everything that decides about the bytes of a beton of given images."""
        return asdict(self)

    def is_jpeg(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which samples become JPEGs, bool[m]; a sample's own index decides, and a larger share keeps the smaller."""
        return randomness.uniform("preparation/jpeg", 0, indices) < self.jpeg_share


class Encoded(NamedTuple):
    """What a beton stores of one image."""

    mode: int
    height: int
    width: int
    content: bytes


@dataclass
class Batch:
    """Consecutive samples, encoded; `images` has no entry for damaged ones.

    Attributes:
        damaged: name and reason.
        notes: how many images were converted, by kind.
        pixels, sums, squares: how many pixels were looked at for the statistics, and the sums over them, int a channel.
    """

    images: list[Encoded]
    damaged: list[tuple[str, str]]
    notes: Counter[str]
    pixels: int = 0
    sums: tuple[int, ...] = (0, 0, 0)
    squares: tuple[int, ...] = (0, 0, 0)


@dataclass(frozen=True)
class Task:
    """Samples `first`, `first + 1`, ... to encode; of those in `measured` (indices) the pixels are summed up."""

    first: int
    samples: tuple[Sample, ...]
    encoding: Encoding
    measured: frozenset[int] = frozenset()


def encode_batch(task: Task) -> Batch:
    """Encode the samples of a task; damaged images are named, not raised."""
    batch = Batch([], [], Counter())
    indices = np.arange(task.first, task.first + len(task.samples))
    for index, as_jpeg, sample in zip(indices.tolist(), task.encoding.is_jpeg(indices), task.samples, strict=True):
        try:
            pixels, notes = load_rgb(sample.read(), sample.name, turn_upright=task.encoding.turn_upright)
        except Exception as error:  # PIL's plug-ins raise nearly everything for damaged files
            batch.damaged.append((sample.title, _reason(error)))
            continue
        pixels = shrink(pixels, task.encoding.max_side)
        batch.notes.update(notes)
        if index in task.measured:
            _measure(batch, pixels)
        batch.images.append(encode(pixels, as_jpeg=bool(as_jpeg), quality=task.encoding.quality))
    return batch


def load_rgb(content: bytes, name: str, *, turn_upright: bool = False) -> tuple[NDArray[np.uint8], list[str]]:
    """The pixels of an encoded image, uint8 [height, width, 3], and notes on what had to be converted.

    Transparency is dropped, 16-bit grey keeps its upper 8 bits. Raises what PIL raises for damaged images, and
    ValueError for pixels that have no natural place in 0..255.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL warns of odd metadata and of large images, and reads them
        image: Image.Image = Image.open(io.BytesIO(content))
        notes = _notes(image, name)
        image.load()
        if turn_upright and image.getexif().get(ORIENTATION_TAG, UPRIGHT) != UPRIGHT:
            image = ImageOps.exif_transpose(image)
            notes.append("turned upright")
        if image.mode.startswith("I;16"):
            grey = np.asarray(image, dtype=np.uint16) >> 8
            return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2), notes
        if image.mode in ("I", "F"):
            raise ValueError(f"pixels of 32 bits (mode {image.mode}): store it with 8 bits a channel")
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB")), notes


def shrink(pixels: NDArray[np.uint8], max_side: int) -> NDArray[np.uint8]:
    """The image with its longest side at most `max_side`, by area interpolation, as FFCV's writer does it."""
    height, width = pixels.shape[:2]
    ratio = max_side / max(height, width)
    if ratio >= 1:
        return pixels
    size = (max(1, int(ratio * width)), max(1, int(ratio * height)))  # FFCV rounds down, to 0 for thin images
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def encode(pixels: NDArray[np.uint8], *, as_jpeg: bool, quality: int) -> Encoded:
    """What FFCV's RGBImageField stores of an image, uint8 [height, width, 3]."""
    height, width = pixels.shape[:2]
    if not as_jpeg:
        return Encoded(RAW, height, width, pixels.tobytes())
    done, content = cv2.imencode(
        ".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [int(cv2.IMWRITE_JPEG_QUALITY), quality]
    )
    assert done
    return Encoded(JPEG, height, width, content.tobytes())


def _notes(image: Image.Image, name: str) -> list[str]:
    """In what the file differs from an RGB image of the kind that its name promises."""
    notes = []
    suffix = name.rpartition(".")[2].lower()
    promised = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG"}.get(suffix)
    if promised and image.format not in (promised, "MPO"):  # MPO: JPEGs of some cameras
        notes.append(f"{image.format} named .{suffix}")
    if image.mode in ("L", "1", "LA") or image.mode.startswith("I;16"):
        notes.append("greyscale")
    elif image.mode != "RGB":
        notes.append({"P": "palette", "RGBA": "transparency dropped"}.get(image.mode, image.mode))
    return notes


def _measure(batch: Batch, pixels: NDArray[np.uint8]) -> None:
    """Add the sums over an image: whole numbers, so that the order of adding does not count."""
    values = pixels.reshape(-1, 3).astype(np.uint64)
    batch.pixels += len(values)
    batch.sums = tuple(a + int(b) for a, b in zip(batch.sums, values.sum(0), strict=True))
    batch.squares = tuple(a + int(b) for a, b in zip(batch.squares, (values**2).sum(0), strict=True))


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
