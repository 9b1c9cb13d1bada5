"""What a report shows, read from the ledger at one moment: runs, cells, ends, boundaries, and where the curves lie."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import polars as pl

from orchestrator.analysis.run_metrics import NEEDED_COLUMNS, summarise_runs
from orchestrator.analysis.scores import CELL, score_runs
from orchestrator.ledger import Ledger, Manifest
from orchestrator.parts import consistently
from orchestrator.phase_diagram import boundary_curves, need_finished, planned_cells, planned_runs
from orchestrator.report.curves import CURVE_COLUMNS
from orchestrator.snapshot import Snapshot
from search_spaces.spec import SearchSpace

TABLE_ENDS = ("run_id", "attempt", "seconds", "node", "device", "error", "signature", "versions", "reused_from")


@dataclass(frozen=True)
class Commands:
    """The commands that a page names: `reproduce` and `logs` without the run that follows, and `launch`."""

    reproduce: str
    logs: str
    launch: str


@dataclass(frozen=True)
class Contents:
    """One reading of a ledger.

    Attributes:
        manifest: the space as last launched.
        runs: one row per run that has rows, with every metric, as `score_runs` gives it.
        cells: one row per planned cell, as `cell_table` gives it.
        planned: one row per run of the diagram, as `planned_runs` gives it.
        plan: the same runs, in the order of the cells: run_id, `cell` (its row in `cells`, UInt32),
            seed, status (done, diverged, failed, lost, unfinished, waiting) and what its end says.
        ends: the latest end of every run that has one.
        lines: the space's boundary and closed forms of it, as `boundary_curves` gives them.
        snapshot: where the epoch rows are.
    """

    manifest: Manifest
    runs: pl.DataFrame
    cells: pl.DataFrame
    planned: pl.DataFrame
    plan: pl.DataFrame
    ends: pl.DataFrame
    lines: dict[str, pl.DataFrame]
    snapshot: Snapshot

    @property
    def space(self) -> SearchSpace:
        return self.manifest.space


def read_contents(ledger: Ledger, *, unfinished_too: bool = False) -> Contents:
    """Read and analyse a ledger; nothing is written.

    unfinished_too: a sweep without a finished run is a map of empty cells, not an error.

    Raises:
        LedgerError: no such sweep, or no finished run yet.
        ValueError: runs that must not be pooled.
        DamagedPartsError: naming every damaged file.
    """
    manifest = ledger.manifest()
    space, final_evaluations = manifest.space, manifest.space.analysis.last_evaluations

    def read() -> tuple[Snapshot, pl.DataFrame, pl.DataFrame]:
        snapshot = ledger.snapshot((*NEEDED_COLUMNS, *CURVE_COLUMNS))
        summaries = snapshot.summarise(functools.partial(summarise_runs, final_evaluations=final_evaluations))
        return snapshot, summaries, snapshot.judged_ends()

    snapshot, summaries, ends = consistently(read)
    runs = score_runs(summaries, ledger.runs(), ends, final_evaluations=final_evaluations)
    if not unfinished_too:
        live = f"bo-sweep launch {space.name}, and watch it with: bo-sweep report {ledger.name} --live"
        need_finished(ledger, runs, f"nothing to report. Go on with: {live}")
    planned = planned_runs(space, ends, runs)
    cells = planned_cells(space, runs, planned)
    lines = _lines(space, runs, cells)
    plan = _plan(planned, cells, runs, ends)
    return Contents(manifest, runs, cells, planned, plan, ends, lines, snapshot)


def _lines(space: SearchSpace, runs: pl.DataFrame, cells: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The boundary and the closed forms that the space asks for, if it does."""
    level = space.analysis.boundary_error
    if level is None:
        return {}
    return boundary_curves(space, runs, cells, "err_last", level)


def _plan(planned: pl.DataFrame, cells: pl.DataFrame, runs: pl.DataFrame, ends: pl.DataFrame) -> pl.DataFrame:
    """Every run of the diagram with its cell, its status, and what its end says."""
    place = cells.select(*CELL).with_row_index("cell")
    scored = runs.select("run_id", pl.col("status").alias("scored"), "evaluations", "err_last", "err_best")
    status = pl.coalesce("scored", "status", pl.lit("waiting")).replace("running", "unfinished")
    return (
        planned.join(place, on=CELL, how="left", maintain_order="left")
        .join(scored, on="run_id", how="left", maintain_order="left")
        .join(ends.select(TABLE_ENDS), on="run_id", how="left", maintain_order="left")
        .with_columns(status=status)
        .sort("cell", "seed", "run_id")
    )
