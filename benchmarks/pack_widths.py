"""Packs by size and width: runs an hour on two cores, against one model at a time in each of two processes.

Two single-threaded processes side by side in every case, each with a data stream of its own. Unpacked, the best
arrangement that there is for narrow networks on two cores, each trains one model alone, in channels_last. Packed, each
trains K models that share its batches, by the engine that the tool chooses (workers/fusion.py). In the same
round, for the largest packs, the alternatives: one model after another on the shared batches, so many fused in one,
and vmap over stacked parameters (benchmarks/measuring/vmapped.py).

8 x 8: digits and the recipe of digits-grid. 32 x 32: cifar-resnet18 in fp32 on made-up images, with the recipe of
cifar10-grid; a run is then one of 5,000 images over 200 epochs. Evaluations are counted, as many as in those spaces;
not what a pack does once (benchmarks/measuring/pack_speed.py). `python -m benchmarks.measuring.pack_figure` draws it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring.children import scratch_folder
from benchmarks.measuring.contestants import Contestant, contestants, side_by_side
from benchmarks.measuring.figures import Figure, Goal, pair_up
from benchmarks.measuring.image_betons import SIDE, write_small_images
from benchmarks.measuring.machine import in_turn
from benchmarks.measuring.pack_speed import Arrangement, Trained, choice, train_for
from orchestrator.console import LOG
from search_spaces.catalog import load_space
from search_spaces.runs import Run, expand
from search_spaces.spec import SearchSpace

SIZES, COMPARED = (2, 4, 8, 16), (16,)
"""Models a pack; and those sizes for which the alternatives are measured too."""
ROUNDS, SECONDS = 5, 1.0
LARGE = 8
"""From this size on packs have to gain what is promised of the width; smaller ones have to lose nothing."""
NEVER_UNDER = 0.97
IMAGES = 256
ALONE = Arrangement(1)


@dataclass(frozen=True)
class Network:
    """A network, its input's side, samples x epochs of a run, and what packs of it have to gain."""

    side: int
    width: int
    goal: float
    run_samples: int

    @property
    def title(self) -> str:
        return f"{self.side} x {self.side}, width {self.width}"


DIGITS_RUN, CIFAR_RUN = 500 * 60, 5_000 * 200
NETWORKS = (
    Network(8, 2, 3.5, DIGITS_RUN),
    Network(8, 4, 2.5, DIGITS_RUN),
    Network(8, 8, 1.5, DIGITS_RUN),
    Network(8, 16, NEVER_UNDER, DIGITS_RUN),
    Network(8, 32, NEVER_UNDER, DIGITS_RUN),
    Network(SIDE, 4, 1.6, CIFAR_RUN),
    Network(SIDE, 8, NEVER_UNDER, CIFAR_RUN),
)
Rates = Mapping[Arrangement, Sequence[tuple[Trained, ...]]]
"""What the processes trained side by side, by arrangement and round."""


def measure(quick: bool) -> Iterator[Figure]:
    """Figures of each network."""
    networks, sizes, compared = (NETWORKS[:1], (2,), (2,)) if quick else (NETWORKS, SIZES, COMPARED)
    taken: dict[Network, dict[Arrangement, list[tuple[Trained, ...]]]] = {network: {} for network in networks}
    with scratch_folder() as folder, contestants(("first", "second"), cores=2) as found:
        pair = list(found.values())
        found["first"].call(write_data, folder)
        runs = {network: expand(space_of(network, max(sizes))) for network in networks}
        choices = {
            network: {size: side_by_side(pair, choice, size, runs[network], folder)[0] for size in sizes}
            for network in networks
        }
        for number in range(1 if quick else ROUNDS):
            steps = {
                network: functools.partial(
                    train_all,
                    pair,
                    runs[network],
                    folder,
                    arrangements(sizes, compared),
                    number,
                    0 if quick else SECONDS,
                )
                for network in networks
            }
            for network, by_arrangement in in_turn(steps, number).items():
                for arrangement, trained in by_arrangement.items():
                    taken[network].setdefault(arrangement, []).append(trained)
            LOG.print(f"round {number + 1}: " + ", ".join(f"{net.title} {gain(taken[net]):.2f}" for net in networks))
    for network in networks:
        yield from figures(network, taken[network], choices[network])


def arrangements(sizes: Sequence[int], compared: Sequence[int]) -> list[Arrangement]:
    """One model alone, packs of each size, and the alternatives for some sizes."""
    found = [ALONE]
    for size in sizes:
        found.append(Arrangement(size, "chosen"))
        if size in compared:
            found += [Arrangement(size, fused) for fused in (1, *(each for each in SIZES if each <= size))]
            found.append(Arrangement(size, "vmap"))
    return found


def train_all(
    pair: Sequence[Contestant],
    runs: Sequence[Run],
    folder: Path,
    ways: Sequence[Arrangement],
    number: int,
    seconds: float,
) -> dict[Arrangement, tuple[Trained, ...]]:
    """Each arrangement in both processes at once, starting with another one in every round."""
    side_by_side(pair, train_for, ALONE, runs, folder, 0.0)  # the first of a width finds the processor's caches empty
    first = number % len(ways)
    return {
        way: tuple(side_by_side(pair, train_for, way, runs, folder, seconds)) for way in [*ways[first:], *ways[:first]]
    }


def rates(taken: Sequence[tuple[Trained, ...]]) -> tuple[float, ...]:
    """Samples x models a second of all processes together, by round."""
    return tuple(sum(each.rate for each in trained) for trained in taken)


def cpu_rates(taken: Sequence[tuple[Trained, ...]]) -> tuple[float, ...]:
    """The same by the CPU seconds that they used: what other work on the machine cannot blur."""
    return tuple(sum(each.cpu_rate for each in trained) for trained in taken)


def gain(taken: Rates) -> float:
    """Of the largest pack in the latest round, over one model a process."""
    largest = max((way for way in taken if way.fused == "chosen"), key=lambda way: way.models)
    return rates(taken[largest])[-1] / rates(taken[ALONE])[-1]


def figures(network: Network, taken: Rates, choices: Mapping[int, int]) -> Iterator[Figure]:
    """Runs an hour of packs by their size, and their gain; then the gain of the alternatives."""
    alone = rates(taken[ALONE])
    for way in [ALONE, *(way for way in taken if way.fused == "chosen")]:
        found = rates(taken[way])
        hourly = tuple(3600 * rate / network.run_samples for rate in found)
        details: dict[str, Any] = {"side": network.side, "width": network.width, "models": way.models}
        details |= {"fused": choices.get(way.models, 1)}
        details |= {"processes": [[asdict(each) for each in trained] for trained in taken[way]]}
        yield Figure(f"{network.title}: {way.title}", hourly, "runs/h", details=details)
        if way is not ALONE:
            goal = Goal(network.goal if way.models >= LARGE else NEVER_UNDER, is_least=True)
            how = f"fused by {choices[way.models]}" if choices[way.models] > 1 else "one after another"
            what = f"{network.title}: {way.title} ({how}) / one model a process"
            yield Figure(what, pair_up(found, alone), goal=goal)
            yield Figure(f"{what}, per CPU second", pair_up(cpu_rates(taken[way]), cpu_rates(taken[ALONE])))
    for way in taken:
        if way is not ALONE and way.fused != "chosen":
            what = f"{network.title}: {way.title} / one model a process"
            yield Figure(what, pair_up(rates(taken[way]), alone))


def space_of(network: Network, models: int) -> SearchSpace:
    """Runs that fill one pack, cut short: as many evaluations for each epoch as in the full runs."""
    noise = f"noise.rates={[round(0.02 * number, 2) for number in range(models)]}"
    shared = (f"widths=[{network.width}]", noise, "seeds=1")
    if network.side == SIDE:
        facts = f"version: '1', classes: 10, resolution: {SIDE}, train_samples: {IMAGES}, test_samples: {IMAGES // 5}"
        colours = "pixel_mean: [125, 123, 114], pixel_std: [52, 51, 51]"
        own = f"dataset={{name: made-up, validation_samples: {IMAGES // 25}, facts: {{{facts}, {colours}}}}}"
        shorter = ("recipe.epochs=2", "recipe.precision=fp32", "evaluation.first_epoch_points=0", f"samples={IMAGES}")
        return load_space("cifar10-grid", (*shared, own, *shorter))
    epochs, points = (6, 4) if network.width < 16 else (2, 2)  # 32 points over 60 epochs: one for each 15 steps
    return load_space("digits-grid", (*shared, f"recipe.epochs={epochs}", f"evaluation.points={points}"))


def write_data(folder: Path) -> None:
    """The made-up images; digits are made on the spot. In a contestant."""
    for part, count in (("train", IMAGES), ("test", IMAGES // 5)):
        write_small_images(folder / "made-up" / f"{part}.beton", count)
