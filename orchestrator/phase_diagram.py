"""From a ledger to tables and figures: everything under `<sweep>/phase`, and nothing else, is made here."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.ledger import Ledger, LedgerError
from orchestrator.ledger_schema import RUNS, run_row
from orchestrator.parts import consistently
from orchestrator.phase_folder import write_into_phase
from orchestrator.storage import open_storage
from search_spaces.runs import expand, grid_points
from search_spaces.spec import FlowRecipe, SearchSpace

if TYPE_CHECKING:
    import polars as pl

HEAT_MAPS = ("err_last", "noise_cost", "gap_err", "memorised")
BOUNDARY = "boundary"
"""Name of the figure of the boundary that the space itself asks for; those of others end in their metric."""
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Diagram:
    """What came out of an analysis. `files` are tables first, then figures with their numbers, then the manifest."""

    space: SearchSpace
    runs: pl.DataFrame
    cells: pl.DataFrame
    files: list[str]


def analyse(
    ledger: Ledger,
    *,
    metrics: Sequence[str] = HEAT_MAPS,
    boundaries: Sequence[str] = (),
    formats: Sequence[str] = ("png", "svg"),
) -> Diagram:
    """Compute run and cell tables; draw one heat map a metric, the phase map, an overview of four, and boundaries.

    The diagram shows what the sweep's space plans, and finished runs of earlier, larger launches. boundaries: of each
    "METRIC=LEVEL" or "METRIC" (`read_levels`), a figure boundary-METRIC, beside that of the space's own boundary_error.

    Raises:
        LedgerError: no finished run yet.
        ValueError: an unknown metric or format; a boundary that cannot be read; runs that must not be pooled.
        StorageError: a damaged file, or a folder that cannot be written.
    """
    from orchestrator.analysis.levels import read_levels

    space = ledger.manifest().space
    levels = read_levels(boundaries, space.analysis)
    runs, ends = run_metrics(ledger, space.analysis.last_evaluations)
    need_finished(ledger, runs, f"nothing to draw. Go on with: bo-sweep launch {space.name}")
    planned = planned_runs(space, ends, runs)
    cells = planned_cells(space, runs, planned)

    def write(folder: Path) -> list[Path]:
        from orchestrator.analysis.manifest import analysis_manifest

        files = _write_all(ledger.name, space, runs, cells, folder, metrics, levels, formats)
        manifest = analysis_manifest(ledger.name, space, planned, runs, ends, cells, files)
        open_storage(folder).write(MANIFEST, json.dumps(manifest, indent=1, allow_nan=False).encode())
        return [*files, folder / MANIFEST]

    return Diagram(space, runs, cells, write_into_phase(ledger, write))


def run_metrics(ledger: Ledger, final_evaluations: int = 1) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The metrics of every run that has rows, and the latest end of every run; in one pass over the rows.

    Raises:
        DamagedPartsError: naming every damaged file.
    """
    from orchestrator.analysis.run_metrics import NEEDED_COLUMNS, summarise_runs
    from orchestrator.analysis.scores import score_runs

    def read() -> tuple[pl.DataFrame, pl.DataFrame]:
        snapshot = ledger.snapshot(NEEDED_COLUMNS)
        summary = functools.partial(summarise_runs, final_evaluations=final_evaluations)
        return snapshot.summarise(summary), snapshot.judged_ends()

    summaries, ends = consistently(read)
    return score_runs(summaries, ledger.runs(), ends, final_evaluations=final_evaluations), ends


def _write_all(
    title: str,
    space: SearchSpace,
    runs: pl.DataFrame,
    cells: pl.DataFrame,
    folder: Path,
    metrics: Sequence[str],
    levels: dict[str, float],
    formats: Sequence[str],
) -> list[Path]:
    """Write the tables, then the figures."""
    from orchestrator.analysis.tables import write_tables
    from orchestrator.figures.boundary_map import draw_boundary_map
    from orchestrator.figures.heat_maps import draw_heat_map, draw_overview, draw_phase_map

    files = list(write_tables(runs, cells, folder))
    caption, own_level = describe(space), space.analysis.boundary_error
    own = {} if own_level is None else boundary_curves(space, runs, cells, "err_last", own_level)
    lines = boundary_lines(space, runs, own.get("boundary"))
    for metric in metrics:
        overlay = lines if metric == "err_last" else {}
        files += draw_heat_map(cells, metric, folder / metric, title=title, caption=caption, formats=formats, **overlay)
    files += draw_phase_map(cells, folder / "phase", title=title, caption=caption, formats=formats)
    files += draw_overview(cells, folder / "overview", title=title, caption=caption, formats=formats)
    wanted = [] if own_level is None else [(BOUNDARY, "err_last", own_level, own)]
    wanted += [
        (f"{BOUNDARY}-{metric}", metric, level, boundary_curves(space, runs, cells, metric, level))
        for metric, level in levels.items()
    ]
    for name, metric, level, curves in wanted:
        files += draw_boundary_map(
            cells, metric, level, folder / name, title=title, caption=caption, formats=formats, **curves
        )
    return files


def planned_runs(space: SearchSpace, ends: pl.DataFrame, runs: pl.DataFrame) -> pl.DataFrame:
    """Every run that the diagram must show or show as missing, with the ledger's word on those that ended (`status`),
    and whether its cell is in the grid of rows and columns (`in_grid`)."""
    import polars as pl
    import pyarrow as pa

    from orchestrator.analysis.grid import grid_cells

    plan = pl.DataFrame(pa.Table.from_pylist([run_row(run, space.axis) for run in expand(space)], schema=RUNS))
    earlier = runs.filter(pl.col("status") == "done", ~pl.col("run_id").is_in(plan["run_id"].to_list()))
    plan = pl.concat([plan, earlier.select(plan.columns).cast(plan.schema)])
    points = plan.select("noise_rate", "width", "samples")
    grid = grid_points(space)
    grid = grid_cells(grid, set(points.unique().rows()) - grid)
    plan = plan.with_columns(pl.Series("in_grid", [point in grid for point in points.iter_rows()], dtype=pl.Boolean))
    return plan.join(ends.select("run_id", "status"), on="run_id", how="left")


def planned_cells(space: SearchSpace, runs: pl.DataFrame, planned: pl.DataFrame, **options: Any) -> pl.DataFrame:
    """`cell_table` by the thresholds of the space. Raises what it raises."""
    from orchestrator.analysis.cells import cell_table

    thresholds = space.analysis.model_dump(include={"tau", "tau_cost", "confidence"})
    return cell_table(runs, planned, **thresholds, **options)


def need_finished(ledger: Ledger, runs: pl.DataFrame, so: str) -> None:
    """Raise LedgerError where no run has finished, so that there is `so`."""
    if (runs["status"] == "done").sum() == 0:
        raise LedgerError(f"sweep {ledger.name!r} has no finished run yet, so there is {so}")


def boundary_lines(
    space: SearchSpace, runs: pl.DataFrame, curves: pl.DataFrame | None = None
) -> dict[str, pl.DataFrame]:
    """The boundary where the final test error crosses the space's level, for the rows of its heat map: estimated at
    each measured noise rate (taken from `curves`, if given), and in closed form where gradient flow was run: the
    smallest p/n > 1 from which the min-norm interpolator stays below the level."""
    import numpy as np
    import polars as pl

    from orchestrator.analysis.boundary import fit_boundary

    level = space.analysis.boundary_error
    if level is None:
        return {}
    lines = {}
    if curves is not None:
        lines["boundary"] = curves.filter(pl.col("cells") > 0)
    elif _can_fit(runs, "err_last"):
        lines["boundary"] = fit_boundary(runs, "err_last", level)
    if isinstance(space.recipe, FlowRecipe) and space.dataset.signal is not None:
        from workers.theory import boundary_ratio_finite

        rates = np.linspace(0.0, max(space.noise.rates), 201)
        ratios = boundary_ratio_finite(rates, level, space.dataset.signal)
        lines["theory"] = pl.DataFrame({"noise_rate": rates, "ratio": ratios}).filter(pl.col("ratio").is_finite())
    return lines


def boundary_curves(
    space: SearchSpace, runs: pl.DataFrame, cells: pl.DataFrame, metric: str, level: float
) -> dict[str, pl.DataFrame]:
    """Where `metric` crosses `level`, as curves over the measured noise rates: "boundary", estimated, and "theory", the
    closed forms of the Gaussian mixture; each where there is one."""
    from orchestrator.analysis.boundary import curve_rates, fit_boundary
    from orchestrator.analysis.theory_lines import LINES_FOR, theory_lines

    curves = {}
    if _can_fit(runs, metric):
        curves["boundary"] = fit_boundary(runs, metric, level, rates=curve_rates(runs, metric))
    if isinstance(space.recipe, FlowRecipe) and space.dataset.signal is not None and metric in LINES_FOR:
        ranges = [(min(cells[name].to_list()), max(cells[name].to_list())) for name in ("ratio", "noise_rate")]
        signal = space.dataset.signal
        curves["theory"] = theory_lines(metric, level, signal=signal, ratios=ranges[0], rates=ranges[1])
    return curves


def _can_fit(runs: pl.DataFrame, metric: str) -> bool:
    import polars as pl

    from orchestrator.analysis.boundary import FEWEST_CELLS

    measured = runs.filter(pl.col(metric).is_not_null())
    return measured.select("noise_rate", "width", "samples").n_unique() >= FEWEST_CELLS


def describe(space: SearchSpace) -> str:
    """What was run, in the words of a caption."""
    recipe, size = space.recipe, f"n = {space.samples[0]:,}" if space.axis == "width" and space.samples else ""
    if space.axis == "samples" and space.widths:
        size = f"width {space.widths[0]}, p/n by subsets"
    if isinstance(recipe, FlowRecipe):
        training = f"gradient flow of least squares to infinity, R = {space.dataset.signal:g}"
    else:
        training = (
            f"{recipe.optimizer} {recipe.learning_rate:g} ({recipe.schedule}), batch {recipe.batch_size}, "
            f"{recipe.epochs} epochs, weight decay {recipe.weight_decay:g}, augmentation {recipe.augmentation}"
        )
    noise = f"{space.noise.model} noise"
    return f"{space.dataset.name}, {space.architecture} ({size}); {training}; {noise}; {len(space.seeds)} seeds."
