"""One beton (an FFCV .beton file): written atomically, and checked before FFCV may touch it.

FFCV trusts its files: a truncated one ends in a segmentation fault, a file of zeros in a loader that waits
for ever. So `read_beton` first holds every pointer of the file against its size, and hands out what it found:
labels, and where each image lies. A beton that we wrote has a manifest beside it (`train.beton.json`, written
last: there means done), which also tells size and checksum.
"""

from __future__ import annotations

import functools
import hashlib
import json
import queue
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing import Value
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers import quiet_ffcv as ffcv
from workers.safe_writing import beside, locked

ALWAYS_HASHED_BYTES = 64 * 2**20
"""A beton up to this size is hashed at every check: well below a tenth of a second."""
JPEG, RAW = 0, 1  # ffcv.fields.rgb_image.IMAGE_MODES


class BetonError(ValueError):
    """A beton that cannot be used: which one, what is wrong with it, and what to do."""

    def __init__(self, path: Path, problem: str, advice: str = "write it again, or restore it from a copy") -> None:
        super().__init__(f"{path}: {problem}; {advice}")
        self._parts = (path, problem, advice)

    def __reduce__(self) -> tuple[type[BetonError], tuple[Path, str, str]]:
        """Workers send their errors home pickled."""
        return BetonError, self._parts


@dataclass(frozen=True)
class Beton:
    """What a sound beton of N samples holds; arrays are read-only.

    `places` is int64[N, 5]: first byte in the file, bytes, height, width, and whether it is a JPEG. Of an
    array field (`array_dtype` is then set) height and width are 0 and every sample has `array_shape`.
    """

    path: Path
    labels: NDArray[np.int64]
    places: NDArray[np.int64]
    array_dtype: np.dtype[Any] | None
    array_shape: tuple[int, ...]
    fields: tuple[str, ...]

    @property
    def samples(self) -> int:
        """N, the number of samples in the file."""
        return len(self.labels)


def read_beton(path: Path) -> Beton:
    """Labels and layout of a beton with the fields "image" (RGB or array) and "label" (integer); decodes nothing.

    Raises BetonError unless header, metadata, allocation table and file size agree. Kept in memory for the
    next call as long as the file stays the same.
    """
    return _read_beton(path, *file_identity(path))


def file_identity(path: Path) -> tuple[int, int, int]:
    """Inode, bytes and time of the last change (ns): what tells a file from the one that replaces it.

    Raises BetonError if there is none.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise BetonError(path, "there is no such beton", "prepare the data set, or correct the data folder") from error
    return status.st_ino, status.st_size, status.st_mtime_ns


def check_beton(path: Path, *, samples: int | None = None, thorough: bool | None = None) -> None:
    """Refuse a beton that is missing, damaged, half-written or not the one that is wanted.

    Args:
        samples: how many it has to hold; None takes any number.
        thorough: also hash the whole file and compare with the manifest. None does so up to 64 MiB.

    Raises:
        BetonError: what is wrong, and the next step. A beton without a manifest (written with FFCV's own
            scripts) passes when its structure is sound.
    """
    beton = read_beton(path)
    if samples is not None and beton.samples != samples:
        raise BetonError(path, f"it holds {beton.samples} samples, wanted are {samples}", "write it with all samples")
    manifest = read_manifest(path)
    if manifest is None:
        return
    size = path.stat().st_size
    for what, found in (("bytes", size), ("samples", beton.samples)):
        if manifest.get(what) != found:
            raise BetonError(path, f"it has {found} {what}, its manifest says {manifest.get(what)}", _AFRESH)
    if thorough or (thorough is None and size <= ALWAYS_HASHED_BYTES):
        checksum = _sha256(path, *file_identity(path))
        if checksum != manifest.get("sha256"):
            raise BetonError(path, f"its bytes changed: sha256 is {checksum}, not {manifest.get('sha256')}", _AFRESH)


_AFRESH = "delete the beton and its .json, and prepare the data set again"


def write_beton(
    path: Path,
    make: Callable[[], tuple[NDArray[Any], NDArray[np.int64]]],
    *,
    samples: int,
    dataset: str,
    version: str,
) -> None:
    """Write the images, [N, ...] of any number type, and labels, int64[N], that `make` returns.

    Both files appear whole or not at all, the manifest last. When the manifest that is there agrees with the
    data set, version, number of samples and size of the file, nothing is made or written. Several processes
    may call it at once.
    """
    wanted = {"dataset": dataset, "version": version, "samples": samples}
    if is_prepared(path, wanted):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent):
        if is_prepared(path, wanted):  # by the process that held the lock
            return
        images, labels = make()
        assert len(images) == len(labels) == samples
        with beside(path) as unfinished:
            fields = {"image": ffcv.NDArrayField(images.dtype, images.shape[1:]), "label": ffcv.IntField()}
            page_size = max(2**21, 2 ** int(images[0].nbytes - 1).bit_length())  # a sample must fit into a page
            writer = _OneProcessWriter(str(unfinished), fields, page_size=page_size, num_workers=1)
            writer.from_indexed_dataset(list(zip(images, labels, strict=True)), chunksize=samples)
            manifest = wanted | {
                "bytes": unfinished.stat().st_size,
                "sha256": _sha256(unfinished, *file_identity(unfinished)),
                "class_counts": np.bincount(labels).tolist(),
                "image": {"dtype": images.dtype.str, "shape": list(images.shape[1:])},
            }
        with beside(manifest_path(path)) as unfinished:
            unfinished.write_text(json.dumps(manifest, indent=1) + "\n")


def manifest_path(path: Path) -> Path:
    """Where the manifest of a beton lies: `train.beton.json` beside `train.beton`."""
    return path.with_name(path.name + ".json")


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of a beton, None if it has none. Raises BetonError if it cannot be read."""
    try:
        manifest = json.loads(manifest_path(path).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BetonError(manifest_path(path), f"this manifest cannot be read ({error})", _AFRESH) from error
    if not isinstance(manifest, dict):
        raise BetonError(manifest_path(path), "this manifest is not a JSON object", _AFRESH)
    return manifest


def is_prepared(path: Path, wanted: dict[str, Any]) -> bool:
    """Whether a finished beton lies there, its manifest agreeing with `wanted` and the size of the file."""
    try:
        manifest = read_manifest(path)
        size = path.stat().st_size
    except (BetonError, OSError):
        return False
    return manifest is not None and wanted.items() <= manifest.items() and manifest.get("bytes") == size


@functools.lru_cache(maxsize=8)
def _read_beton(path: Path, inode: int, size: int, changed_ns: int) -> Beton:
    header = _from_file(path, ffcv.HeaderType, 1, 0, size)[0]
    if header["version"] != ffcv.CURRENT_VERSION or not 1 <= header["num_fields"] <= 64:
        raise BetonError(path, f"not an FFCV file of version {ffcv.CURRENT_VERSION}", "write it with ffcv 1.0.2")
    offset = header.nbytes
    descriptors = _from_file(path, ffcv.FieldDescType, int(header["num_fields"]), offset, size)
    offset += descriptors.nbytes
    handlers = _fields(path, descriptors)
    image, label = (_field(path, handlers, name) for name in ("image", "label"))

    names = list(handlers)
    try:
        metadata_type = ffcv.get_metadata_type(list(handlers.values()))
    except AttributeError as error:
        raise BetonError(path, f"it has fields of a custom type among {names}", "write image and label only") from error
    samples = int(header["num_samples"])
    metadata = _from_file(path, metadata_type, samples, offset, size)
    offset += metadata.nbytes

    table_start = int(header["alloc_table_ptr"])
    if not offset <= table_start < size or (size - table_start) % ffcv.ALLOC_TABLE_TYPE.itemsize:
        raise BetonError(path, f"truncated or never finished: allocation table at byte {table_start} of {size}")
    table = np.fromfile(path, ffcv.ALLOC_TABLE_TYPE, offset=table_start)
    places = _places(path, image, metadata[f"f{names.index('image')}"], table, first=offset, end=table_start)
    labels = metadata[f"f{names.index('label')}"].astype(np.int64)
    for array in (labels, places):
        array.setflags(write=False)
    is_array = isinstance(image, ffcv.NDArrayField)
    assert isinstance(label, ffcv.IntField)
    return Beton(
        path=path,
        labels=labels,
        places=places,
        array_dtype=np.dtype(image.dtype) if is_array else None,
        array_shape=tuple(int(side) for side in image.shape) if is_array else (),
        fields=tuple(names),
    )


def _from_file(path: Path, dtype: np.dtype[Any], count: int, offset: int, size: int) -> NDArray[Any]:
    """`count` records from byte `offset` on. BetonError if there are none or the file ends before them."""
    if count < 1 or offset + count * dtype.itemsize > size:
        raise BetonError(path, f"truncated or not an FFCV file: {count} records from byte {offset} in {size} bytes")
    return np.fromfile(path, dtype, count=count, offset=offset)


def _fields(path: Path, descriptors: NDArray[Any]) -> dict[str, ffcv.Field]:
    fields = {}
    for descriptor in descriptors:
        try:
            name = descriptor["name"].tobytes().split(b"\0")[0].decode("ascii")
            field_type = ffcv.TYPE_ID_HANDLER[int(descriptor["type_id"])]
            fields[name] = field_type and field_type.from_binary(descriptor["arguments"])
        except (KeyError, ValueError, IndexError, TypeError, AssertionError) as error:
            raise BetonError(path, f"the description of its fields is damaged ({error!r})") from error
    return fields


def _field(path: Path, fields: dict[str, ffcv.Field], name: str) -> ffcv.Field:
    allowed = {"image": (ffcv.RGBImageField, ffcv.NDArrayField), "label": (ffcv.IntField,)}[name]
    if not isinstance(fields.get(name), allowed):
        found = ", ".join(f"{key} ({type(field).__name__})" for key, field in fields.items())
        kinds = " or ".join(kind.__name__ for kind in allowed)
        problem = f'it has no field "{name}" of type {kinds}, only {found}'
        raise BetonError(path, problem, 'write it with the fields "image" and "label"')
    return fields[name]


def _places(
    path: Path, image: ffcv.Field, metadata: NDArray[Any], table: NDArray[Any], *, first: int, end: int
) -> NDArray[np.int64]:
    """Where every image lies (see Beton.places), once the allocation table and the metadata agree on it."""
    table = table[np.argsort(table["ptr"])]
    starts, sizes = table["ptr"].astype(np.int64), table["size"].astype(np.int64)
    if np.any((starts < first) | (sizes < 1) | (sizes > end - starts)) or np.any(starts[:-1] + sizes[:-1] > starts[1:]):
        raise BetonError(path, f"its allocation table points outside of the data, bytes {first} to {end}")

    is_array = isinstance(image, ffcv.NDArrayField)
    pointers = (metadata if is_array else metadata["data_ptr"]).astype(np.int64)
    rows = np.minimum(np.searchsorted(starts, pointers), len(starts) - 1)
    if np.any(starts[rows] != pointers):
        raise BetonError(path, f"sample {np.argmax(starts[rows] != pointers)} points to no allocated data")

    places = np.zeros((len(metadata), 5), dtype=np.int64)
    places[:, 0], places[:, 1] = pointers, sizes[rows]
    if is_array:
        wrong = places[:, 1] != int(image.element_size)
    else:
        places[:, 2], places[:, 3] = metadata["height"], metadata["width"]
        places[:, 4] = metadata["mode"] == JPEG
        pixels = places[:, 2] * places[:, 3]
        wrong = (pixels < 1) | (metadata["mode"] > RAW) | ((metadata["mode"] == RAW) & (places[:, 1] != 3 * pixels))
    if np.any(wrong):
        sample = np.argmax(wrong)
        raise BetonError(path, f"sample {sample} has {places[sample, 1]} bytes, which is not the size of its shape")
    return places


class _OneProcessWriter(ffcv.DatasetWriter):  # type: ignore[misc]
    """FFCV's writer without its worker processes and progress bar.

    FFCV forks, which is unsafe in a process that has threads, and waits for ever when a forked writer dies.
    """

    def _write_common(
        self,
        num_samples: int,
        queue_content: Iterable[Any],
        work_fn: Callable[..., None],
        extra: tuple[Any, ...],
    ) -> None:
        self.num_samples = num_samples
        self.prepare()
        try:
            todo: queue.SimpleQueue[Any] = queue.SimpleQueue()
            for chunk in [*queue_content, None]:
                todo.put(chunk)
            allocator = ffcv.MemoryAllocator(self.fname, self.data_region_start, self.page_size)
            done: queue.SimpleQueue[Any] = queue.SimpleQueue()
            work_fn(todo, self.metadata_sm, self.metadata_type, self.fields, allocator, Value("Q"), done, *extra)
            self.finalize(done.get())
        finally:
            self.metadata_sm.close()
            self.metadata_sm.unlink()


@functools.lru_cache(maxsize=64)
def _sha256(path: Path, inode: int, size: int, changed_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
