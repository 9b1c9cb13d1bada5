"""Publishing a finished sweep to W&B's offline files: 1,000 runs of 200 evaluations, one W&B run each.

`bo-sweep wandb publish` as users run it, in a process of its own with W&B's beside it, at the lowest priority; the
summary with its figures is part of it. Memory is the largest sum, over all of its processes, of what each has of its
own and its share of what they have in common (PSS). Publishing again, when nothing is new, is measured beside it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from benchmarks.measuring.children import scratch_folder
from benchmarks.measuring.figures import Figure
from benchmarks.measuring.machine import when_free

if TYPE_CHECKING:
    from orchestrator.ledger import Ledger

ROUNDS = 3
WIDTHS, RATES, SEEDS = 20, 10, 5
QUICK = (2, 2, 2)
LOOK_SECONDS = 0.2
NAME = "sweep"
COMMAND = "from orchestrator.commands.wandb import wandb; wandb()"


@dataclass(frozen=True)
class Taken:
    """One call of the command."""

    seconds: float
    megabytes: float


def measure(quick: bool) -> Iterator[Figure]:
    """Seconds, memory and size of the files; then seconds of a second time."""
    shape = QUICK if quick else (WIDTHS, RATES, SEEDS)
    runs = shape[0] * shape[1] * shape[2]
    first, again, sizes, files = [], [], [], []
    with scratch_folder() as scratch:
        generated_sweep(scratch / "sweeps" / NAME, *shape)
        for number in range(1 if quick else ROUNDS):
            out = scratch / f"out-{number}"
            first.append(when_free(lambda out=out: published(scratch, out)))  # type: ignore[misc]
            again.append(when_free(lambda out=out: published(scratch, out)))  # type: ignore[misc]
            there = [path.stat().st_size for path in out.rglob("*") if path.is_file()]
            sizes.append(sum(there) / 1e6)
            files.append(float(len(there)))
    name = f"{runs:,} runs of 200 evaluations"
    yield Figure(f"{name}: published offline", tuple(each.seconds for each in first), "s")
    yield Figure(f"{name}: each run", tuple(each.seconds / runs * 1e3 for each in first), "ms")
    yield Figure(f"{name}: memory of all processes", tuple(each.megabytes for each in first), "MB")
    yield Figure(f"{name}: size", tuple(sizes), "MB")
    yield Figure(f"{name}: files", tuple(files), "files")
    yield Figure(f"{name}: published again, nothing new", tuple(each.seconds for each in again), "s")


def published(scratch: Path, out: Path) -> Taken:
    """Publish, and watch the memory."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    where = ("--dir", out, "--storage", scratch / "sweeps")
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "publish", NAME, "--mode", "runs", *map(str, where)],
        env=kept | {"WANDB_MODE": "offline"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    most = 0.0
    while process.poll() is None:
        most = max(most, _megabytes(process.pid))
        time.sleep(LOOK_SECONDS)
    seconds = time.perf_counter() - started
    if process.returncode:
        assert process.stderr is not None
        raise RuntimeError(f"publishing ended with code {process.returncode}: {process.stderr.read()[-2000:]}")
    return Taken(seconds, most)


def _megabytes(process: int) -> float:
    total = 0
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process)
        for each in (parent, *parent.children(recursive=True)):
            with suppress(psutil.Error):
                total += each.memory_full_info().pss
    return total / 1e6


def generated_sweep(folder: Path, widths: int, rates: int, seeds: int) -> Ledger:
    """A finished sweep without training."""
    from benchmarks.measuring.generated import epoch_rows
    from orchestrator.ledger import Ledger, Manifest
    from search_spaces.catalog import load_space
    from search_spaces.runs import expand

    noise = [round(0.04 * number, 2) for number in range(rates)]
    sizes = [4 * (number + 1) for number in range(widths)]
    space = load_space("digits-grid", [f"widths={sizes}", f"noise.rates={noise}", f"seeds={seeds}"])
    runs = expand(space)
    ledger = Ledger(folder)
    ledger.write_manifest(Manifest(NAME, space, launches=1, created="2026-01-01T00:00:00"))
    ledger.add_runs(runs, space.axis, 1_000_000)
    ledger.write_rows("rows", epoch_rows([run.run_id for run in runs], np.random.default_rng(0)))
    facts: dict[str, Any] = {"attempt": 1_000_000, "status": "done", "evaluations": 200, "seconds": 10.0}
    facts |= {"mask_hash": "m", "subset_hash": "s", "device": "cpu", "versions": "generated"}
    ends = [facts | {"run_id": run.run_id, "noise_rate_realised": run.noise.rate} for run in runs]
    ledger.write_ends("ends", ends)
    return ledger
