"""One W&B run for each run: its rows by evaluation, its hyperparameters as config, its metrics as summary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.publishing.columns import (
    END_FACTS,
    FINAL_METRICS,
    FINAL_PREFIX,
    HYPERPARAMETERS,
    ROW_ATTEMPT,
    ROW_EVALUATION,
    RUN,
    RUN_HISTORY,
    SIGNATURE,
    STATUS,
)
from orchestrator.publishing.items import Item, known
from orchestrator.publishing.reading import Reading, cell_of
from orchestrator.publishing.target import Target

if TYPE_CHECKING:
    import polars as pl

RUNS_AT_ONCE = 64
"""Runs whose rows are in memory together."""


def run_key(sweep_key: str, run_id: str) -> str:
    return f"{sweep_key} run:{run_id}"


def ended_states(reading: Reading) -> dict[str, str]:
    """The state of every run that ended, by run id. A retry is a later attempt, so another state."""
    return {run_id: f"{end['status']} {end['attempt']} {end['evaluations']}" for run_id, end in reading.ended.items()}


def ended_items(reading: Reading, run_ids: Sequence[str], target: Target) -> Iterator[Item]:
    """Those runs, complete, in that order."""
    states = ended_states(reading)
    for start in range(0, len(run_ids), RUNS_AT_ONCE):
        chosen = run_ids[start : start + RUNS_AT_ONCE]
        rows = _rows(reading, chosen)
        for run_id in chosen:
            yield _item(reading, run_id, rows.get(run_id, []), target, states[run_id])


def live_items(reading: Reading, durable: Mapping[str, int], target: Target) -> Iterator[Item]:
    """Runs in training, as far as a checkpoint goes on from: their first `durable` rows, by run id."""
    chosen = [run_id for run_id in durable if run_id in reading.hyperparameters and run_id not in reading.ended]
    rows = _rows(reading, chosen)
    for run_id in chosen:
        held = [row for row in rows.get(run_id, []) if row[0] < durable[run_id]]
        if held:
            yield _item(reading, run_id, held, target, f"live {held[-1][1][ROW_ATTEMPT]} {len(held)}")


def _rows(reading: Reading, run_ids: Sequence[str]) -> dict[str, list[tuple[int, dict[str, Any]]]]:
    import polars as pl

    if not run_ids:
        return {}
    chosen = reading.snapshot.rows().filter(pl.col("run_id").is_in(list(run_ids)))
    frame = chosen.select("run_id", *RUN_HISTORY).collect(engine="streaming").sort("run_id", ROW_EVALUATION)
    return {str(run_id): _history(rows) for (run_id,), rows in frame.group_by("run_id", maintain_order=True)}


def _history(rows: pl.DataFrame) -> list[tuple[int, dict[str, Any]]]:
    return [(row[ROW_EVALUATION], known(row)) for row in rows.select(RUN_HISTORY).iter_rows(named=True)]


def _item(
    reading: Reading, run_id: str, rows: Sequence[tuple[int, dict[str, Any]]], target: Target, state: str
) -> Item:
    run, end = reading.hyperparameters[run_id], reading.ended.get(run_id, {})
    score = reading.scores_by_id.get(run_id, {}) if end else {}
    status = score.get("status") or end.get("status") or "running"
    size = f"width {run['width']}" if run["axis"] == "width" else f"n {run['samples']}"
    attempt = rows[0][1][ROW_ATTEMPT] if rows else end.get("attempt")
    facts = {name: end.get(name) for name in END_FACTS} | {"error": end.get("error")}
    config = reading.shared_config(RUN) | {"run_id": run_id, "cell": cell_of(run)}
    config |= known({name: run[name] for name in HYPERPARAMETERS} | facts) | reading.recipe_config(run["recipe"])
    summary = {STATUS: status, SIGNATURE: end.get("signature"), "evaluations": len(rows)}
    summary |= {name: end.get(name) for name in ("seconds", "gpu_seconds", "images")}
    summary |= {f"{FINAL_PREFIX}{name}": score.get(name) for name in (*FINAL_METRICS, "epoch_best")}
    # a run that was taken over is that of another sweep, too, and there it may have been published already
    wandb_id = f"{run_id}-{reading.sweep_key}" if end.get("reused_from") else run_id
    return Item(
        id=wandb_id,
        alternative=f"{wandb_id}-{attempt}",
        key=run_key(reading.sweep_key, run_id),
        state=state,
        name=f"noise {run['noise_rate']:g}, {size}, seed {run['seed']}",
        job_type=RUN,
        group=target.group or cell_of(run),
        tags=reading.tags(target),
        config=config,
        rows=rows,
        summary=known(summary),
        ended=bool(end),
        failed=status == "failed",
    )
