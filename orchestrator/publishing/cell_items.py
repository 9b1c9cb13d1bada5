"""One W&B run for each cell: means over its finished seeds with their 95 % intervals, by evaluation.

A cell is published when all of its planned seeds have ended. Its id holds the hash of what they came to: where a seed
is added or tried again later, the cell becomes a new W&B run, and the one before is marked as superseded. So a curve
that someone has looked at never changes under the same id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.publishing.columns import (
    BOUNDS,
    CELL,
    CELL_CURVES,
    CELL_HYPERPARAMETERS,
    EPOCH,
    FINAL_METRICS,
    FINAL_PREFIX,
    cell_words,
)
from orchestrator.publishing.items import Item, known, short_hash
from orchestrator.publishing.reading import ENDED, Reading
from orchestrator.publishing.target import Target

if TYPE_CHECKING:
    import polars as pl

CELLS_AT_ONCE = 64
_KEYS = ("noise_rate", "width", "samples")
Point = tuple[float, int, int]


def cell_key(sweep_key: str, point: Point) -> str:
    return f"{sweep_key} cell:{point[0]!r}/{point[1]}/{point[2]}"


def ended_cells(reading: Reading, planned: pl.DataFrame) -> dict[Point, str]:
    """The cells all of whose seeds have ended, with the hash of what those came to. planned: `planned_runs`."""
    attempts = {run_id: (end["status"], end["attempt"]) for run_id, end in reading.ended.items()}
    found: dict[Point, str] = {}
    for point, seeds in planned.sort(*_KEYS, "seed").group_by(_KEYS, maintain_order=True):
        if all(status in ENDED for status in seeds["status"].to_list()):
            found[point] = short_hash(*sorted((run_id, attempts.get(run_id)) for run_id in seeds["run_id"].to_list()))
    return found


def cell_items(
    reading: Reading, planned: pl.DataFrame, cells: pl.DataFrame, points: Mapping[Point, str], target: Target
) -> Iterator[Item]:
    """Those cells. cells: `planned_cells`; points: some of `ended_cells`."""
    rows = {tuple(row[name] for name in _KEYS): row for row in cells.iter_rows(named=True)}
    chosen = list(points)
    for start in range(0, len(chosen), CELLS_AT_ONCE):
        part = chosen[start : start + CELLS_AT_ONCE]
        curves = _curves(reading, part)
        for point in part:
            yield _item(reading, planned, rows[point], curves.get(point, []), points[point], target)


def _curves(reading: Reading, points: Sequence[Point]) -> dict[Point, list[tuple[int, dict[str, Any]]]]:
    """The mean curves of some cells, as history. A cell whose seeds were evaluated at different epochs has none."""
    import polars as pl

    from orchestrator.analysis.curves import OF_RUN, mean_curves

    wanted = pl.DataFrame(points, schema=dict(zip(_KEYS, (pl.Float64, pl.Int32, pl.Int64), strict=True)), orient="row")
    done = reading.scores.filter(pl.col("status") == "done").select(OF_RUN).join(wanted, on=_KEYS, how="semi")
    needed = ["run_id", "evaluation", EPOCH, *CELL_CURVES]
    rows = reading.snapshot.rows().select(needed).filter(pl.col("run_id").is_in(done["run_id"].to_list()))
    curves = rows.collect(engine="streaming").join(done, on="run_id").sort(*_KEYS, "seed", "evaluation")
    found: dict[Point, list[tuple[int, dict[str, Any]]]] = {}
    for point, cell in curves.group_by(_KEYS, maintain_order=True):
        try:
            means = mean_curves(cell, CELL_CURVES)
        except ValueError:
            continue  # no common curve
        found[point] = _history(means)
    return found


def _history(means: pl.DataFrame) -> list[tuple[int, dict[str, Any]]]:
    history: dict[int, dict[str, Any]] = {}
    for row in means.sort("evaluation", "metric").iter_rows(named=True):
        values = history.setdefault(row["evaluation"], {EPOCH: row["epoch"]})
        values |= known({f"{row['metric']}_{bound}": row[bound] for bound in BOUNDS})
    return sorted(history.items())


def _item(
    reading: Reading,
    planned: pl.DataFrame,
    cell: Mapping[str, Any],
    rows: Sequence[tuple[int, dict[str, Any]]],
    seeds_hash: str,
    target: Target,
) -> Item:
    import polars as pl

    point = tuple(cell[name] for name in _KEYS)
    words = cell_words(*point)
    runs = planned.filter(pl.all_horizontal(pl.col(name) == cell[name] for name in _KEYS)).sort("seed")
    first = reading.hyperparameters[runs["run_id"][0]]
    done = runs.filter(pl.col("status") == "done")
    config = reading.shared_config(CELL) | {"cell": words} | known({name: first[name] for name in CELL_HYPERPARAMETERS})
    config |= {"seeds": done["seed"].to_list(), "run_ids": done["run_id"].to_list(), "n_planned": runs.height}
    summary = {name: cell[name] for name in ("n", "n_planned", "n_diverged", "n_failed")}
    for metric in FINAL_METRICS:
        summary |= {f"{FINAL_PREFIX}{metric}_{bound}": cell[f"{metric}_{bound}"] for bound in BOUNDS}
    wandb_id = f"cell-{short_hash(reading.sweep_key, *point)}-{seeds_hash}"
    return Item(
        id=wandb_id,
        alternative=wandb_id,
        key=cell_key(reading.sweep_key, (cell["noise_rate"], cell["width"], cell["samples"])),
        state=seeds_hash,
        name=f"{words}: {cell['n']} seeds",
        job_type=CELL,
        group=target.group or f"noise {cell['noise_rate']:g}",
        tags=reading.tags(target),
        config=config | reading.recipe_config(first["recipe"]),
        rows=rows,
        summary=known(summary),
    )
