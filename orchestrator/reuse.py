"""Taking over finished runs from another sweep: the same id means the same experiment, so the rows are the same."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from orchestrator import paths
from orchestrator.ledger import Ledger
from orchestrator.ledger_schema import ENDS
from orchestrator.parts import consistently, digest, write_part
from orchestrator.snapshot import CLAIMING
from search_spaces.runs import Run
from workers.schema import ROWS


def reuse_runs(ledger: Ledger, source: Ledger, runs: Iterable[Run], axis: str, attempt: int) -> int:
    """Copy rows and ends of those `runs` that `source` has finished and `ledger` has not; returns how many.

    Rows before ends, as always. They count as `attempt`, which must be new; `reused_from` stands beside each end.

    Raises:
        DamagedPartsError: in either ledger.
        StorageError: storage cannot be read or written.
    """
    planned = {run.run_id: run for run in runs}

    def read() -> tuple[pl.DataFrame, pl.DataFrame]:
        snapshot = source.snapshot(ROWS.names)
        ends = snapshot.judged_ends()
        wanted = ends.filter(pl.col("status").is_in(CLAIMING) & pl.col("run_id").is_in(list(planned)))
        settled = [run_id for run_id, status in ledger.statuses().items() if status in CLAIMING]
        wanted = wanted.filter(~pl.col("run_id").is_in(settled))
        rows = snapshot.rows().join(wanted.lazy().select("run_id"), on="run_id", how="semi").collect()
        return rows.sort("run_id", "evaluation"), wanted

    rows, ends = consistently(read)
    if ends.is_empty():
        return 0
    ledger.add_runs([planned[run_id] for run_id in ends["run_id"].to_list()], axis, attempt)
    stem = f"reused-{digest(' '.join(ends['run_id'].to_list()).encode())}"
    taken = pl.lit(attempt, dtype=pl.Int64).alias("attempt")
    rows = rows.select(ROWS.names).with_columns(taken)
    ends = ends.with_columns(taken, pl.lit(source.name).alias("reused_from")).select(ENDS.names)
    write_part(ledger.storage, paths.ROWS, stem, rows.to_arrow().cast(ROWS))
    write_part(ledger.storage, paths.ENDS, stem, ends.to_arrow().cast(ENDS))
    return ends.height
