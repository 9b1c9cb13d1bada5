"""From a large ledger to the phase table.

Generated ledgers of up to 100,000 runs of 200 evaluations; each measurement is a fresh process on two cores, timed and
weighed from after its imports: the metrics of every run from a scan, noise costs and excess risks, means and bootstrap
over the seeds of 500 cells. Memory is the process's peak (VmHWM: mapped files count) less what the imports left.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measuring.children import Child, read_request, scratch_folder, write_answer
from benchmarks.measuring.figures import Figure, Goal, pair_up
from benchmarks.measuring.machine import in_turn

ROUNDS = 5
CORES = 2
GOAL_SECONDS, GOAL_MEGABYTES, GOAL_RATIO = 0.6, 250.0, 20.0
LARGEST, FILE_A_RUN = 100_000, 20_000
"""Runs of the largest ledger, and of that with a file a run: 100,000 files take minutes to write, so it is scaled."""
SMALLER = (25_000, 50_000)
FEW_ROWS, FILES = 10_000, (1, 20, 200, 2_000)
"""Runs of the ledger that is written in that many files."""
QUICK_SHARE = 20
RUNS_A_FILE = 5_000


@dataclass(frozen=True)
class Taken:
    """Seconds and MB of one phase table; `metrics`, `scores` and `cells` are its steps."""

    metrics: float
    scores: float
    cells: float
    megabytes: float

    @property
    def seconds(self) -> float:
        return self.metrics + self.scores + self.cells


def measure(quick: bool) -> Iterator[Figure]:
    """Wall seconds and memory of the phase table, by rows and by files."""
    from benchmarks.measuring.generated import Generated

    share = QUICK_SHARE if quick else 1
    largest, file_a_run, few = (Generated(runs // share) for runs in (LARGEST, FILE_A_RUN, FEW_ROWS))
    smaller = [Generated(runs // share) for runs in SMALLER]
    files = sorted({max(1, count // share) for count in FILES})
    with scratch_folder() as scratch:
        folders = {}
        for ledger in (*smaller, largest):
            folders[_of(ledger.rows)] = scratch / f"rows-{ledger.runs}"
            ledger.write_compacted(folders[_of(ledger.rows)] / "rows", max(1, ledger.runs // RUNS_A_FILE))
            ledger.write_described(folders[_of(ledger.rows)])
        for count in files:
            folders[f"{count} files"] = scratch / f"files-{count}"
            few.write_compacted(folders[f"{count} files"] / "rows", count)
            few.write_described(folders[f"{count} files"])
        folders["file a run"] = scratch / "file-a-run"
        file_a_run.write_file_a_run(folders["file a run"] / "rows")
        file_a_run.write_described(folders["file a run"])

        taken: dict[str, list[Taken]] = {name: [] for name in folders}
        for number in range(1 if quick else ROUNDS):
            steps = {
                name: functools.partial(in_child, folder, scratch / f"{number}-{name}")
                for name, folder in folders.items()
            }
            for name, one in in_turn(steps, number).items():
                taken[name].append(one)

    full = taken[_of(largest.rows)]
    seconds = {name: tuple(one.seconds for one in many) for name, many in taken.items()}
    whole = f"{_of(largest.rows)}, compacted"
    yield Figure(f"{whole}: phase table", seconds[_of(largest.rows)], "s", Goal(GOAL_SECONDS, is_least=False))
    yield Figure(f"{whole}: metrics of every run", tuple(one.metrics for one in full), "s")
    yield Figure(f"{whole}: noise costs and excess risks", tuple(one.scores for one in full), "s")
    yield Figure(f"{whole}: cells, bootstrap", tuple(one.cells for one in full), "s")
    memory = tuple(one.megabytes for one in full)
    yield Figure(f"{whole}: memory beyond the imports", memory, "MB", Goal(GOAL_MEGABYTES, is_least=False))
    for ledger in smaller:
        yield Figure(f"{_of(ledger.rows)}, compacted: phase table", seconds[_of(ledger.rows)], "s")
    per_row = [
        (most - least) / (largest.rows - smaller[0].rows) * 1e9
        for most, least in zip(seconds[_of(largest.rows)], seconds[_of(smaller[0].rows)], strict=True)
    ]
    yield Figure("each further row", tuple(per_row), "ns")
    for count in files:
        yield Figure(f"{_of(few.rows)} in {count:,} compacted files: phase table", seconds[f"{count} files"], "s")
    per_file = [
        (most - least) / (files[-1] - files[0]) * 1e3
        for most, least in zip(seconds[f"{files[-1]} files"], seconds[f"{files[0]} files"], strict=True)
    ]
    yield Figure("each further file", tuple(per_file), "ms")
    yield Figure(f"{_of(file_a_run.rows)} in one file a run ({file_a_run.runs:,})", seconds["file a run"], "s")
    scale = largest.runs / file_a_run.runs
    scaled = [scale * each for each in seconds["file a run"]]
    yield Figure(
        f"one file a run, x {scale:g} / {whole}",
        pair_up(scaled, seconds[_of(largest.rows)]),
        goal=Goal(GOAL_RATIO, is_least=True),
    )


def _of(rows: int) -> str:
    return f"{rows / 1e6:g} million rows"


def in_child(folder: Path, work: Path) -> Taken:
    """One phase table of the ledger in `folder`, by a fresh process."""
    return Taken(**Child("benchmarks.ledger_reading", folder, work).result())


def phase_table(folder: Path) -> Taken:
    """Time and weigh one phase table, in this process."""
    import polars as pl

    from orchestrator.analysis.cells import cell_table
    from orchestrator.analysis.run_metrics import summarise_runs
    from orchestrator.analysis.scores import ENDED, score_runs

    before = _memory("VmRSS")
    _forget_peak()
    started = time.perf_counter()
    summaries = summarise_runs(pl.scan_parquet(folder / "rows" / "*.parquet"))
    summarised = time.perf_counter()
    runs = pl.read_parquet(folder / "runs.parquet")
    scored_runs = score_runs(summaries, runs, pl.read_parquet(folder / "ends.parquet", columns=list(ENDED)))
    scored = time.perf_counter()
    cells = cell_table(scored_runs, runs)
    ended = time.perf_counter()
    assert cells["n"].sum() == runs.height, "runs were lost"
    return Taken(summarised - started, scored - summarised, ended - scored, _memory("VmHWM") - before)


def _memory(name: str) -> float:
    """A line of /proc/self/status, MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError(f"/proc/self/status has no {name}")


def _forget_peak() -> None:
    """Let VmHWM start again from here: the imports' own peak is not what is weighed."""
    Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])  # before Polars counts them
    write_answer(asdict(phase_table(read_request())))  # by its fields: here, Taken is another module's
