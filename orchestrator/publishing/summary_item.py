"""One W&B run for the sweep: its tables and figures, as `bo-sweep phase` has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.publishing.columns import (
    BOUNDARY_TABLE,
    CELLS_TABLE,
    DIGEST,
    FAILURES_TABLE,
    FIGURE_PREFIX,
    RUNS_TABLE,
    SUMMARY,
    cell_words,
    summary_id,
)
from orchestrator.publishing.items import Item, short_hash
from orchestrator.publishing.reading import Reading, cell_of
from orchestrator.publishing.target import Target

if TYPE_CHECKING:
    import polars as pl

    from search_spaces.spec import SearchSpace

MOST_ERROR_CHARACTERS = 2_000
DEFAULT_LEVELS = ("err_last",)
"""Metrics whose boundary is in the table where the space names no level of its own."""
Table = tuple[Sequence[str], Sequence[Sequence[Any]]]


def summary_key(sweep_key: str) -> str:
    return f"{sweep_key} summary"


def summary_digest(reading: Reading) -> str:
    """Of all that the summary is made from: the space, the version of this program, and what every run came to."""
    ends = sorted((run_id, end["status"], end["attempt"]) for run_id, end in reading.ended.items())
    return short_hash(reading.manifest.space.model_dump(mode="json"), version("bo-sweep"), ends)


def summary_item(
    reading: Reading, planned: pl.DataFrame, cells: pl.DataFrame, digest: str, target: Target, folder: Path
) -> Item:
    """The summary; its figures are drawn in `folder`. planned: `planned_runs`; cells: `planned_cells`."""
    space, name = reading.manifest.space, reading.ledger.name
    wandb_id = summary_id(name, reading.sweep_key)
    level = space.analysis.boundary_error
    tables = {
        "cells": _table(_with_words(cells), CELLS_TABLE),
        "runs": _table(_all_runs(reading, planned), RUNS_TABLE),
        "boundary": _boundary_table(space, reading.scores, cells, level),
        "failures": _failures_table(reading),
    }
    finished = bool((reading.scores["status"] == "done").any())
    figures = _draw(name, space, reading.scores, cells, level, folder) if finished else {}
    config = reading.shared_config(SUMMARY) | {DIGEST: digest, "bo_sweep_version": version("bo-sweep")}
    return Item(
        id=wandb_id,
        alternative=wandb_id,
        key=summary_key(reading.sweep_key),
        state=digest,
        name=f"{name}: summary",
        job_type=SUMMARY,
        group=target.group or SUMMARY,
        tags=reading.tags(target),
        config=config | {"resolved_space": space.model_dump(mode="json", exclude_none=True)},
        summary=_counts(reading),
        tables=tables,
        figures=figures,
    )


def _counts(reading: Reading) -> dict[str, int]:
    import polars as pl

    statuses = Counter(reading.ends.filter(pl.col("run_id").is_in(list(reading.planned)))["status"].to_list())
    counts = {name: statuses[name] for name in ("done", "diverged", "failed", "lost")}
    total = len(reading.planned)
    return counts | {"waiting": total - sum(counts.values()), "total": total}


def _with_words(table: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    points = table.select("noise_rate", "width", "samples").iter_rows()
    return table.with_columns(pl.Series("cell", [cell_words(*point) for point in points], dtype=pl.String))


def _all_runs(reading: Reading, planned: pl.DataFrame) -> pl.DataFrame:
    """Planned runs with what is measured of them; status "waiting" where there is nothing yet."""
    import polars as pl

    own = [name for name in RUNS_TABLE if name in reading.scores.columns and name not in planned.columns]
    runs = planned.drop("in_grid").join(
        reading.scores.select("run_id", *own, scored="status"), on="run_id", how="left", maintain_order="left"
    )
    status = pl.coalesce("scored", "status", pl.lit("waiting"))
    return _with_words(runs.with_columns(status=status)).sort("noise_rate", "ratio", "seed")


def _table(frame: pl.DataFrame, columns: Sequence[str]) -> Table:
    return (columns, [list(row) for row in frame.select(columns).iter_rows()])


def _boundary_table(space: SearchSpace, runs: pl.DataFrame, cells: pl.DataFrame, level: float | None) -> Table:
    import polars as pl

    from orchestrator.analysis.definitions import BOUNDARY_LEVELS
    from orchestrator.phase_diagram import boundary_curves

    levels = {metric: level if level is not None else BOUNDARY_LEVELS[metric] for metric in DEFAULT_LEVELS}
    rows: list[list[Any]] = []
    for metric, at in levels.items():
        curve = boundary_curves(space, runs, cells, metric, at).get("boundary")
        if curve is not None:
            rows += [
                list(row)
                for row in curve.with_columns(pl.col("threshold").cast(pl.Float64)).select(BOUNDARY_TABLE).iter_rows()
            ]
    return (BOUNDARY_TABLE, rows)


def _failures_table(reading: Reading) -> Table:
    failed = [end for end in reading.ended.values() if end["status"] == "failed" and end["run_id"] in reading.planned]
    frequency = Counter(end["signature"] for end in failed)
    failed.sort(key=lambda end: (-frequency[end["signature"]], str(end["signature"]), end["run_id"]))
    return (FAILURES_TABLE, [_failure(reading.hyperparameters[end["run_id"]], end, frequency) for end in failed])


def _failure(run: Mapping[str, Any], end: Mapping[str, Any], frequency: Counter[Any]) -> list[Any]:
    values = {**run, **end, "runs": frequency[end["signature"]], "cell": cell_of(run)}
    values["error"] = (end["error"] or "")[-MOST_ERROR_CHARACTERS:]
    return [values[name] for name in FAILURES_TABLE]


def _draw(
    title: str, space: SearchSpace, runs: pl.DataFrame, cells: pl.DataFrame, level: float | None, folder: Path
) -> dict[str, str]:
    """The figures of `bo-sweep phase`, as PNG, by key."""
    from orchestrator.figures.boundary_map import draw_boundary_map
    from orchestrator.figures.heat_maps import draw_heat_map, draw_overview, draw_phase_map
    from orchestrator.phase_diagram import BOUNDARY, HEAT_MAPS, boundary_curves, boundary_lines, describe

    about: dict[str, Any] = {"title": title, "caption": describe(space), "formats": ("png",)}
    curves = {} if level is None else boundary_curves(space, runs, cells, "err_last", level)
    lines = boundary_lines(space, runs, curves.get("boundary"))
    files = [*draw_overview(cells, folder / "overview", **about), *draw_phase_map(cells, folder / "phase", **about)]
    for metric in HEAT_MAPS:
        overlay: dict[str, Any] = lines if metric == "err_last" else {}
        files += draw_heat_map(cells, metric, folder / metric, **about, **overlay)
    if level is not None:
        files += draw_boundary_map(cells, "err_last", level, folder / BOUNDARY, **(about | curves))
    return {f"{FIGURE_PREFIX}{path.stem}": str(path) for path in files if path.suffix == ".png"}
