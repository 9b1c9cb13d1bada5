"""What it costs to make a run durable.

A run's rows come one by one, as from training, go into the sink and become durable with those of 499 other runs:
Parquet parts with digests, fsynced, on a local disk. Wall time of `Sink.add` and `Sink.flush` over the runs; making the
rows up is not in it. Beside it, in turn, over fewer runs, all just as durable: a Parquet file a run, written at its
end; a Parquet file an evaluation; and a JSON line an evaluation in a write-ahead log that is synced for each.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.measuring.children import Child, read_request, scratch_folder, write_answer
from benchmarks.measuring.figures import Figure, Goal, pair_up
from benchmarks.measuring.machine import in_turn
from orchestrator.console import LOG

EVALUATIONS = (32, 200)
FLUSH_RUNS, FLUSHES = 500, 4
WAYS = {"sink": FLUSH_RUNS * FLUSHES, "file a run": 200, "file an evaluation": 5, "write-ahead log": 5}
"""Runs that are written in each way."""
ROUNDS = 7
GOAL_MILLISECONDS = 0.3
Run = list[dict[str, Any]]


def measure(quick: bool) -> Iterator[Figure]:
    """Milliseconds a run: ours, then the alternatives."""
    names = [f"{way}, {count}" for way in WAYS for count in EVALUATIONS]
    taken: dict[str, list[float]] = {name: [] for name in names}
    for number in range(1 if quick else ROUNDS):
        with scratch_folder() as scratch:
            steps = {
                f"{way}, {count}": functools.partial(in_child, way, count, runs, scratch / f"{way}-{count}")
                for way, runs in WAYS.items()
                for count in EVALUATIONS
            }
            for name, milliseconds in in_turn(steps, number).items():
                taken[name].append(milliseconds)
        latest = ", ".join(f"{taken[f'sink, {count}'][-1]:.3f} ms ({count} evaluations)" for count in EVALUATIONS)
        LOG.print(f"round {number + 1}: {latest}")
    goal = Goal(GOAL_MILLISECONDS, is_least=False)
    for count in EVALUATIONS:
        ours = tuple(taken[f"sink, {count}"])
        yield Figure(f"a run of {count} evaluations: sink, flushed every {FLUSH_RUNS} runs", ours, "ms", goal)
        for way in (way for way in WAYS if way != "sink"):
            theirs = tuple(taken[f"{way}, {count}"])
            yield Figure(f"a run of {count} evaluations: {way}", theirs, "ms")
            yield Figure(f"a run of {count} evaluations: sink / {way}", pair_up(ours, theirs))


def in_child(way: str, evaluations: int, runs: int, scratch: Path) -> float:
    """Wall milliseconds a run, measured in a fresh process."""
    return float(Child("benchmarks.writing", (way, evaluations, runs, scratch / "written"), scratch / "child").result())


# -- in the child -------------------------------------------------------------------------------------------------


def write_runs(way: str, evaluations: int, runs: int, folder: Path) -> float:
    """Write so many runs; milliseconds a run. One run, or one flush of the sink, goes ahead and is not counted."""
    folder.mkdir(parents=True)
    write = {
        "sink": write_into_sink,
        "file a run": write_file_a_run,
        "file an evaluation": write_file_an_evaluation,
        "write-ahead log": write_log,
    }[way](folder)
    ahead = FLUSH_RUNS if way == "sink" else 1
    seconds = 0.0
    for number in range(-ahead, runs):
        run = made_up_run(number, evaluations)
        started = time.perf_counter()
        write(run, number)
        if number >= 0:
            seconds += time.perf_counter() - started
    return 1e3 * seconds / runs


def made_up_run(number: int, evaluations: int) -> Run:
    """The rows of one run."""
    from benchmarks.measuring.stub import stub_rows

    return [row | {"run_id": f"{number % 2**64:016x}", "attempt": 1_000_000} for row in stub_rows(evaluations)]


def write_into_sink(folder: Path) -> Callable[[Run, int], None]:
    """Ours, with an end and an event a run."""
    from orchestrator.ledger import Ledger
    from orchestrator.provenance import versions
    from orchestrator.sink import Sink

    sink = Sink(Ledger(folder), launch=1, worker="host/1")
    provenance = {"device": "x86_64", "node": "host", "versions": versions(), "images": 30_000, "gpu_seconds": 0.0}

    def write(run: Run, number: int) -> None:
        run_id = run[0]["run_id"]
        for row in run:
            sink.add([row], [], attempt=1_000_000)
        end = {"run_id": run_id, "status": "done", "evaluations": len(run), "seconds": 1.0, "pack_size": 1}
        sink.log("done", f"{len(run)} evaluations, 1.0 s", run_id=run_id, attempt=1_000_000)
        sink.add([], [end | provenance], attempt=1_000_000)
        if number % FLUSH_RUNS == FLUSH_RUNS - 1:
            sink.flush()

    return write


def write_file_a_run(folder: Path) -> Callable[[Run, int], None]:
    """What a worker does that commits each run by itself, with the same care for durability."""
    import pyarrow as pa

    from orchestrator.parts import write_part
    from orchestrator.storage import open_storage
    from workers.schema import ROWS

    storage = open_storage(folder)

    def write(run: Run, number: int) -> None:
        write_part(storage, "rows", run[0]["run_id"], pa.Table.from_pylist(run, schema=ROWS))

    return write


def write_file_an_evaluation(folder: Path) -> Callable[[Run, int], None]:
    """The same at every evaluation."""
    import pyarrow as pa

    from orchestrator.parts import write_part
    from orchestrator.storage import open_storage
    from workers.schema import ROWS

    storage = open_storage(folder)

    def write(run: Run, number: int) -> None:
        for row in run:
            stem = f"{row['run_id']}-{row['evaluation']}"
            write_part(storage, "rows", stem, pa.Table.from_pylist([row], schema=ROWS))

    return write


def write_log(folder: Path) -> Callable[[Run, int], None]:
    """A line an evaluation, each on disk before the next."""
    log = os.open(folder / "rows.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)  # for as long as the process lives

    def write(run: Run, number: int) -> None:
        for row in run:
            os.write(log, f"{json.dumps(row)}\n".encode())
            os.fsync(log)

    return write


def main() -> None:
    """The child."""
    write_answer(write_runs(*read_request()))


if __name__ == "__main__":
    main()
