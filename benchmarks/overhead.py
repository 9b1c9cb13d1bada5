"""Overhead: what a run costs beside its training, against a plain Ray Tune script.

Cost per run = (slot seconds - seconds of the plain loop) / runs, where the loop is workers.train.train_pack over the
same runs in loops side by side. The plain script (benchmarks/measuring/plain_tune.py) does the same runs with Tune's
defaults, once with FFCV's stock Loader and once, as the harder opponent, with the data set as one tensor in memory.

The plain script starts a process for every trial, so its cost per run does not fall with their number, and few runs
measure it; it is counted from when Ray was up. A launch pays its start-up once: its cost is shown for the same few
runs and for 100, with start-up and without. Goals are "at most a twentieth".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.measuring.children import scratch_folder
from benchmarks.measuring.figures import Figure, Goal, cost_per_run, pair_up
from benchmarks.measuring.launched import SlotSeconds, launch_once, plan_once
from benchmarks.measuring.loop import LoopSeconds, run_loops
from benchmarks.measuring.machine import in_turn
from benchmarks.measuring.plain_tune import PlainSeconds, prepare, run_plain
from benchmarks.measuring.rounds import SHORTER, loop_and_launch
from orchestrator.console import LOG
from search_spaces.catalog import load_space
from search_spaces.spec import SearchSpace

TWELVE = ("widths=[4,8]", "noise.rates=[0,0.2,0.4]", "seeds=2", *SHORTER)
FOUR = ("widths=[4]", "noise.rates=[0,0.2]", "seeds=2", *SHORTER)
ROUNDS = 3
A_TWENTIETH = Goal(1 / 20, is_least=False)


@dataclass(frozen=True)
class Comparison:
    """Slot seconds of one round over the same runs."""

    runs: int
    loop: LoopSeconds
    launch: SlotSeconds
    stock_ffcv: PlainSeconds
    tensors: PlainSeconds


def measure(quick: bool) -> Iterator[Figure]:
    """Costs per run, then ours as shares of the plain script's."""
    space = load_space("digits-grid", FOUR if quick else TWELVE)
    rounds = [compare(space, number) for number in range(1 if quick else ROUNDS)]
    longer = loop_and_launch(quick)
    few, many = rounds[0].runs, longer[0].runs

    def costs(slot_seconds: Callable[[Comparison], float]) -> tuple[float, ...]:
        return tuple(cost_per_run(taken.loop.wall, slot_seconds(taken), taken.runs) for taken in rounds)

    plain = {
        "stock FFCV": costs(lambda taken: taken.stock_ffcv.once_up),
        "tensors": costs(lambda taken: taken.tensors.once_up),
    }
    ours = costs(lambda taken: taken.launch.once_up)
    ours_of_many = tuple(cost_per_run(taken.side_by_side.wall, taken.launch.total, taken.runs) for taken in longer)

    for feed, values in plain.items():
        yield Figure(f"plain Tune with {feed}, {few} runs: cost per run, Ray up", values, "s")
    details = {"rounds": [asdict(taken) for taken in rounds]}
    yield Figure(f"launch, {few} runs: cost per run, workers up", ours, "s", details=details)
    yield Figure(f"launch, {many} runs: cost per run, start-up included", ours_of_many, "s")
    for feed, values in plain.items():
        goal = A_TWENTIETH if feed == "stock FFCV" else None
        yield Figure(f"launch, {few} runs, workers up / plain with {feed}", pair_up(ours, values), goal=goal)
        yield Figure(
            f"launch, {many} runs, start-up included / plain with {feed}", pair_up(ours_of_many, values), goal=goal
        )
    in_all = pair_up(costs(lambda taken: taken.launch.total), costs(lambda taken: taken.stock_ffcv.total))
    yield Figure(f"launch, {few} runs, start-up included / plain with stock FFCV, Ray's start included", in_all)


def compare(space: SearchSpace, number: int) -> Comparison:
    """Loops, launch and both plain scripts, starting with another one in every round."""
    with scratch_folder() as scratch:
        data_folder, plain_folder = scratch / "data", scratch / "plain"
        plan = plan_once(space, data_folder, scratch)
        prepare(plain_folder, scratch)
        steps: dict[str, Callable[[], Any]] = {
            "loop": lambda: run_loops(plan.packs, data_folder, scratch, processes=plan.lanes.most_slots),
            "launch": lambda: launch_once(space, data_folder, scratch),
            "stock_ffcv": lambda: run_plain(space, "ffcv", plan.lanes.most_slots, plain_folder, scratch),
            "tensors": lambda: run_plain(space, "tensors", plan.lanes.most_slots, plain_folder, scratch),
        }
        comparison = Comparison(len(plan.runs), **in_turn(steps, number))
    LOG.print(
        f"round {number + 1}, {comparison.runs} runs, slot seconds: loops {comparison.loop.wall:.1f}, launch "
        f"{comparison.launch.total:.1f}, plain {comparison.stock_ffcv.total:.1f} (FFCV), {comparison.tensors.total:.1f}"
    )
    return comparison
