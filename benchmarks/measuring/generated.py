"""Ledgers of any size without training: epoch rows with full-precision numbers, and the runs and ends beside them.

Only what recurs in a real ledger recurs here: ids, evaluations, times. Every column is filled, and every number has all
of its digits, so nothing is easier to read than what a sweep leaves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.ledger_schema import ENDS, RUNS
from orchestrator.parquet_options import write_compacted
from workers.schema import ROWS

FULL = 100_000
EVALUATIONS = 200
RATIOS, RATES = 25, 20
"""The grid of a full ledger; 200 seeds make up its runs."""
SAMPLES, EPOCHS, BATCH_SIZE = 500, 60, 64
AT_ONCE = 5_000
"""Runs that are made at once: a million rows, 200 MB in memory."""

DESCRIBED: dict[str, Any] = {
    "dataset": "digits",
    "dataset_version": "1",
    "architecture": "tiny-resnet",
    "axis": "width",
    "samples": SAMPLES,
    "noise_model": "symmetric",
    "classes": 10,
    "optimizer": "adam",
    "learning_rate_base": 3e-3,
    "batch_size": BATCH_SIZE,
    "epochs": EPOCHS,
    "weight_decay": 0.0,
    "augmentation": "none",
    "recipe": '{"optimizer":"adam","learning_rate":0.003,"schedule":"constant","batch_size":64,"epochs":60}',
}


@dataclass(frozen=True)
class Generated:
    """A ledger of `runs` runs of 200 evaluations each; the first ones of 100,000 whatever the size."""

    runs: int = FULL

    @property
    def rows(self) -> int:
        return self.runs * EVALUATIONS

    def write_compacted(self, folder: Path, files: int) -> None:
        """The epoch rows in `files` files of one size."""
        folder.mkdir(parents=True)
        sizes = -(-self.runs // files)
        for number, table in enumerate(self._tables(sizes)):
            write_compacted(table, folder / f"{number:06d}.parquet")

    def write_file_a_run(self, folder: Path) -> None:
        """The epoch rows in one file a run, as a worker leaves them that reports every run."""
        folder.mkdir(parents=True)
        for number, table in enumerate(self._tables(AT_ONCE)):
            for first in range(0, table.num_rows, EVALUATIONS):
                path = folder / f"{number:06d}-{first:07d}.parquet"
                pq.write_table(table.slice(first, EVALUATIONS), path, compression="zstd", compression_level=1)

    def write_described(self, folder: Path) -> None:
        """runs.parquet and ends.parquet: every run is done."""
        order = np.random.default_rng(1).permutation(self.runs)  # an id says nothing about a run's place in the grid
        cell = order % (RATIOS * RATES)
        width = 4 * (1 + cell % RATIOS)
        runs: dict[str, Any] = {
            "run_id": self._ids(),
            "width": width,
            "parameters": 80 * width**2,
            "ratio": 80 * width**2 / SAMPLES,
            "noise_rate": 0.02 * (cell // RATIOS),
            "seed": order // (RATIOS * RATES),
        }
        ends: dict[str, Any] = {
            "run_id": self._ids(),
            "attempt": 1_000_000,
            "status": "done",
            "evaluations": EVALUATIONS,
            "mask_hash": self._ids(),
            "subset_hash": self._ids(),
            "noise_rate_realised": runs["noise_rate"],
            "pack_size": 8,
        }
        _write(runs | DESCRIBED, RUNS, folder / "runs.parquet")
        _write(ends, ENDS, folder / "ends.parquet")

    def _ids(self) -> list[str]:
        """As they come out of a hash; ascending, as compaction sorts them."""
        numbers = np.random.default_rng(0).integers(0, 1 << 63, FULL)[: self.runs]
        return [f"{number:016x}" for number in np.sort(numbers)]

    def _tables(self, at_once: int) -> Iterator[pa.Table]:
        ids = self._ids()
        for start in range(0, self.runs, at_once):
            yield epoch_rows(ids[start : start + at_once], np.random.default_rng([2, start]))


def epoch_rows(run_ids: list[str], draw: np.random.Generator) -> pa.Table:
    """Schema ROWS, 200 rows a run: errors fall at a pace of the run's own, with noise; losses are random.

    Errors on the training set end below its threshold of interpolation, at an epoch that differs by run.
    """
    runs, shape = len(run_ids), (len(run_ids), EVALUATIONS)
    epoch = np.geomspace(0.1, EPOCHS, EVALUATIONS)
    fallen = np.exp(-draw.uniform(0.05, 0.5, runs)[:, None] * epoch)

    def error(floor: float, height: float) -> np.ndarray:
        return (floor + height * fallen) * (1 + 0.1 * draw.random(shape))

    numbers = {
        "attempt": np.full(shape, 1_000_000),
        "evaluation": np.broadcast_to(np.arange(EVALUATIONS), shape),
        "step": np.broadcast_to((epoch * SAMPLES / BATCH_SIZE).astype(np.int64), shape),
        "epoch": np.broadcast_to(epoch, shape),
        "train_error_given": error(0.0, 0.9),
        "val_error": error(0.1, 0.5),
        "test_error": error(0.1, 0.5),
        "learning_rate": np.full(shape, 3e-3),
        "peak_memory_bytes": np.broadcast_to(draw.integers(10**8, 10**9, runs)[:, None], shape),
    }
    columns = []
    for field in ROWS:
        if field.name == "run_id":
            indices = pa.array(np.repeat(np.arange(runs, dtype=np.int32), EVALUATIONS))
            columns.append(pa.DictionaryArray.from_arrays(indices, pa.array(run_ids)).cast(pa.string()))
        else:
            values = numbers[field.name] if field.name in numbers else draw.random(shape)
            columns.append(pa.array(values.reshape(-1)).cast(field.type))
    return pa.Table.from_arrays(columns, schema=ROWS)


def _write(columns: dict[str, Any], schema: pa.Schema, path: Path) -> None:
    """One table of a ledger; a column that lacks is null."""
    frame = pl.DataFrame(columns)
    arrays = [
        frame[field.name].to_arrow().cast(field.type) if field.name in columns else pa.nulls(frame.height, field.type)
        for field in schema
    ]
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path)
