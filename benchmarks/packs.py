"""Packs, end to end: runs an hour of digits-grid, against the same without packs and against a plain Ray Tune script.

Each is a command of its own in a fresh process, on two slots: a launch as it is (packing: auto), a launch with
packing=off, which has all else (warm workers, ledger), and the script of benchmarks/measuring/plain_tune.py with Tune's
defaults. Launches do the whole grid, and are counted from the start of the command to its return. The script takes
about 12 s for each run, so it does two rates and one seed of every width: the cost of a run depends on its width alone,
so that their mean is the grid's. It is counted from when Ray was up, and once more with the whole data set as one
tensor instead of FFCV's stock Loader.

Busy are the slots while their workers are inside of `train_pack`. "Workers up" counts each slot from the moment its
worker had imported everything to the end of the last pack; "start-up included" all slots from the start of the command
to its return, in a job of five minutes: the grid with more seeds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring.children import scratch_folder
from benchmarks.measuring.figures import Figure, Goal, pair_up
from benchmarks.measuring.launched import SlotSeconds, launch_once, plan_once
from benchmarks.measuring.machine import in_turn, when_free
from benchmarks.measuring.plain_tune import PlainSeconds, prepare, run_plain
from benchmarks.measuring.rounds import SHORTER
from orchestrator.console import LOG
from search_spaces.catalog import load_space
from search_spaces.runs import expand
from search_spaces.spec import SearchSpace

ROUNDS, LONG_ROUNDS = 3, 2
A_FEW = ("noise.rates=[0,0.2]", "seeds=1")
"""Of every width: what the plain script does."""
QUICK = ("widths=[4]", "noise.rates=[0,0.2]", "seeds=1", *SHORTER)
LONG_SECONDS = 300.0
GOAL_OVER_UNPACKED, GOAL_OVER_PLAIN = 2.5, 20.0
GOAL_BUSY, GOAL_BUSY_IN_ALL = 0.95, 0.90


@dataclass(frozen=True)
class Launched:
    """A launch: its runs, its slots, and where the slots' seconds went."""

    runs: int
    slots: int
    seconds: SlotSeconds

    @property
    def hourly(self) -> float:
        """Runs an hour, start-up included."""
        return 3600 * self.runs * self.slots / self.seconds.total

    @property
    def hourly_once_up(self) -> float:
        return 3600 * self.runs * self.slots / self.seconds.once_up

    @property
    def busy(self) -> float:
        """Share of the slots' time that went into training, from when workers were up to the end of the last pack."""
        return self.seconds.training / (self.seconds.once_up - self.seconds.winding_up)

    @property
    def busy_in_all(self) -> float:
        """The same from the start of the command to its return."""
        return self.seconds.training / self.seconds.total


@dataclass(frozen=True)
class Plain:
    """The plain script's runs, and their slot seconds."""

    runs: int
    slots: int
    seconds: PlainSeconds

    @property
    def hourly(self) -> float:
        """Runs an hour, Ray up."""
        return 3600 * self.runs * self.slots / self.seconds.once_up


@dataclass(frozen=True)
class Round:
    """All ways, each once."""

    packed: Launched
    unpacked: Launched
    stock_ffcv: Plain
    tensors: Plain


def measure(quick: bool) -> Iterator[Figure]:
    """Runs an hour and their ratios, then how busy the slots were."""
    overrides, few = (QUICK, QUICK) if quick else ((), A_FEW)
    rounds = [compare(overrides, few, number) for number in range(1 if quick else ROUNDS)]
    seeds = 1 if quick else seeds_for(LONG_SECONDS, rounds[0].packed)
    longer = []
    for number in range(0 if quick else LONG_ROUNDS):
        with scratch_folder() as scratch:
            space = load_space("digits-grid", (f"seeds={seeds}",))
            longer.append(when_free(functools.partial(launched, space, scratch)))
        LOG.print(f"long round {number + 1}, {longer[-1].runs} runs: busy {longer[-1].busy_in_all:.3f} in all")
    yield from figures(rounds, longer)


def compare(overrides: Sequence[str], few: Sequence[str], number: int) -> Round:
    """Both launches and both scripts, starting with another one in every round."""
    grid, unpacked = load_space("digits-grid", overrides), load_space("digits-grid", (*overrides, "packing=off"))
    part = load_space("digits-grid", few)
    with scratch_folder() as scratch:
        prepare(scratch / "plain", scratch)
        steps: dict[str, Callable[[], Any]] = {
            "packed": lambda: launched(grid, scratch / "packed"),
            "unpacked": lambda: launched(unpacked, scratch / "unpacked"),
            "stock_ffcv": lambda: plain(part, "ffcv", scratch),
            "tensors": lambda: plain(part, "tensors", scratch),
        }
        found = Round(**in_turn(steps, number))
    LOG.print(
        f"round {number + 1}, runs an hour: packed {found.packed.hourly:,.0f} ({found.packed.hourly_once_up:,.0f} once "
        f"up), unpacked {found.unpacked.hourly:,.0f} ({found.unpacked.hourly_once_up:,.0f}), plain "
        f"{found.stock_ffcv.hourly:,.0f} (FFCV), {found.tensors.hourly:,.0f} (tensors)"
    )
    return found


def launched(space: SearchSpace, scratch: Path) -> Launched:
    """Launch all of a space into an empty folder; data are made ahead."""
    plan = plan_once(space, scratch / "data", scratch)
    return Launched(len(plan.runs), plan.lanes.most_slots, launch_once(space, scratch / "data", scratch))


def plain(space: SearchSpace, feed: str, scratch: Path) -> Plain:
    """Run all of a space with the plain script."""
    slots = plan_once(space, scratch / "data", scratch).lanes.most_slots
    return Plain(len(expand(space)), slots, run_plain(space, feed, slots, scratch / "plain", scratch))


def seeds_for(seconds: float, grid: Launched) -> int:
    """Seeds with which a launch of the grid takes about so long, start-up included."""
    seeds = len(load_space("digits-grid").seeds)
    a_seed = (grid.seconds.once_up - grid.seconds.winding_up) / grid.slots / seeds
    around = grid.seconds.total / grid.slots - seeds * a_seed
    return max(1, round((seconds - around) / a_seed))


def figures(rounds: Sequence[Round], longer: Sequence[Launched]) -> Iterator[Figure]:
    """Speeds and ratios of the rounds; busy shares of these, and of longer launches."""
    packed, unpacked = [taken.packed for taken in rounds], [taken.unpacked for taken in rounds]
    hourly = {
        "packed": tuple(each.hourly for each in packed),
        "packing=off": tuple(each.hourly for each in unpacked),
        "plain Tune with stock FFCV": tuple(taken.stock_ffcv.hourly for taken in rounds),
        "plain Tune with tensors": tuple(taken.tensors.hourly for taken in rounds),
    }
    runs = {"packed": packed[0].runs, "packing=off": unpacked[0].runs}
    few = rounds[0].stock_ffcv.runs
    details = {"rounds": [asdict(taken) for taken in rounds]}
    for way, values in hourly.items():
        yield Figure(f"{way}, {runs.get(way, few)} runs", values, "runs/h", details=details if way == "packed" else {})
    for way in (*hourly,)[1:]:
        least = {"packing=off": GOAL_OVER_UNPACKED, "plain Tune with stock FFCV": GOAL_OVER_PLAIN}.get(way)
        goal = None if least is None else Goal(least, is_least=True)
        yield Figure(f"packed / {way}", pair_up(hourly["packed"], hourly[way]), goal=goal)
    once_up = [tuple(each.hourly_once_up for each in launches) for launches in (packed, unpacked)]
    yield Figure("packed / packing=off, both from when workers were up", pair_up(*once_up))
    busy = tuple(each.busy for each in packed)
    yield Figure(f"busy share of the slots, {packed[0].runs} runs, workers up", busy)
    yield Figure(
        f"busy share of the slots, {packed[0].runs} runs, start-up included",
        tuple(each.busy_in_all for each in packed),
    )
    if longer:
        minutes = longer[0].seconds.total / longer[0].slots / 60
        title = f"busy share of the slots, {longer[0].runs} runs in {minutes:.1f} minutes"
        raw = {"launches": [asdict(each) for each in longer]}
        steady, in_all = tuple(each.busy for each in longer), tuple(each.busy_in_all for each in longer)
        yield Figure(f"{title}, workers up", steady, goal=Goal(GOAL_BUSY, is_least=True), details=raw)
        yield Figure(f"{title}, start-up included", in_all, goal=Goal(GOAL_BUSY_IN_ALL, is_least=True))
