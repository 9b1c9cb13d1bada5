"""Orchestration: what a launch adds to a plain loop over 100 short runs of digits.

Efficiency is the seconds that the same packs take in a plain loop over the slot seconds (wall seconds x slots) of
`launch`. "Once up" counts each slot from the moment its worker has imported everything, up to the return of `launch`;
"start-up included" counts all slots from the start of the command.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from benchmarks.measuring.figures import Figure, Goal, efficiency
from benchmarks.measuring.rounds import loop_and_launch

PARTS = {
    "start_up": "slot seconds until workers are up",
    "committing": "slot seconds in packs beside training",
    "between": "slot seconds between packs",
    "tail": "slot seconds idle at the end",
    "winding_up": "slot seconds from the last run to the return",
}


def measure(quick: bool) -> Iterator[Figure]:
    """Efficiencies, then where the slot seconds went."""
    rounds = loop_and_launch(quick)
    details = {
        "runs": rounds[0].runs,
        "rounds": [asdict(taken) for taken in rounds],
    }
    yield Figure(
        "efficiency once up, against loops side by side, one a slot",
        tuple(efficiency(taken.side_by_side.wall, taken.launch.once_up) for taken in rounds),
        goal=Goal(0.90, is_least=True),
        details=details,
    )
    yield Figure(
        "efficiency once up, against one loop alone on the machine",
        tuple(efficiency(taken.alone.wall, taken.launch.once_up) for taken in rounds),
    )
    yield Figure(
        "efficiency with start-up included, against loops side by side",
        tuple(efficiency(taken.side_by_side.wall, taken.launch.total) for taken in rounds),
    )
    yield Figure(
        "wall seconds of training, launch / loops side by side",
        tuple(taken.launch.training / taken.side_by_side.wall for taken in rounds),
    )
    yield Figure(
        "CPU seconds of training, launch / loops side by side",
        tuple(taken.launch.training_cpu / taken.side_by_side.cpu for taken in rounds),
    )
    for name, what in PARTS.items():
        yield Figure(what, tuple(getattr(taken.launch, name) for taken in rounds), "s")
