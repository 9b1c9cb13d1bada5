"""Planning a large sweep.

`bo-sweep plan BIG.yaml --json` as a fresh process, from its start to its exit: 500 cells (25 widths, 20 noise rates) by
2, 20 and 200 seeds, packed as a launch would, and the largest once more with every run a pack of its own. Memory is the
most that the process had resident.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measuring.children import Child, read_request, scratch_folder, write_answer
from benchmarks.measuring.figures import Figure, Goal
from benchmarks.measuring.machine import in_turn

ROUNDS = 5
GOAL_SECONDS, GOAL_MEGABYTES = 10.0, 1000.0
WIDTHS, RATES = range(1, 26), [hundredths / 100 for hundredths in range(0, 80, 4)]
CELLS = len(WIDTHS) * len(RATES)
SEEDS, QUICK_SEEDS = (2, 20, 200), (2, 20)


@dataclass(frozen=True)
class Case:
    """A space to plan."""

    seeds: int
    packing: str = "auto"

    @property
    def runs(self) -> int:
        return CELLS * self.seeds

    @property
    def title(self) -> str:
        return f"{self.runs:,} runs" + (", each a pack" if self.packing == "off" else "")

    @property
    def command(self) -> list[str]:
        """The command line, but for the storage. Both axes are given, whatever digits-grid has."""
        values = {
            "widths": list(WIDTHS),
            "noise.rates": RATES,
            "seeds": self.seeds,
            "packing": f'"{self.packing}"',
        }
        overrides = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
        return [str(Path(sys.executable).parent / "bo-sweep"), "plan", "digits-grid", "--json", *overrides]


@dataclass(frozen=True)
class Taken:
    """Wall seconds and MB of one plan."""

    seconds: float
    megabytes: float


def measure(quick: bool) -> Iterator[Figure]:
    """Wall seconds and memory by the number of runs."""
    cases = [Case(seeds) for seeds in (QUICK_SEEDS if quick else SEEDS)]
    smallest, largest = cases[0], cases[-1]
    cases.append(Case(largest.seeds, packing="off"))
    taken: dict[str, list[Taken]] = {case.title: [] for case in cases}
    with scratch_folder() as scratch:
        for number in range(1 if quick else ROUNDS):
            steps = {
                case.title: functools.partial(in_child, case, scratch / f"{number}-{index}")
                for index, case in enumerate(cases)
            }
            for title, one in in_turn(steps, number).items():
                taken[title].append(one)

    for case in cases:
        seconds = tuple(one.seconds for one in taken[case.title])
        megabytes = tuple(one.megabytes for one in taken[case.title])
        bound = case.seeds == largest.seeds
        yield Figure(case.title, seconds, "s", Goal(GOAL_SECONDS, is_least=False) if bound else None)
        yield Figure(f"{case.title}: memory", megabytes, "MB", Goal(GOAL_MEGABYTES, is_least=False) if bound else None)
    pairs = list(zip(taken[largest.title], taken[smallest.title], strict=True))
    further = largest.runs - smallest.runs
    yield Figure(
        "each further run", tuple((most.seconds - least.seconds) / further * 1e6 for most, least in pairs), "us"
    )
    kilobytes = tuple((most.megabytes - least.megabytes) / further * 1e3 for most, least in pairs)
    yield Figure("each further run: memory", kilobytes, "kB")


def in_child(case: Case, work: Path) -> Taken:
    """One plan, started and weighed by a small process: a large one's own memory would count as its child's."""
    return Taken(**Child("benchmarks.planning", (case.command, case.runs, work), work).result())


def plan_once(command: list[str], runs: int, work: Path) -> Taken:
    """Time and weigh one plan, which must be of `runs` runs and writes nothing but what it prints."""
    printed = work / "plan.json"
    with open(printed, "wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen([*command, "--storage", str(work / "sweeps")], stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"bo-sweep plan ended with code {process.returncode}"
    assert json.loads(printed.read_bytes())["to_train"] == runs, "another number of runs was planned"
    return Taken(seconds, usage.ru_maxrss * 1024 / 1e6)


if __name__ == "__main__":
    write_answer(asdict(plan_once(*read_request())))  # by its fields: here, Taken is another module's
