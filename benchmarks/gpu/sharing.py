"""One stream of images feeds several models: each image is decoded once and trained on by all of them.

As long as decoding is the limit, K models are to train on K times as many images as one stream gives; from where the
GPU is the limit on, on as many as its step alone does.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.gpu.feeding import Batches, kept_batches, our_stream
from benchmarks.gpu.modes import fast
from benchmarks.gpu.project import HAS_FFCV, PackLearner, make_runs
from benchmarks.gpu.sizes import Case, Sizes
from benchmarks.gpu.speed import Way, images_per_second, on_cores
from benchmarks.gpu.verdicts import Line, lacking, ratio, speed
from search_spaces.datasets import dataset_of

GOAL = 0.9


def measure(device: torch.device, sizes: Sizes, folder: Path, cores: list[int]) -> Iterator[Line]:
    """Lines for each number of CPU cores to decode on."""
    for count in cores:
        yield from measure_case(sizes.imagenet[0], device, sizes, folder, count)


def measure_case(case: Case, device: torch.device, sizes: Sizes, folder: Path, cores: int) -> Iterator[Line]:
    """The stream with nobody to feed, the step of one model, and every number of models on one stream."""
    where = f"{cores} CPU cores"
    if not HAS_FFCV:
        yield lacking(f"{case.title}: several models on one FFCV stream, {where}")
        return
    packs, facts = sizes.packs, dataset_of(case.dataset)
    runs = make_runs(
        max(packs.fed),
        case.dataset,
        case.architecture,
        case.width,
        samples=facts.train_samples,
        batch_size=case.batch_size,
        precision="bf16",
    )
    labels = (torch.arange(case.samples) % facts.classes).to(device)
    stream = partial(our_stream, case, folder, device, cores)
    kept, few = kept_batches(case, device), sizes.starting_batches

    def on_kept() -> Batches:
        yield from itertools.cycle(kept)

    learners = {count: PackLearner(runs[:count], [labels] * count, device) for count in packs.fed}
    alone = learners[min(packs.fed)] if min(packs.fed) == 1 else PackLearner(runs[:1], [labels], device)
    ways = {
        "stream": Way(stream, leave, cores, few),
        "step": Way(on_kept, partial(alone.step, rate=0.0), cores, few),
        **{
            f"{count} models": Way(stream, partial(learner.step, rate=0.0), cores, few)
            for count, learner in learners.items()
        },
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    with fast(), on_cores(cores):
        for _ in range(packs.fed_rounds):
            for name, way in ways.items():
                taken[name].append(images_per_second(way, packs.fed_seconds, device))
    yield speed(f"{case.title}: our FFCV stream with nobody to feed, {where}", taken["stream"])
    yield speed(f"{case.title}: the step of one model, on batches on the device", taken["step"])
    for count in packs.fed:
        trained = [count * each for each in taken[f"{count} models"]]
        limits = [min(count * fed, step) for fed, step in zip(taken["stream"], taken["step"], strict=True)]
        limit = "the GPU" if limits[0] == taken["step"][0] else "decoding"
        what = f"{case.title}: {count} models on one stream, {where}"
        yield speed(what, trained, "images x models/s")
        yield ratio(f"{what} / what the limit ({limit}) allows", trained, limits, GOAL)


def leave(inputs: Tensor, index: Tensor) -> None:
    """Nobody is fed."""
