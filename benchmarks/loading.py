"""Feeding photographs: our stream, FFCV as it comes and torch's DataLoader, at equal cores.

2,000 made-up photographs of about 400 x 350 pixels, as JPEG files of quality 90 and as betons: all JPEG of quality 90,
half of them JPEG, raw, and raw with the longer side cut down to 256 pixels. Images a second over an epoch from a warm
page cache, on two cores and with two workers each, up to normalised float32 on the CPU: resized crops and flips of 160
pixels to train, central crops of 224 to evaluate. FFCV as it comes has its own decoders, flip and NormalizeImage; the
DataLoader has Pillow and torchvision, and reads the JPEG files, so every beton is held against the same. Each way has a
process of its own, in which an epoch goes ahead: FFCV has compiled by then, and the DataLoader's workers are up. The
same ratios per CPU second, workers included, tell what other work on the machine cannot blur.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring.children import scratch_folder
from benchmarks.measuring.contestants import contestants
from benchmarks.measuring.epochs import WAYS, Epoch, read_epoch
from benchmarks.measuring.feeds import View
from benchmarks.measuring.figures import Figure, Goal, pair_up
from benchmarks.measuring.image_betons import write_images
from benchmarks.measuring.machine import in_turn
from benchmarks.measuring.photos import Photos, write_photos
from orchestrator.console import LOG

PHOTOS, QUICK_PHOTOS = 2_000, 60
ROUNDS = 7
CORES = 2
BATCH_SIZE = 128
MODES: dict[str, dict[str, Any]] = {
    "JPEG": {"write_mode": "jpg"},
    "half JPEG": {"write_mode": "proportion", "compress_probability": 0.5},
    "raw": {"write_mode": "raw"},
    "raw at 256 px": {"write_mode": "raw", "max_resolution": 256},
}
"""What FFCV's image field is told for each beton."""
VIEWS = {"train 160 px": View(trains=True, resolution=160), "evaluate 224 px": View(trains=False, resolution=224)}
GOALS_OVER_LOADER = {"JPEG": 1.6, "raw at 256 px": 6.0}
GOAL_OVER_FFCV = 1.0
Name = tuple[str, str, str]
"""Way, mode and view."""


def measure(quick: bool) -> Iterator[Figure]:
    """Images a second of each way, then ours over the others."""
    photos = QUICK_PHOTOS if quick else PHOTOS
    taken: dict[Name, list[Epoch]] = {}
    with scratch_folder() as scratch, contestants(tuple(WAYS), CORES) as found:
        found["ours"].call(prepare, scratch, photos)
        steps = {
            (way, mode, view): functools.partial(
                found[way].call, read_epoch, way, source, VIEWS[view], BATCH_SIZE, CORES
            )
            for view in VIEWS
            for way in WAYS
            for mode, source in sources(way, scratch).items()
        }
        for step in steps.values():
            step()
        for number in range(1 if quick else ROUNDS):
            for name, epoch in in_turn(steps, number).items():
                taken.setdefault(name, []).append(epoch)
            latest = ", ".join(f"{way} {taken[way, 'JPEG', 'train 160 px'][-1].rate:.0f}" for way in WAYS)
            LOG.print(f"round {number + 1}, images/s from JPEG, train 160 px: {latest}")
    yield from figures(taken)


def figures(taken: Mapping[Name, Sequence[Epoch]]) -> Iterator[Figure]:
    """By view and mode."""
    rates = {name: tuple(epoch.rate for epoch in epochs) for name, epochs in taken.items()}
    cpu_rates = {name: tuple(epoch.cpu_rate for epoch in epochs) for name, epochs in taken.items()}
    for view in VIEWS:
        plain: Name = ("DataLoader", "JPEG", view)
        yield Figure(f"{view}: DataLoader, JPEG files", rates[plain], "images/s")
        for mode in MODES:
            ours, bare = ("ours", mode, view), ("bare FFCV", mode, view)
            over_loader = Goal(GOALS_OVER_LOADER[mode], is_least=True) if mode in GOALS_OVER_LOADER else None
            over_ffcv = Goal(GOAL_OVER_FFCV, is_least=True)
            yield Figure(f"{view}: ours, {mode}", rates[ours], "images/s")
            yield Figure(f"{view}: bare FFCV, {mode}", rates[bare], "images/s")
            for other, title, goal in ((bare, "bare FFCV", over_ffcv), (plain, "DataLoader, JPEG files", over_loader)):
                what = f"{view}: ours, {mode} / {title}"
                yield Figure(what, pair_up(rates[ours], rates[other]), goal=goal)
                yield Figure(f"{what}, per CPU second", pair_up(cpu_rates[ours], cpu_rates[other]))


def sources(way: str, scratch: Path) -> dict[str, Path]:
    """What a way reads, by mode."""
    return {"JPEG": scratch / "photos"} if way == "DataLoader" else {mode: beton(scratch, mode) for mode in MODES}


def beton(scratch: Path, mode: str) -> Path:
    return scratch / f"{mode.replace(' ', '-')}.beton"


# -- in the contestants -------------------------------------------------------------------------------------------


def prepare(scratch: Path, photos: int) -> None:
    """Make the photographs up and write them in every mode."""
    write_photos(scratch / "photos", photos, processes=CORES)
    for mode, options in MODES.items():
        write_images(beton(scratch, mode), Photos(scratch / "photos"), **options)
