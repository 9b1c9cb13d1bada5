"""The same runs by the plain loop and by `launch`, in turn."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.measuring.children import scratch_folder
from benchmarks.measuring.launched import SlotSeconds, launch_once, plan_once
from benchmarks.measuring.loop import LoopSeconds, run_loops
from benchmarks.measuring.machine import in_turn
from orchestrator.console import LOG
from search_spaces.catalog import load_space
from search_spaces.spec import SearchSpace

SHORTER = ("samples=500", "recipe.epochs=8", "evaluation.points=16")
HUNDRED = ("widths=[4,8,12,16,24]", "noise.rates=[0,0.1,0.2,0.4]", "seeds=5", *SHORTER)
TWENTY_FOUR = ("widths=[4,8]", "noise.rates=[0,0.1,0.2,0.4]", "seeds=3", *SHORTER)
"""Every axis is given, so that a change to digits-grid leaves what is measured here as it is."""
ROUNDS = 3


@dataclass(frozen=True)
class Round:
    """Seconds of one round: `side_by_side` is the fair loop, `alone` a single loop on an idle machine."""

    runs: int
    side_by_side: LoopSeconds
    alone: LoopSeconds
    launch: SlotSeconds


@functools.cache
def loop_and_launch(quick: bool) -> tuple[Round, ...]:
    """Rounds over a digits space of 100 runs (24 if quick); measured once a process, and shared by the subjects."""
    space = load_space("digits-grid", TWENTY_FOUR if quick else HUNDRED)
    return tuple(measure_round(space, number) for number in range(1 if quick else ROUNDS))


def measure_round(space: SearchSpace, number: int) -> Round:
    """Loops side by side, a launch, and a loop alone, over the same packs."""
    with scratch_folder() as scratch:
        data_folder = scratch / "data"
        plan = plan_once(space, data_folder, scratch)
        steps: dict[str, Callable[[], Any]] = {
            "side_by_side": lambda: run_loops(
                plan.packs, data_folder, scratch / "loops", processes=plan.lanes.most_slots
            ),
            "launch": lambda: launch_once(space, data_folder, scratch),
            "alone": lambda: run_loops(plan.packs, data_folder, scratch / "loop", processes=1),
        }
        taken = Round(len(plan.runs), **in_turn(steps, number))
    LOG.print(
        f"round {number + 1}, {taken.runs} runs, slot seconds: loops side by side {taken.side_by_side.wall:.1f}, "
        f"one alone {taken.alone.wall:.1f}, launch {taken.launch.once_up:.1f} once up, {taken.launch.total:.1f} in all"
    )
    return taken
