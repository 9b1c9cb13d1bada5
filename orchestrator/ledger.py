"""The ledger: Parquet files that hold every run's epoch rows, the only truth about a sweep.

Commit order: a run's rows are durable before the end that claims them. A run without an end is simply run again; of
two attempts at a run the reader takes the later one, evaluation by evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import pyarrow as pa

from orchestrator.paths import SweepPaths
from orchestrator.storage import StorageError, read_tables, write_bytes, write_table
from search_spaces.catalog import validate_space
from search_spaces.runs import Run
from search_spaces.spec import Recipe, SearchSpace
from workers.schema import ROWS

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

SCHEMA_VERSION = 1

RUNS = pa.schema(
    [
        pa.field("run_id", pa.string()),
        pa.field("dataset", pa.string()),
        pa.field("dataset_version", pa.string()),
        pa.field("architecture", pa.string()),
        pa.field("axis", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("parameters", pa.int64(), metadata={"description": "p, trainable parameters"}),
        pa.field("samples", pa.int64(), metadata={"description": "n, used training examples"}),
        pa.field("ratio", pa.float64(), metadata={"description": "realised p/n"}),
        pa.field("target_ratio", pa.float64()),
        pa.field("noise_model", pa.string()),
        pa.field("noise_rate", pa.float64(), metadata={"unit": "fraction in [0, 1]", "description": "nominal"}),
        pa.field("seed", pa.int32()),
        pa.field("classes", pa.int32()),
        pa.field("optimizer", pa.string()),
        pa.field("learning_rate_base", pa.float64()),
        pa.field("batch_size", pa.int32()),
        pa.field("epochs", pa.int32()),
        pa.field("weight_decay", pa.float64()),
        pa.field("augmentation", pa.string()),
        pa.field("signal", pa.float64()),
        pa.field("recipe", pa.string(), metadata={"description": "the whole recipe, JSON"}),
    ]
)
ENDS = pa.schema(
    [
        pa.field("run_id", pa.string()),
        pa.field("attempt", pa.int32()),
        pa.field("status", pa.string(), metadata={"description": "done, diverged or failed"}),
        pa.field("mask_hash", pa.string(), metadata={"description": "of the mask of corrupted examples"}),
        pa.field("subset_hash", pa.string(), metadata={"description": "of the indices of used examples"}),
        pa.field("noise_rate_realised", pa.float64(), metadata={"unit": "fraction in [0, 1]"}),
        pa.field("seconds", pa.float64(), metadata={"unit": "s", "description": "share of the pack's wall time"}),
        pa.field("pack_size", pa.int32()),
        pa.field("device", pa.string()),
        pa.field("error", pa.string(), metadata={"description": "last lines of a failed run"}),
        pa.field("signature", pa.string(), metadata={"description": "groups failures of one cause"}),
        pa.field("versions", pa.string(), metadata={"description": "bo-sweep, Python, torch"}),
    ]
)


@dataclass(frozen=True)
class Manifest:
    """`sweep.json`: the space as last launched, and how often it was launched."""

    name: str
    space: SearchSpace
    launches: int
    created: str
    schema_version: int = SCHEMA_VERSION


class LedgerError(Exception):
    """A sweep that is not there or cannot be read; the message says what to do."""


class Ledger:
    """One sweep's folder: reading all of it, and writing whole files to it."""

    def __init__(self, folder: Path) -> None:
        self.paths = SweepPaths(folder)

    # -- what was launched ------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        return self.paths.manifest.is_file()

    def manifest(self) -> Manifest:
        """Raises LedgerError where there is no sweep, or its manifest is damaged or from a newer version."""
        path = self.paths.manifest
        if not path.is_file():
            raise LedgerError(_missing_sweep(self.paths.folder))
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["schema_version"] > SCHEMA_VERSION:
                raise LedgerError(f"{path} was written by a newer bo-sweep: upgrade to read it")
            return Manifest(**{**content, "space": validate_space(content["space"], str(path))})
        except (ValueError, KeyError, TypeError) as error:
            raise LedgerError(f"{path} is damaged ({error}). Launch the same space again to rewrite it") from error

    def write_manifest(self, manifest: Manifest) -> None:
        content = asdict(manifest) | {"space": manifest.space.model_dump(mode="json")}
        write_bytes(self.paths.manifest, json.dumps(content, indent=2).encode())

    def add_runs(self, runs: Iterable[Run], axis: str, attempt: int) -> None:
        """Record the hyperparameters of runs that the ledger does not know yet."""
        known = set(read_tables(self.paths.runs, RUNS)["run_id"].to_pylist())
        new = [run_row(run, axis) for run in runs if run.run_id not in known]
        if new:
            write_table(self.paths.runs / f"{attempt:06d}.parquet", pa.Table.from_pylist(new, schema=RUNS))

    # -- what came out ----------------------------------------------------------------------------------------------

    def write_rows(self, name: str, attempt: int, rows: list[dict[str, Any]]) -> None:
        """Make epoch rows durable in one file. `name` must be unique within the attempt."""
        table = pa.Table.from_pylist([row | {"attempt": attempt} for row in rows], schema=ROWS)
        write_table(self.paths.rows / f"{name}-a{attempt:06d}.parquet", table)

    def write_ends(self, name: str, attempt: int, ends: list[dict[str, Any]]) -> None:
        """Make the ends of runs durable; call it after `write_rows`, never before."""
        table = pa.Table.from_pylist([end | {"attempt": attempt} for end in ends], schema=ENDS)
        write_table(self.paths.ends / f"{name}-a{attempt:06d}.parquet", table)

    def ends(self) -> pl.DataFrame:
        """The latest end of every run that has one."""
        import polars as pl

        frame = pl.DataFrame(read_tables(self.paths.ends, ENDS))
        return frame.sort("attempt", maintain_order=True).unique("run_id", keep="last", maintain_order=True)

    def statuses(self) -> dict[str, str]:
        """Status (done, diverged, failed) of every run that ended; the others are still to be run."""
        ends = self.ends()
        return dict(zip(ends["run_id"].to_list(), ends["status"].to_list(), strict=True))

    def count_rows(self) -> int:
        """Epoch rows in the ledger, each (run, evaluation) once."""
        import polars as pl

        keys = pa.schema([ROWS.field("run_id"), ROWS.field("evaluation")])
        return pl.DataFrame(read_tables(self.paths.rows, keys)).n_unique()

    @overload
    def load(self, kind: Literal["polars"] = "polars") -> pl.DataFrame: ...
    @overload
    def load(self, kind: Literal["pyarrow"]) -> pa.Table: ...
    @overload
    def load(self, kind: Literal["pandas"]) -> pd.DataFrame: ...
    def load(self, kind: str = "polars") -> pl.DataFrame | pa.Table | pd.DataFrame:
        """The tidy table: a row for each run and evaluation, with every hyperparameter and the run's status beside it.

        Rows of a run that has not ended have status "running". Sorted by run and evaluation.

        Raises:
            StorageError: a damaged file, named.
        """
        import polars as pl

        rows = pl.DataFrame(read_tables(self.paths.rows, ROWS))
        rows = rows.sort("run_id", "evaluation", "attempt").unique(
            ["run_id", "evaluation"], keep="last", maintain_order=True
        )
        runs = pl.DataFrame(read_tables(self.paths.runs, RUNS)).unique("run_id", keep="last")
        ends = self.ends().select("run_id", "status", "mask_hash", "subset_hash", "noise_rate_realised", "pack_size")
        table = rows.join(runs, on="run_id", how="left", maintain_order="left")
        table = table.join(ends, on="run_id", how="left", maintain_order="left")
        table = table.with_columns(pl.col("status").fill_null("running"))
        if kind == "polars":
            return table
        return table.to_arrow() if kind == "pyarrow" else table.to_pandas()


def open_ledger(storage: Path, name: str) -> Ledger:
    """The ledger of a sweep that was launched before. Raises LedgerError, listing those that were, if there is none."""
    ledger = Ledger(storage / name)
    if not ledger.exists():
        raise LedgerError(_missing_sweep(ledger.paths.folder))
    return ledger


def run_row(run: Run, axis: str) -> Mapping[str, Any]:
    """The hyperparameters of one run, as they stand in the ledger."""
    recipe = run.recipe
    training: dict[str, Any] = {}
    if isinstance(recipe, Recipe):
        training = {
            "learning_rate_base": recipe.learning_rate,
            "batch_size": recipe.batch_size,
            "epochs": recipe.epochs,
            "weight_decay": recipe.weight_decay,
            "augmentation": recipe.augmentation,
        }
    return training | {
        "run_id": run.run_id,
        "dataset": run.dataset.name,
        "dataset_version": run.dataset.facts.version,
        "architecture": run.architecture,
        "axis": axis,
        "width": run.width,
        "parameters": run.parameters,
        "samples": run.samples,
        "ratio": run.ratio,
        "target_ratio": run.target_ratio,
        "noise_model": run.noise.model,
        "noise_rate": run.noise.rate,
        "seed": run.seed,
        "classes": run.dataset.facts.classes,
        "optimizer": recipe.optimizer,
        "signal": run.dataset.signal,
        "recipe": recipe.model_dump_json(),
    }


def _missing_sweep(folder: Path) -> str:
    storage = folder.parent
    found = sorted(path.parent.name for path in storage.glob("*/sweep.json")) if storage.is_dir() else []
    there = f"Sweeps there: {', '.join(found)}." if found else "No sweep is there yet."
    return f"no sweep {folder.name!r} under {storage}. {there} Start it with: bo-sweep launch {folder.name}"


__all__ = ["ENDS", "RUNS", "Ledger", "LedgerError", "Manifest", "StorageError", "open_ledger", "run_row"]
