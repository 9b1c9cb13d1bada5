"""Images/s in training, bf16: our step alone, fed by our stream, fed by torch's DataLoader, and a hand-written loop.

All take turns, round by round; in each round a way starts its feed afresh and trains until the feed is in its stride,
which is not counted, then for some seconds, which are.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.gpu.feeding import Batches, kept_batches, loaded_batches, open_data_loader, our_stream
from benchmarks.gpu.modes import fast
from benchmarks.gpu.plain_loop import plain_step
from benchmarks.gpu.project import HAS_FFCV, Learner, make_run
from benchmarks.gpu.sizes import Case, Sizes
from benchmarks.gpu.verdicts import Line, lacking, ratio, speed
from search_spaces.datasets import dataset_of

GOAL_FED, GOAL_OVER_LOADER, GOAL_PLAIN = 0.95, 3.0, 0.9

Step = Callable[[Tensor, Tensor], None]


@dataclass(frozen=True)
class Way:
    """A way to train: how its batches come, and what is done with each, on so many CPU cores."""

    batches: Callable[[], Batches]
    step: Step
    cores: int
    starting_batches: int


def measure(device: torch.device, sizes: Sizes, folder: Path, cores: list[int]) -> Iterator[Line]:
    """Lines of each case. CIFAR is measured on the first number of cores, ImageNet on all of them."""
    for case in sizes.cifar:
        yield from measure_case(case, device, sizes, folder, cores[:1])
    for case in sizes.imagenet:
        yield from measure_case(case, device, sizes, folder, cores)


def measure_case(case: Case, device: torch.device, sizes: Sizes, folder: Path, cores: list[int]) -> Iterator[Line]:
    """Speeds of the case, and their ratios against the goals."""
    run = make_run(
        case.dataset,
        case.architecture,
        case.width,
        samples=case.samples if case.dataset == "cifar10" else dataset_of(case.dataset).train_samples,
        batch_size=case.batch_size,
        precision="bf16",
    )
    labels = (torch.arange(case.samples) % dataset_of(case.dataset).classes).to(device)
    learner, kept = Learner(run, labels, device), kept_batches(case, device)
    ours = partial(learner.step, rate=0.0)  # as much work as at any rate, and nothing can diverge
    on_device = partial(_again_and_again, kept)
    with fast():
        few = sizes.starting_batches
        ways = {
            "step": Way(on_device, ours, cores[0], few),
            "plain": Way(on_device, plain_step(case, labels, device), cores[0], few),
        }
        for count in cores:
            if HAS_FFCV:
                ways[f"stream {count}"] = Way(partial(our_stream, case, folder, device, count), ours, count, few)
            with on_cores(count):  # where its workers start is where they stay
                loader = open_data_loader(case, folder, device, count)
            many = few + sizes.batches_in_flight * count
            ways[f"loader {count}"] = Way(partial(loaded_batches, loader, device), ours, count, many)
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(sizes.rounds):
            first = number % len(ways)
            for name in [*ways][first:] + [*ways][:first]:
                with on_cores(ways[name].cores):
                    taken[name].append(images_per_second(ways[name], sizes.seconds, device))
    yield from report(case, taken, cores)


def images_per_second(way: Way, seconds: float, device: torch.device) -> float:
    """Training speed over at least so many seconds, from synchronised start to synchronised end."""
    with closing(way.batches()) as batches:
        for inputs, index in itertools.islice(batches, way.starting_batches):
            way.step(inputs, index)
        _wait_for(device)
        started, images = time.perf_counter(), 0
        for inputs, index in batches:
            way.step(inputs, index)
            images += len(index)
            if time.perf_counter() - started >= seconds:
                break
        _wait_for(device)
        return images / (time.perf_counter() - started)


def report(case: Case, taken: dict[str, list[float]], cores: list[int]) -> Iterator[Line]:
    """Speeds, then ratios."""
    title, step, plain = case.title, taken["step"], taken["plain"]
    is_cifar = case.dataset == "cifar10"
    yield speed(f"{title}: our step alone", step)
    yield speed(f"{title}: hand-written loop alone", plain)
    yield ratio(f"{title}: our step / hand-written loop", step, plain, GOAL_PLAIN if is_cifar else None)
    for count in cores:
        loaded, where = taken[f"loader {count}"], f"{count} CPU cores"
        yield speed(f"{title}: fed by torch's DataLoader and Pillow, {where}", loaded)
        if not HAS_FFCV:
            yield lacking(f"{title}: fed by our FFCV stream, {where}")
            continue
        fed = taken[f"stream {count}"]
        yield speed(f"{title}: fed by our FFCV stream, {where}", fed)
        yield ratio(f"{title}: our stream / our step alone, {where}", fed, step, GOAL_FED if is_cifar else None)
        yield ratio(f"{title}: our stream / hand-written loop alone, {where}", fed, plain)
        goal = None if is_cifar else GOAL_OVER_LOADER
        yield ratio(f"{title}: our stream / DataLoader, {where}", fed, loaded, goal)


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Keep this thread, and the threads and processes that it starts, on the first so many CPUs."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _again_and_again(kept: list[tuple[Tensor, Tensor]]) -> Batches:
    yield from itertools.cycle(kept)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
