"""The command line's answer to --help.

Beside it, in turn: a Python that does nothing, the floor; and Ray's own command line, the alternative.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measuring.figures import Figure, Goal, pair_up
from benchmarks.measuring.machine import when_free

ROUNDS, QUICK_ROUNDS = 20, 3
GOAL_SECONDS = 0.3


def measure(quick: bool) -> Iterator[Figure]:
    """Wall seconds from start to exit of each command."""
    scripts = Path(sys.executable).parent
    commands = {
        "bo-sweep --help": [str(scripts / "bo-sweep"), "--help"],
        "python -c pass": [sys.executable, "-c", "pass"],
        "ray --help": [str(scripts / "ray"), "--help"],
    }
    for command in commands.values():
        when_free(functools.partial(seconds_of, command))  # reads the files from disk
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(QUICK_ROUNDS if quick else ROUNDS):
        for name, command in commands.items():
            seconds[name].append(seconds_of(command))
    for name, values in seconds.items():
        goal = Goal(GOAL_SECONDS, is_least=False) if name.startswith("bo-sweep") else None
        yield Figure(name, tuple(values), "s", goal)
    yield Figure("bo-sweep --help / ray --help", pair_up(seconds["bo-sweep --help"], seconds["ray --help"]))


def seconds_of(command: list[str]) -> float:
    """Wall seconds of one command, which must succeed."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started
