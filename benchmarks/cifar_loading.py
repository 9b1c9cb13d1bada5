"""Feeding images of CIFAR's size: our training stream and FFCV as it comes, images a second of one worker.

50,000 raw images of 32 x 32 pixels, moved by up to 4 pixels, flipped and normalised to float32 on the CPU, in random
order and batches of 128 (FFCV: SimpleRGBImageDecoder, RandomHorizontalFlip, RandomTranslate and NormalizeImage). Ours
draws augmentation from the seed, the epoch and the sample's index, so that it can be repeated on any machine; FFCV's
cannot be. Each way has a process of its own on one core, in which an epoch goes ahead: FFCV has compiled by then.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence

from benchmarks.measuring.children import scratch_folder
from benchmarks.measuring.contestants import contestants
from benchmarks.measuring.epochs import Epoch, read_epoch
from benchmarks.measuring.feeds import View
from benchmarks.measuring.figures import Figure, Goal, pair_up
from benchmarks.measuring.image_betons import SIDE, write_small_images
from benchmarks.measuring.machine import in_turn

IMAGES, QUICK_IMAGES = 50_000, 1_000
ROUNDS = 11
BATCH_SIZE = 128
CIFAR = View(trains=True, resolution=SIDE, small=True)
WAYS = ("ours", "bare FFCV")
GOAL = 2.5


def measure(quick: bool) -> Iterator[Figure]:
    """Images a second of each way, then ours over FFCV's."""
    taken: dict[str, list[Epoch]] = {way: [] for way in WAYS}
    with scratch_folder() as scratch, contestants(WAYS, cores=1) as found:
        beton = scratch / "cifar.beton"
        found["ours"].call(write_small_images, beton, QUICK_IMAGES if quick else IMAGES)
        steps = {way: functools.partial(found[way].call, read_epoch, way, beton, CIFAR, BATCH_SIZE, 1) for way in WAYS}
        for step in steps.values():
            step()
        for number in range(1 if quick else ROUNDS):
            for way, epoch in in_turn(steps, number).items():
                taken[way].append(epoch)
    yield from figures(taken)


def figures(taken: Mapping[str, Sequence[Epoch]]) -> Iterator[Figure]:
    """Speeds, then their ratios, by the clock and by the CPU seconds used."""
    rates = {way: tuple(epoch.rate for epoch in taken[way]) for way in WAYS}
    cpu_rates = {way: tuple(epoch.cpu_rate for epoch in taken[way]) for way in WAYS}
    for way in WAYS:
        yield Figure(f"{way}, one worker", rates[way], "images/s")
    yield Figure("ours / bare FFCV", pair_up(rates["ours"], rates["bare FFCV"]), goal=Goal(GOAL, is_least=True))
    yield Figure("ours / bare FFCV, per CPU second", pair_up(cpu_rates["ours"], cpu_rates["bare FFCV"]))
