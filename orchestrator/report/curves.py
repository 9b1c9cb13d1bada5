"""The curves of a cell, packed for the page: float32 numbers that compress well and are read on demand."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from orchestrator.snapshot import Snapshot

SERIES = (
    *("epoch", "test_error", "train_error_given", "val_error"),
    *("test_loss", "train_loss_given", "val_loss", "memorised", "recovered"),
)
"""Columns of the epoch rows that the page draws."""
CURVE_COLUMNS = ("evaluation", "step", *SERIES)
MOST_ROWS = 600_000
"""Evaluations beyond which curves are thinned and not offered as a table: a page of a hundred megabytes is no page."""


def curve_rows(snapshot: Snapshot, run_ids: Sequence[str]) -> pl.DataFrame:
    """The epoch rows of those runs, in full: run_id and CURVE_COLUMNS, sorted by run and evaluation."""
    rows = snapshot.rows().filter(pl.col("run_id").is_in(list(run_ids)))
    return rows.select("run_id", *CURVE_COLUMNS).collect().sort("run_id", "evaluation")


def thinning(snapshot: Snapshot) -> int:
    """Every how many evaluations one is drawn: 1 unless the ledger has more than MOST_ROWS."""
    held = snapshot.counts["held"].sum()
    return max(1, -(-int(held) // MOST_ROWS))


def thinned(rows: pl.DataFrame, every: int) -> pl.DataFrame:
    """Every `every`-th evaluation of each run, with its first, its last and its best one."""
    if every == 1:
        return rows
    best = (pl.col("evaluation") == pl.col("evaluation").sort_by("test_error", nulls_last=True).first()).over("run_id")
    last = (pl.col("evaluation") == pl.col("evaluation").max()).over("run_id")
    return rows.filter((pl.col("evaluation") % every == 0) | best | last)


def packed(rows: pl.DataFrame) -> bytes:
    """The curves of one cell's runs (rows sorted by run and evaluation) as the page reads them, compressed by gzip.

    Content: the length of a header (uint32, little-endian) and the header (JSON: `series`, and `runs` with `id` and
    `points`), then all numbers as float32, run after run, series after series, cut into four planes: the first bytes
    of all numbers, their second bytes, and so on, which makes them a third smaller. A number that was not measured is
    NaN.
    """
    runs, numbers = [], []
    for (run_id,), frame in rows.group_by("run_id", maintain_order=True):
        runs.append({"id": run_id, "points": frame.height})
        columns = frame.select(pl.col(SERIES).cast(pl.Float32).fill_null(float("nan")))
        numbers.append(columns.to_numpy().astype("<f4").T.reshape(-1))
    header = json.dumps({"series": SERIES, "runs": runs}).encode()
    values = np.concatenate(numbers) if numbers else np.empty(0, "<f4")
    planes = np.ascontiguousarray(values.view(np.uint8).reshape(-1, 4).T)
    content = len(header).to_bytes(4, "little") + header + planes.tobytes()
    return gzip.compress(content, 6, mtime=0)


def packed_cells(rows: pl.DataFrame, plan: pl.DataFrame) -> Iterator[tuple[int, bytes]]:
    """The place of every cell that has rows, in ascending order, with its packed curves."""
    placed = rows.join(plan.select("run_id", "cell"), on="run_id", how="inner", maintain_order="left")
    for (cell,), frame in placed.sort("cell", "run_id", "evaluation").group_by("cell", maintain_order=True):
        assert isinstance(cell, int)
        yield cell, packed(frame)
