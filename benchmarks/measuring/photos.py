"""Photographs for the loaders: made up, the same every time, and as hard to decode as real ones.

Smooth noise at several scales, stronger where coarser, as in natural images, with weaker noise of colour. At JPEG
quality 90 they take 30 to 60 kB, as ImageNet's do at this size.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEIGHTS, WIDTHS = (315, 385), (360, 440)
"""Sides in pixels, from and up to."""
SCALES = (128, 64, 32, 16, 8, 4, 2)
"""Pixels from one node of the noise to the next."""
STEEPNESS, CONTRAST, COLOUR = 0.5, 0.47, 0.35
"""How amplitudes grow with the scale; standard deviation of brightness, of 128; that of colour relative to it."""
FINEST_COLOUR = 8
QUALITY = 90


def photo(number: int, sides: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Photograph `number`, uint8[height, width, 3]; of random sides where none are given."""
    draw = np.random.default_rng([20240501, number])
    height, width = sides or (int(draw.integers(*HEIGHTS)), int(draw.integers(*WIDTHS)))
    values = np.zeros((3, height, width), dtype=np.float32)
    for channel in range(3):
        for scale in SCALES:
            if channel and scale < FINEST_COLOUR:
                break
            nodes = draw.standard_normal((height // scale + 2, width // scale + 2)).astype(np.float32)
            smooth = Image.fromarray(nodes).resize((width, height), Image.Resampling.BICUBIC)
            values[channel] += np.float32(scale**STEEPNESS) * np.asarray(smooth)
    values *= np.float32(CONTRAST) / values.std(axis=(1, 2), keepdims=True)
    values[1:] *= np.float32(COLOUR)
    brightness, red, blue = 128 * (1 + values[0]), 128 * values[1], 128 * values[2]
    pixels = np.stack([brightness + red, brightness - (red + blue) / 2, brightness + blue], axis=2)
    clipped: NDArray[np.uint8] = np.clip(pixels, 0, 255).astype(np.uint8)
    return clipped


def write_photos(folder: Path, count: int, *, processes: int = 1) -> int:
    """Save photographs 0 to `count` - 1 as JPEG files; returns the bytes that they take."""
    folder.mkdir(parents=True)
    parts = [(folder, range(first, count, processes)) for first in range(processes)]
    with ProcessPoolExecutor(processes, multiprocessing.get_context("fork")) as pool:
        for _ in pool.map(_write, parts):
            pass
    return sum(path.stat().st_size for path in folder.iterdir())


def _write(part: tuple[Path, range]) -> None:
    folder, numbers = part
    for number in numbers:
        Image.fromarray(photo(number)).save(folder / f"{number:06d}.jpg", quality=QUALITY)


def photo_paths(folder: Path) -> list[Path]:
    """The files, in the order of their numbers."""
    return sorted(folder.glob("*.jpg"))


class Photos:
    """Pixels and label of each file, decoded when asked for: what FFCV's writer takes."""

    def __init__(self, folder: Path, classes: int = 1000) -> None:
        self._paths, self._classes = photo_paths(folder), classes

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        with Image.open(self._paths[number]) as image:
            return np.asarray(image.convert("RGB")), number % self._classes

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], int]]:
        return (self[number] for number in range(len(self)))
