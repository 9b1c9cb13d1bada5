"""Verification: is every planned (run, epoch) there exactly once, readable, and as it was written?"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from orchestrator import paths
from orchestrator.ledger import Ledger, LedgerError
from orchestrator.ledger_schema import LOGS, RUNS
from orchestrator.parts import NAME, Damage, consistently, file_digest, list_parts, read_all
from orchestrator.snapshot import CLAIMING, Snapshot, examine
from search_spaces.runs import Run, expand
from search_spaces.schedule import count_evaluations, least_evaluations

SHOWN = 5
"""Runs named in one problem."""


@dataclass
class Verification:
    """What was found. `problems` are things that must not be; runs to do and failed runs are none."""

    problems: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        return not self.problems

    @property
    def is_complete(self) -> bool:
        return self.is_clean and self.counts["covered"] == self.counts["planned"]


def verify(ledger: Ledger) -> Verification:
    """Check all files of a sweep and the coverage of its plan; reads everything, writes nothing.

    Raises:
        LedgerError: no such sweep.
        StorageError: storage cannot be read.
    """
    found = Verification()
    runs = _planned_runs(ledger, found)
    snapshot, damages = examine(ledger.storage)
    damages += _other_damages(ledger, snapshot)
    found.problems += [f"{ledger.storage.location(damage.path)}: {damage.reason}" for damage in damages]
    _check_coverage(snapshot, runs, found)
    _check_hashes(snapshot, runs, found)
    _check_hyperparameters(ledger, snapshot, found)
    return found


def _planned_runs(ledger: Ledger, found: Verification) -> list[Run]:
    if not ledger.exists():
        ledger.manifest()  # raises, naming the sweep
    try:
        return expand(ledger.manifest().space)
    except LedgerError as error:
        found.problems.append(str(error))
        return []


def _other_damages(ledger: Ledger, snapshot: Snapshot) -> list[Damage]:
    """Damage in tables that a snapshot does not read, and in settled parts, whatever was remembered of them."""
    damages: list[Damage] = []
    for folder, schema in ((paths.RUNS, RUNS), (paths.LOGS, LOGS)):

        def read(folder: str = folder, schema: Any = schema) -> list[Damage]:
            return read_all(ledger.storage, list_parts(ledger.storage, folder), schema)[1]

        damages += consistently(read)
    for path in snapshot.settled:
        name = NAME.fullmatch(path.name)
        with suppress(FileNotFoundError):  # compacted away since
            if name and file_digest(path) != name["digest"]:
                damages.append(Damage(f"{paths.ROWS}/{path.name}", "its content is not what was written: changed"))
    return damages


def _check_coverage(snapshot: Snapshot, runs: list[Run], found: Verification) -> None:
    """Every run that counts as done has every evaluation of its recipe, once; up to an early stop, where it has one."""
    expected = pl.DataFrame(
        {
            "run_id": [run.run_id for run in runs],
            "planned": [count_evaluations(run.recipe, run.evaluation, run.samples) for run in runs],
            "least": [least_evaluations(run.recipe, run.evaluation, run.samples) for run in runs],
        },
        schema={"run_id": pl.String, "planned": pl.Int32, "least": pl.Int32},
    )
    present = (
        snapshot.rows()
        .group_by("run_id")
        .agg(
            rows=pl.len().cast(pl.Int32),
            distinct=pl.col("evaluation").n_unique().cast(pl.Int32),
            first=pl.col("evaluation").min(),
            last=pl.col("evaluation").max(),
        )
        .collect(engine="streaming")
    )
    ends = snapshot.ends.join(present, on="run_id", how="left").join(expected, on="run_id", how="left")
    claiming = ends.filter(pl.col("status").is_in(CLAIMING)).with_columns(pl.col("rows", "distinct").fill_null(0))
    whole = (
        (pl.col("rows") == pl.col("evaluations"))
        & (pl.col("distinct") == pl.col("evaluations"))
        & (pl.col("first") == 0)
        & (pl.col("last") == pl.col("evaluations") - 1)
    ).fill_null(False)
    as_planned = pl.col("evaluations").is_between("least", "planned")
    short = (pl.col("status") == "done") & ~as_planned
    _name_runs(claiming.filter(~whole), "ended, but their rows are not all there exactly once", found)
    _name_runs(claiming.filter(whole & short.fill_null(False)), "done with another number of rows than planned", found)
    planned = ends.filter(pl.col("planned").is_not_null())
    covered = planned.join(claiming.filter(whole & ~short.fill_null(False)), on="run_id", how="semi")
    found.counts = {
        "planned": expected.height,
        "covered": covered.height,
        "failed": planned.filter(pl.col("status") == "failed").height,
        "to do": expected.height - planned.height,
        "rows": int(present["rows"].sum()),
        "rows covered": int(covered["evaluations"].sum()),
    }


def _check_hashes(snapshot: Snapshot, runs: list[Run], found: Verification) -> None:
    """Runs of one data stream share the subset, and those that share the seed and the noise too share the mask."""
    facts = pl.DataFrame(
        {
            "run_id": [run.run_id for run in runs],
            "subset": [f"{run.dataset.name} n={run.samples} seed={run.stream_seed}" for run in runs],
            "mask": [
                f"{run.dataset.name} n={run.samples} seed={run.seed}, {run.noise.model} {run.noise.rate}"
                for run in runs
            ],
        },
        schema={"run_id": pl.String, "subset": pl.String, "mask": pl.String},
    )
    ends = snapshot.ends.filter(pl.col("status").is_in(CLAIMING)).join(facts, on="run_id")
    for column, what in (("subset_hash", "subset"), ("mask_hash", "mask")):
        groups = ends.group_by(what).agg(pl.col(column).n_unique().alias("kinds"), pl.col("run_id"))
        for row in groups.filter(pl.col("kinds") > 1).sort(what).iter_rows(named=True):
            found.problems.append(
                f"{column} differs between runs of {row[what]}: they did not see the same data ({_some(row['run_id'])})"
            )


def _check_hyperparameters(ledger: Ledger, snapshot: Snapshot, found: Verification) -> None:
    def read() -> pl.DataFrame:
        return pl.DataFrame(read_all(ledger.storage, list_parts(ledger.storage, paths.RUNS), RUNS)[0])

    known = consistently(read)
    unknown = snapshot.counts.join(known, on="run_id", how="anti")
    _name_runs(unknown, "have rows, but their hyperparameters are not in the ledger", found)


def _name_runs(runs: pl.DataFrame, what: str, found: Verification) -> None:
    if runs.height:
        found.problems.append(f"{runs.height} runs {what}: {_some(runs['run_id'].sort().to_list())}")


def _some(run_ids: list[str]) -> str:
    shown = ", ".join(run_ids[:SHOWN])
    return f"{shown} and {len(run_ids) - SHOWN} more" if len(run_ids) > SHOWN else shown
