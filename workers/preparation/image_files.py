"""Splits made of image files: decoded and encoded by several processes, what is damaged named all at once."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workers.preparation.errors import DamagedImagesError
from workers.preparation.images import Encoded, Encoding, Task, encode_batch
from workers.preparation.parallel import in_order
from workers.preparation.samples import Sample, labels_of
from workers.preparation.split import Found, Prepared, Progress, Split, held, prepare_split, untold

BATCH = 16
MEASURED_AT_MOST = 10_000
TRIED_FOR_THE_ESTIMATE = 48
LESS_AS_JPEGS = ", or store less with a smaller --max-side or a larger --jpeg-share"
LESS_AS_PIXELS = ", or store less with a smaller side, or with a --jpeg-share above 0"


@dataclass(frozen=True)
class ImageFiles:
    """All that is known of one split of image files before any is decoded; `source` is its fingerprint."""

    part: str
    samples: Sequence[Sample]
    source: str


def prepare_image_files(
    splits: Sequence[ImageFiles],
    folder: Path,
    *,
    dataset: str,
    version: str,
    classes: int,
    encoding: Encoding,
    workers: int,
    with_statistics: bool = False,
    advice: str,
    progress: Progress = untold,
) -> list[Prepared]:
    """Write one beton for each split into `folder`. The bytes do not depend on `workers`.

    Args:
        with_statistics: keep mean and standard deviation of the training pixels in the manifest.
        advice: what to do about damaged images.

    Raises:
        DamagedImagesError: naming those of all splits; the sound splits are written nevertheless.
        HostError, SourceError: as `prepare_split`.
    """
    makers = [
        _Maker(files.samples, encoding, workers, with_statistics and files.part == "train", advice) for files in splits
    ]
    prepared, damaged = [], []
    with held(folder):
        for number, (files, maker) in enumerate(zip(splits, makers, strict=True)):
            split = Split(
                part=files.part,
                dataset=dataset,
                version=version,
                classes=classes,
                labels=labels_of(files.samples),
                source=files.source,
                encoding=encoding,
                images=maker.images,
                expected_bytes=functools.partial(_expected_bytes, makers[number:]),
                to_store_less=LESS_AS_JPEGS if encoding.jpeg_share else LESS_AS_PIXELS,
            )
            try:
                prepared.append(prepare_split(split, folder, progress))
            except DamagedImagesError as error:
                damaged += error.damaged
    if damaged:
        raise DamagedImagesError(damaged, advice)
    return prepared


def _expected_bytes(makers: Sequence[_Maker]) -> float:
    return sum(maker.expected_bytes() for maker in makers)


@dataclass(frozen=True)
class _Maker:
    samples: Sequence[Sample]
    encoding: Encoding
    workers: int
    with_statistics: bool
    advice: str

    def images(self, found: Found) -> Iterator[Encoded]:
        """Every image, encoded, in order; raises DamagedImagesError at the end if some could not be."""
        damaged: list[tuple[str, str]] = []
        pixels, sums, squares = (
            0,
            np.zeros(3, dtype=object),
            np.zeros(3, dtype=object),
        )  # objects: whole numbers of any size
        for batch in in_order(encode_batch, self._tasks(), self.workers):
            damaged += batch.damaged
            if not damaged:
                yield from batch.images
            found.notes.update(batch.notes)
            pixels, sums, squares = pixels + batch.pixels, sums + batch.sums, squares + batch.squares
        if damaged:
            raise DamagedImagesError(damaged, self.advice)
        if pixels:
            mean = (sums / pixels).astype(np.float64)
            std = np.sqrt((squares / pixels).astype(np.float64) - mean**2)
            found.statistics = {"pixel_mean": mean.round(3).tolist(), "pixel_std": std.round(3).tolist()}

    def expected_bytes(self) -> float:
        """The size of the beton, from some of its images, spread evenly."""
        chosen = np.unique(np.linspace(0, len(self.samples) - 1, TRIED_FOR_THE_ESTIMATE).astype(int))
        sizes = [
            len(image.content)
            for index in chosen.tolist()
            for image in encode_batch(Task(index, (self.samples[index],), self.encoding)).images
        ]
        return len(self.samples) * float(np.mean(sizes)) if sizes else 0.0

    def _tasks(self) -> Iterator[Task]:
        measured = self._measured()
        for first in range(0, len(self.samples), BATCH):
            samples = tuple(self.samples[first : first + BATCH])
            yield Task(first, samples, self.encoding, measured & set(range(first, first + len(samples))))

    def _measured(self) -> frozenset[int]:
        """Up to MEASURED_AT_MOST samples, spread evenly."""
        if not self.with_statistics:
            return frozenset()
        last = len(self.samples) - 1
        return frozenset(np.linspace(0, last, min(MEASURED_AT_MOST, last + 1)).astype(int).tolist())
