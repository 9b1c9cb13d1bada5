"""Cold start: seconds until a fresh process has its first batch, from our stream and from FFCV as it comes.

What a worker waits for that was just started: importing the loader, opening it, and the first batch, 128 images, of one
decoding thread. Raw images of 32 x 32 pixels, moved and flipped (FFCV: RandomTranslate and RandomHorizontalFlip), and
JPEG photographs in random crops of 160 pixels. FFCV compiles its pipeline in every process; ours was compiled once a
machine and is read from disk, as it is in all processes but the first. PyTorch's import, which both need, is not
counted; the same with it, from the start of the command, has no goal.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.measuring.children import scratch_folder
from benchmarks.measuring.cold import ColdStart, start_cold
from benchmarks.measuring.contestants import contestants
from benchmarks.measuring.feeds import View
from benchmarks.measuring.figures import Figure, Goal, pair_up
from benchmarks.measuring.image_betons import SIDE, write_images, write_small_images
from benchmarks.measuring.machine import in_turn
from benchmarks.measuring.photos import Photos, write_photos
from orchestrator.console import LOG

ROUNDS = 7
BATCH_SIZE = 128
VIEWS = {
    "32 px, raw": View(trains=True, resolution=SIDE, small=True),
    "160 px from JPEG": View(trains=True, resolution=160),
}
GOALS = {"32 px, raw": 6.0, "160 px from JPEG": 4.0}
WAYS = ("ours", "bare FFCV")
Name = tuple[str, str]
"""Way and view."""


def measure(quick: bool) -> Iterator[Figure]:
    """Seconds of each way, then those of FFCV over ours."""
    taken: dict[Name, list[ColdStart]] = {}
    with scratch_folder() as scratch:
        with contestants(("writer",), cores=2) as found:
            found["writer"].call(prepare, scratch)
        for number in range(1 if quick else ROUNDS):
            folder = scratch / f"round-{number}"
            steps = {
                (way, view): functools.partial(
                    start_cold, way, beton(scratch, view), VIEWS[view], BATCH_SIZE, folder / f"{way} {view}"
                )
                for view in VIEWS
                for way in WAYS
            }
            if number == 0:  # reads what lies on disk into memory, and compiles ours where nothing had yet
                for way, view in steps:
                    start_cold(way, beton(scratch, view), VIEWS[view], BATCH_SIZE, scratch / f"first {way} {view}")
            for name, start in in_turn(steps, number).items():
                taken.setdefault(name, []).append(start)
            latest = ", ".join(f"{way} {view} {taken[way, view][-1].loader:.2f}" for way, view in steps)
            LOG.print(f"round {number + 1}, seconds to the first batch: {latest}")
    yield from figures(taken)


def figures(taken: Mapping[Name, Sequence[ColdStart]]) -> Iterator[Figure]:
    """By view."""
    for view in VIEWS:
        loader = {way: tuple(start.loader for start in taken[way, view]) for way in WAYS}
        process = {way: tuple(start.process for start in taken[way, view]) for way in WAYS}
        for way in WAYS:
            yield Figure(f"{view}: {way}, import to first batch", loader[way], "s")
        goal = Goal(GOALS[view], is_least=True)
        yield Figure(f"{view}: bare FFCV / ours", pair_up(loader["bare FFCV"], loader["ours"]), goal=goal)
        whole = pair_up(process["bare FFCV"], process["ours"])
        yield Figure(f"{view}: bare FFCV / ours, from the start of the process", whole)


def beton(scratch: Path, view: str) -> Path:
    return scratch / f"{VIEWS[view].resolution}.beton"


def prepare(scratch: Path) -> None:
    """Two batches for each view; in a contestant."""
    write_small_images(beton(scratch, "32 px, raw"), 2 * BATCH_SIZE)
    write_photos(scratch / "photos", 2 * BATCH_SIZE, processes=2)
    write_images(beton(scratch, "160 px from JPEG"), Photos(scratch / "photos"), write_mode="jpg")
