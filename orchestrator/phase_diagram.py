"""From a ledger to tables and figures: everything under `<sweep>/phase`, and nothing else, is made here."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import paths
from orchestrator.ledger import Ledger, LedgerError
from orchestrator.ledger_schema import RUNS, run_row
from orchestrator.parts import consistently
from search_spaces.runs import expand
from search_spaces.spec import FlowRecipe, SearchSpace

if TYPE_CHECKING:
    import polars as pl

HEAT_MAPS = ("err_last", "noise_cost", "gap_err", "memorised")


@dataclass(frozen=True)
class Diagram:
    """What came out of an analysis. `files` are tables first, then figures."""

    space: SearchSpace
    runs: pl.DataFrame
    cells: pl.DataFrame
    files: list[str]


def analyse(ledger: Ledger, *, metrics: Sequence[str] = HEAT_MAPS, formats: Sequence[str] = ("png", "svg")) -> Diagram:
    """Compute run and cell tables, and draw one heat map a metric, the phase map and an overview of four.

    The diagram shows what the sweep's space plans, and finished runs of earlier, larger launches.

    Raises:
        LedgerError: no finished run yet.
        ValueError: an unknown metric or format; runs that must not be pooled.
        StorageError: a damaged file, or a folder that cannot be written.
    """
    space = ledger.manifest().space
    runs, ends = run_metrics(ledger, space.analysis.last_evaluations)
    if (runs["status"] == "done").sum() == 0:
        raise LedgerError(
            f"sweep {ledger.name!r} has no finished run yet, so there is nothing to draw. "
            f"Go on with: bo-sweep launch {space.name}"
        )
    from orchestrator.analysis.cells import cell_table

    thresholds = space.analysis.model_dump(include={"tau", "tau_cost", "confidence"})
    cells = cell_table(runs, _planned(space, ends, runs), **thresholds)
    local = ledger.storage.local_path(paths.PHASE)
    if local is not None:
        shown = Path(ledger.storage.location(paths.PHASE))
        return Diagram(space, runs, cells, [str(path) for path in _draw(space, runs, cells, shown, metrics, formats)])
    with tempfile.TemporaryDirectory(prefix="bo-sweep-phase-") as folder:
        files = []
        for path in _draw(space, runs, cells, Path(folder), metrics, formats):
            name = f"{paths.PHASE}/{path.name}"
            ledger.storage.write(name, path.read_bytes())
            files.append(ledger.storage.location(name))
    return Diagram(space, runs, cells, files)


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


def _draw(
    space: SearchSpace,
    runs: pl.DataFrame,
    cells: pl.DataFrame,
    folder: Path,
    metrics: Sequence[str],
    formats: Sequence[str],
) -> list[Path]:
    """Write the tables, then the figures."""
    from orchestrator.analysis.tables import write_tables
    from orchestrator.figures.heat_maps import draw_heat_map, draw_overview, draw_phase_map

    files = list(write_tables(runs, cells, folder))
    title, caption = space.name, describe(space)
    lines = boundary_lines(space, runs)
    for metric in metrics:
        overlay = lines if metric == "err_last" else {}
        files += draw_heat_map(cells, metric, folder / metric, title=title, caption=caption, formats=formats, **overlay)
    files += draw_phase_map(cells, folder / "phase", title=title, caption=caption, formats=formats)
    return files + draw_overview(cells, folder / "overview", title=title, caption=caption, formats=formats)


def _planned(space: SearchSpace, ends: pl.DataFrame, runs: pl.DataFrame) -> pl.DataFrame:
    """Every run that the diagram must show or show as missing, with the ledger's word on those that ended."""
    import polars as pl
    import pyarrow as pa

    plan = pl.DataFrame(pa.Table.from_pylist([run_row(run, space.axis) for run in expand(space)], schema=RUNS))
    earlier = runs.filter(pl.col("status") == "done", ~pl.col("run_id").is_in(plan["run_id"].to_list()))
    plan = pl.concat([plan, earlier.select(plan.columns).cast(plan.schema)])
    return plan.join(ends.select("run_id", "status"), on="run_id", how="left")


def boundary_lines(space: SearchSpace, runs: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The boundary where the final test error crosses the space's level: estimated, and in closed form if known."""
    import numpy as np
    import polars as pl

    from orchestrator.analysis.boundary import FEWEST_CELLS, fit_boundary

    level = space.analysis.boundary_error
    if level is None:
        return {}
    lines = {}
    if (
        runs.filter(pl.col("err_last").is_not_null()).select("noise_rate", "width", "samples").n_unique()
        >= FEWEST_CELLS
    ):
        lines["boundary"] = fit_boundary(runs, "err_last", level)
    if isinstance(space.recipe, FlowRecipe) and space.dataset.signal is not None:
        from workers.theory import boundary_ratio_finite

        rates = np.linspace(0.0, max(space.noise.rates), 201)
        ratios = boundary_ratio_finite(rates, level, space.dataset.signal)
        lines["theory"] = pl.DataFrame({"noise_rate": rates, "ratio": ratios}).filter(pl.col("ratio").is_finite())
    return lines


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
