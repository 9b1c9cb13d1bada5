"""What a publisher beside a launch costs the training: with W&B over without, in turn.

The same digits sweep is launched with a publisher that follows it, online, against the tests' W&B server on loopback
(a process of its own, at the publisher's priority), and without one. Throughput is runs over the slot seconds from when
the workers are up. Goal: at least 98 % of that without.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring.children import ROOT, scratch_folder
from benchmarks.measuring.figures import Figure, Goal, pair_up
from benchmarks.measuring.launched import SlotSeconds, launch_once, plan_once
from benchmarks.measuring.machine import in_turn
from benchmarks.measuring.rounds import HUNDRED, TWENTY_FOUR
from orchestrator.console import LOG
from search_spaces.catalog import load_space
from search_spaces.spec import SearchSpace

ROUNDS = 5
FINISH_SECONDS = 300.0
GOAL_SHARE = 0.98


def measure(quick: bool) -> Iterator[Figure]:
    """Throughput with and without, and their ratio, paired by round."""
    space = load_space("digits-grid", TWENTY_FOUR if quick else HUNDRED)
    rounds = [measure_round(space, number) for number in range(1 if quick else ROUNDS)]
    runs = rounds[0].runs
    with_wandb, without = (tuple(getattr(each, name) for each in rounds) for name in ("with_wandb", "without"))
    yield Figure(f"{runs} runs: throughput without W&B", without, "1/s")
    yield Figure(f"{runs} runs: throughput with a publisher beside", with_wandb, "1/s")
    yield Figure("with W&B / without", pair_up(with_wandb, without), goal=Goal(GOAL_SHARE, is_least=True))
    yield Figure("published in the end", tuple(float(each.published) for each in rounds), "W&B runs")


@dataclass(frozen=True)
class Round:
    """Runs per slot second, once the workers are up."""

    runs: int
    without: float
    with_wandb: float
    published: int


def measure_round(space: SearchSpace, number: int) -> Round:
    """A launch with a publisher and one without."""
    with scratch_folder() as scratch, served() as environment:
        folders = {name: scratch / name for name in ("without", "with")}
        data = {name: folder / "data" for name, folder in folders.items()}  # with the times of its packs beside it
        plans = [plan_once(space, data[name], folder) for name, folder in folders.items()]
        runs = len(plans[0].runs)
        steps: dict[str, Callable[[], Any]] = {
            "without": lambda: launch_once(space, data["without"], folders["without"]),
            "with": lambda: launch_and_publish(space, data["with"], folders["with"], environment),
        }
        taken = in_turn(steps, number)
    seconds, published = taken["with"]
    found = Round(runs, runs / taken["without"].once_up, runs / seconds.once_up, published)
    LOG.print(f"round {number + 1}, runs per slot second: {found.without:.3f}, with W&B {found.with_wandb:.3f}")
    return found


def launch_and_publish(
    space: SearchSpace, data_folder: Path, scratch: Path, environment: dict[str, str]
) -> tuple[SlotSeconds, int]:
    """A launch with a publisher, started as soon as there is a ledger; how many W&B runs it has finished in the end."""
    from orchestrator.ledger import Ledger
    from orchestrator.publishing.background import BackgroundPublisher, start_publisher

    ledger, out = Ledger(scratch / "sweeps" / space.name), scratch / "out"
    started: list[BackgroundPublisher] = []

    def start() -> None:
        while not ledger.exists():
            time.sleep(0.1)
        os.environ.update(environment)
        try:
            started.append(start_publisher(ledger, str(scratch / "sweeps"), folder=out))
        finally:
            for name in environment:
                os.environ.pop(name, None)

    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    seconds = launch_once(space, data_folder, scratch)
    thread.join()
    said = started[0].finish(FINISH_SECONDS)
    finished = out / "finished.jsonl"
    if not finished.exists():
        raise RuntimeError(f"nothing was published: {said}")
    return seconds, len(finished.read_text().splitlines())


@contextmanager
def served() -> Iterator[dict[str, str]]:
    """The variables of a W&B server that runs as long as the block."""
    server = subprocess.Popen(
        ["nice", "-n", "19", sys.executable, "-m", "tests.wandb_server"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        url = server.stdout.readline().strip()
        yield {"WANDB_BASE_URL": url, "WANDB_API_KEY": "0" * 40, "WANDB_ERROR_REPORTING": "false"}
    finally:
        server.stdin.close()
        server.wait(30)
