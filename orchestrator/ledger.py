"""The ledger: Parquet parts that hold every run's epoch rows, the only truth about a sweep.

Commit order: a run's rows are durable before the end that claims them, and before the checkpoint that goes on from
them. A run without an end is simply trained again, from its checkpoint if it has one. Which rows count is decided by
snapshot.py; every file is whole, immutable and named by its content (parts.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import pyarrow as pa

from orchestrator import paths
from orchestrator.ledger_schema import ENDS, LOGS, RUNS, run_row
from orchestrator.parts import read_parts, write_part
from orchestrator.storage import MissingFileError, Storage, open_storage
from search_spaces.catalog import validate_space
from search_spaces.runs import Run
from search_spaces.spec import SearchSpace
from workers.schema import ROWS

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from orchestrator.snapshot import Snapshot

SCHEMA_VERSION = 2
ATTEMPTS_PER_LAUNCH = 1_000_000


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


class DamagedManifestError(LedgerError):
    """A manifest that is no longer what was written; a launch writes it anew."""


class Ledger:
    """One sweep's folder in storage: reading all of it, and adding parts to it."""

    def __init__(self, where: Storage | Path | str) -> None:
        self.storage = where if isinstance(where, Storage) else open_storage(where)

    @property
    def name(self) -> str:
        return self.storage.name

    # -- what was launched ------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        return self.storage.exists(paths.MANIFEST)

    def manifest(self) -> Manifest:
        """Raises LedgerError where there is no sweep, or its manifest is damaged or of another version."""
        where = self.storage.location(paths.MANIFEST)
        try:
            text = self.storage.read(paths.MANIFEST).decode()
        except MissingFileError as error:
            raise LedgerError(missing_sweep(self.storage)) from error
        except UnicodeDecodeError as error:
            raise DamagedManifestError(_damaged_manifest(where, error)) from error
        try:
            content = json.loads(text)
            version = int(content["schema_version"])
            if version > SCHEMA_VERSION:
                raise LedgerError(f"{where} was written by a newer bo-sweep: upgrade to read it")
            if version < SCHEMA_VERSION:
                raise LedgerError(
                    f"{where} was written by bo-sweep 0.1.0, whose files carry no digests: read it with that version, "
                    "or launch into a new sweep with --name"
                )
            return Manifest(**{**content, "space": validate_space(content["space"], where)})
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedManifestError(_damaged_manifest(where, error)) from error

    def write_manifest(self, manifest: Manifest) -> None:
        import yaml

        space = manifest.space.model_dump(mode="json", exclude_none=True)
        self.storage.write(paths.SPACE, yaml.safe_dump(space, sort_keys=False).encode())
        content = asdict(manifest) | {"space": manifest.space.model_dump(mode="json")}
        self.storage.write(paths.MANIFEST, json.dumps(content, indent=2).encode())

    def add_runs(self, runs: Iterable[Run], axis: str, attempt: int) -> None:
        """Record the hyperparameters of runs that the ledger does not know yet."""
        known = set(read_parts(self.storage, paths.RUNS, RUNS)["run_id"].to_pylist())
        new = [run_row(run, axis) for run in runs if run.run_id not in known]
        if new:
            table = pa.Table.from_pylist(new, schema=RUNS)
            write_part(self.storage, paths.RUNS, f"launch-{attempt // ATTEMPTS_PER_LAUNCH:06d}", table)

    def runs(self) -> pl.DataFrame:
        """The hyperparameters of every run that was ever launched."""
        import polars as pl

        return pl.DataFrame(read_parts(self.storage, paths.RUNS, RUNS)).unique("run_id", keep="last")

    # -- what came out ----------------------------------------------------------------------------------------------

    def write_rows(self, stem: str, rows: pa.Table | Sequence[Mapping[str, Any]]) -> None:
        """Make epoch rows durable in one part. `stem` (a-z, 0-9, -) must be unique."""
        write_part(self.storage, paths.ROWS, stem, rows if isinstance(rows, pa.Table) else as_table(rows, ROWS))

    def write_ends(self, stem: str, ends: Sequence[Mapping[str, Any]]) -> None:
        """Make the ends of runs durable; call it after `write_rows`, never before."""
        write_part(self.storage, paths.ENDS, stem, as_table(ends, ENDS))

    def write_logs(self, stem: str, events: Sequence[Mapping[str, Any]]) -> None:
        """Keep events of runs and workers."""
        write_part(self.storage, paths.LOGS, stem, as_table(events, LOGS))

    def logs(self) -> pl.DataFrame:
        """All events, by time."""
        import polars as pl

        return pl.DataFrame(read_parts(self.storage, paths.LOGS, LOGS)).sort("time", maintain_order=True)

    def snapshot(self, columns: Sequence[str] = ()) -> Snapshot:
        """What the ledger says now; see snapshot.py. Raises DamagedPartsError, naming every damaged file."""
        from orchestrator.snapshot import take_snapshot

        return take_snapshot(self.storage, columns)

    def ends(self) -> pl.DataFrame:
        """The latest end of every run that has one; status "lost" where rows that it claims are not there.

        Raises:
            DamagedPartsError: naming every damaged file.
        """
        from orchestrator.parts import consistently

        return consistently(lambda: self.snapshot().judged_ends())

    def statuses(self) -> dict[str, str]:
        """Status (done, diverged, failed, lost) of every run that ended."""
        ends = self.ends()
        return dict(zip(ends["run_id"].to_list(), ends["status"].to_list(), strict=True))

    @overload
    def load(self, kind: Literal["polars"] = "polars") -> pl.DataFrame: ...
    @overload
    def load(self, kind: Literal["pyarrow"]) -> pa.Table: ...
    @overload
    def load(self, kind: Literal["pandas"]) -> pd.DataFrame: ...
    def load(self, kind: str = "polars") -> pl.DataFrame | pa.Table | pd.DataFrame:
        """The tidy table: a row for each run and evaluation, with every hyperparameter and the run's status beside it.

        Rows of a run that has not ended have status "running", of one whose rows are not all there "lost". Sorted by
        run and evaluation.

        Raises:
            DamagedPartsError: naming every damaged file.
        """
        import polars as pl

        from orchestrator.parts import consistently

        def read() -> tuple[pl.DataFrame, pl.DataFrame]:
            snapshot = self.snapshot(ROWS.names)
            rows = snapshot.rows().select(ROWS.names).collect()
            return rows.sort("run_id", "evaluation"), snapshot.judged_ends()

        rows, ends = consistently(read)
        ends = ends.select("run_id", "status", "mask_hash", "subset_hash", "noise_rate_realised", "pack_size")
        table = rows.join(self.runs(), on="run_id", how="left", maintain_order="left")
        table = table.join(ends, on="run_id", how="left", maintain_order="left")
        table = table.with_columns(pl.col("status").fill_null("running"))
        if kind == "polars":
            return table
        return table.to_arrow() if kind == "pyarrow" else table.to_pandas()


def as_table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as an Arrow table, in a quarter of the time of `Table.from_pylist`; a key that lacks is null."""
    return pa.Table.from_arrays(pa.array(rows, pa.struct(list(schema))).flatten(), schema=schema)


def open_ledger(storage: Storage | Path | str, name: str) -> Ledger:
    """The ledger of a sweep that was launched before. Raises LedgerError, listing those that were, if there is none."""
    root = storage if isinstance(storage, Storage) else open_storage(storage)
    ledger = Ledger(root.child(name))
    if not ledger.exists():
        raise LedgerError(missing_sweep(ledger.storage, root))
    return ledger


def missing_sweep(sweep: Storage, root: Storage | None = None) -> str:
    """The message for a sweep that is not there."""
    found = [name for name in root.folders() if root.exists(f"{name}/{paths.MANIFEST}")] if root else []
    there = f" Sweeps there: {', '.join(found)}." if found else " No sweep is there yet." if root else ""
    under = f" under {root.url}" if root else f" at {sweep.url}"
    return f"no sweep {sweep.name!r}{under}.{there} Start it with: bo-sweep launch {sweep.name}"


def _damaged_manifest(where: str, error: Exception) -> str:
    return f"{where} is damaged ({error}). Launch the same space again to rewrite it"
