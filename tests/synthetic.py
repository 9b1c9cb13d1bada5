"""Small tables as the ledger would give them, for the tests of the analysis and the figures."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

EVALUATION_DEFAULTS: dict[str, Any] = {
    "attempt": 0,
    "train_error_given": 0.0,
    "memorised": None,
    "recovered": None,
    "val_error": None,
    "test_loss": 1.0,
    "excess_risk": None,
}
RUN_DEFAULTS: dict[str, Any] = {
    "dataset": "digits",
    "architecture": "tiny-resnet",
    "axis": "width",
    "width": 8,
    "parameters": 5122,
    "samples": 500,
    "ratio": 10.244,
    "target_ratio": None,
    "noise_model": "symmetric",
    "noise_rate": 0.0,
    "seed": 0,
    "classes": 10,
    "optimizer": "adam",
    "learning_rate_base": 3e-3,
    "batch_size": 64,
    "epochs": 60,
    "weight_decay": 0.0,
    "augmentation": "none",
    "signal": None,
    "status": "done",
}
FLOATS = (
    "train_error_given",
    "memorised",
    "recovered",
    "val_error",
    "test_loss",
    "test_error",
    "excess_risk",
    "epoch",
)
FLOATS_OF_RUN = ("target_ratio", "signal", "noise_rate", "noise_rate_realised", "ratio")


def run_rows(run_id: str, test_error: Sequence[float | None], **values: Any) -> list[dict[str, Any]]:
    """The evaluations of one run. A list among `values` varies along the run, anything else is the same throughout."""
    rows = []
    for evaluation, error in enumerate(test_error):
        row = {
            **RUN_DEFAULTS,
            **EVALUATION_DEFAULTS,
            "run_id": run_id,
            "evaluation": evaluation,
            "step": 8 * evaluation,
        }
        row["epoch"] = float(evaluation)
        row.update({name: value[evaluation] if isinstance(value, list) else value for name, value in values.items()})
        row["test_error"] = error
        row.setdefault("noise_rate_realised", row["noise_rate"])
        rows.append(row)
    return rows


def evaluation_table(*runs: list[dict[str, Any]]) -> pl.DataFrame:
    """The rows of several runs as one typed table."""
    rows = [row for run in runs for row in run]
    types = dict.fromkeys((*FLOATS, *FLOATS_OF_RUN), pl.Float64)
    return pl.DataFrame(rows, schema_overrides=types, infer_schema_length=None)


def planned_table(*runs: list[dict[str, Any]], **values: Any) -> pl.DataFrame:
    """The plan that those runs came from."""
    names = ("run_id", "noise_rate", "width", "samples", "ratio", "seed", "axis", "classes")
    return pl.DataFrame([{name: {**run[0], **values}[name] for name in names} for run in runs])


def cell_rows(
    ratios: Sequence[float],
    rates: Sequence[float],
    *,
    seeds: int = 3,
    error: Callable[[float, float], float] = lambda ratio, rate: 0.05 + rate / (1 + ratio / 10),
    gap: Callable[[float, float], float] = lambda ratio, rate: rate * 0.3,
    status: Callable[[float, float, int], str] = lambda ratio, rate, seed: "done",
    spread: float = 0.01,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Evaluations and plan of a whole grid: two evaluations a run, final error `error` with noise of size `spread`.

    A status of "missing" plans the run and leaves it out of the evaluations.
    """
    draw = random.Random(0)
    done, planned = [], []
    for rate in rates:
        for width, ratio in enumerate(ratios, start=1):
            for seed in range(seeds):
                how = status(ratio, rate, seed)
                last = min(max(error(ratio, rate) + spread * draw.gauss(0, 1), 0.0), 1.0)
                best = max(last - gap(ratio, rate) * (1 + 0.1 * draw.gauss(0, 1)), 0.0)
                rows = run_rows(
                    f"{rate}-{ratio}-{seed}",
                    [best, last],
                    noise_rate=rate,
                    ratio=ratio,
                    width=width,
                    seed=seed,
                    status=how,
                    train_error_given=[0.5, 0.0 if ratio > 1 or rate == 0 else 0.2],
                )
                planned.append(rows)
                if how != "missing":
                    done.append(rows)
    table = evaluation_table(*done) if done else evaluation_table(*planned).clear()
    return table, planned_table(*planned)
