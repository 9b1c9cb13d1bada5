"""Names of everything that is published: keys of histories, configs and summaries, columns of tables.

The publisher writes by these names and the dashboard's charts read by them; one place, so that they cannot disagree.
"""

from __future__ import annotations

import re

from orchestrator.analysis.definitions import DECIDED_PHASES, METRICS
from orchestrator.ledger_schema import RUNS
from workers.schema import ROW_COLUMNS

# -- what a W&B run is of ---------------------------------------------------------------------------------------------
RUN, CELL, SUMMARY = "run", "cell", "summary"
"""Job types, which also stand in each config under KIND."""
KIND, SWEEP = "kind", "sweep"
"""Config keys of every W&B run; together they choose, say, the cells of one sweep."""
SUPERSEDED = "superseded"
"""Tag of a W&B run that another one has taken the place of."""

# -- histories --------------------------------------------------------------------------------------------------------
EPOCH = "epoch"
"""The step metric of all curves: passes over the data, or flow time. W&B's own step is the index of the evaluation."""
_KEYS = ("run_id", "evaluation", "attempt", EPOCH)
CURVES = tuple(column.name for column in ROW_COLUMNS if column.name not in _KEYS)
"""History keys of a run beside EPOCH, named as the columns of the epoch rows; null values are left out."""
ROW_EVALUATION, ROW_ATTEMPT = "evaluation", "attempt"
RUN_HISTORY = (EPOCH, ROW_EVALUATION, ROW_ATTEMPT, *CURVES)
"""All history keys of a run."""
CELL_CURVES = (
    *("train_error_given", "train_loss_given", "train_error_true", "clean_error", "corrupted_error_given"),
    *("memorised", "recovered", "val_error", "val_loss", "test_error", "test_loss", "excess_risk"),
)
"""Columns of the epoch rows whose means over seeds are published."""
BOUNDS = ("mean", "low", "high")
"""Mean over seeds, and the ends of its 95 % confidence interval."""
CELL_HISTORY = (EPOCH, *(f"{column}_{bound}" for column in CELL_CURVES for bound in BOUNDS))
"""History keys of a cell; without an interval (one seed) the bounds are left out."""

# -- configs ----------------------------------------------------------------------------------------------------------
SWEEP_KEY = "sweep_key"
"""Config key that tells sweeps of one name apart: no sweep writes to the W&B runs of another, or shows them."""
OF_EVERY = (KIND, SWEEP, SWEEP_KEY, "space")
HYPERPARAMETERS = tuple(name for name in RUNS.names if name not in ("run_id", "recipe"))
"""Flat, as they stand in the ledger: dataset, dataset_version, width, parameters (p), samples (n), ratio (p/n), ..."""
END_FACTS = (
    *("mask_hash", "subset_hash", "noise_rate_realised", "pack_size", "engine"),
    *("device", "node", "versions", "reused_from"),
)
"""What the end of a run adds to its config."""
RECIPE_PREFIX = "recipe."
"""Before the names of the recipe's own values, such as recipe.momentum."""
RUN_CONFIG = (*OF_EVERY, "run_id", "cell", *HYPERPARAMETERS, *END_FACTS)
"""Config keys of a run, beside those of its recipe; null values are left out."""
CELL_HYPERPARAMETERS = tuple(name for name in HYPERPARAMETERS if name != "seed")
CELL_CONFIG = (*OF_EVERY, "cell", *CELL_HYPERPARAMETERS, "seeds", "n_planned", "run_ids")
"""Config keys of a cell, beside those of the recipe."""
DIGEST = "digest"
"""Config key of the summary run: of all that it was made from."""
SUMMARY_CONFIG = (*OF_EVERY, DIGEST, "resolved_space", "bo_sweep_version")

# -- summaries --------------------------------------------------------------------------------------------------------
STATUS, SIGNATURE = "status", "signature"
FINAL_PREFIX = "final/"
"""Before the metrics of a finished run, and of a cell, in its W&B summary."""
_AGAINST_OTHERS = ("noise_cost", "excess_risk")  # they change when a clean twin finishes: they stand in the tables
FINAL_METRICS = tuple(name for name in METRICS if name not in _AGAINST_OTHERS)
RUN_SUMMARY = (
    *(STATUS, SIGNATURE, "evaluations", "seconds", "gpu_seconds", "images"),
    *(f"{FINAL_PREFIX}{name}" for name in (*FINAL_METRICS, "epoch_best")),
)
"""Summary keys of a run, beside the last values of its history."""

# -- tables of the summary run ----------------------------------------------------------------------------------------
_OVER_SEEDS = ("mean", "se", "low", "high", "n")
CELLS_TABLE = (
    *("noise_rate", "ratio", "width", "samples", "cell", "phase", "in_grid"),
    *("n", "n_planned", "n_diverged", "n_failed", "n_unfinished"),
    *(f"{metric}_{of}" for metric in METRICS for of in _OVER_SEEDS),
    *("gap_floor", "excess_risk_kind", *(f"p_{phase}" for phase in DECIDED_PHASES)),
    *("tau", "tau_cost", "confidence", "interval"),
)
"""As the phase table of `bo-sweep phase` has them, a row a planned cell, and `cell` in words."""
RUNS_TABLE = (
    *("run_id", "cell", "noise_rate", "ratio", "width", "samples", "seed", "parameters"),
    *("status", "evaluations", *METRICS, "epoch_best", "excess_risk_kind"),
    *("noise_rate_realised", "mask_hash", "subset_hash", "dataset_version", "pack_size"),
)
"""A row a planned run, and each earlier one that finished."""
BOUNDARY_TABLE = (
    *("metric", "threshold", "noise_rate", "state", "enter", "enter_low", "enter_high"),
    *("exit", "exit_low", "exit_high", "measured_low", "measured_high", "cells", "seeds", "confidence"),
)
"""Where a metric crosses its level, a row a noise rate; empty where no boundary can be fitted."""
FAILURES_TABLE = ("signature", "runs", "run_id", "cell", "noise_rate", "width", "samples", "seed", "node", "error")
"""A row a failed run, most frequent cause first; `runs` counts those of the same signature."""
TABLES: dict[str, tuple[str, ...]] = {
    "cells": CELLS_TABLE,
    "runs": RUNS_TABLE,
    "boundary": BOUNDARY_TABLE,
    "failures": FAILURES_TABLE,
}
"""Columns of each table, by its key in the summary run."""
FIGURE_PREFIX = "figures/"
"""Before the names of figures (as `bo-sweep phase` calls them) in the summary run."""
COUNTS = ("done", "diverged", "failed", "lost", "running", "waiting", "total")
"""Summary keys of the summary run: numbers of runs, by status."""


def cell_words(noise_rate: float, width: int, samples: int) -> str:
    """A cell as people read it; the group of its runs."""
    return f"noise {noise_rate:g}, width {width}, n {samples}"


def summary_id(sweep: str, sweep_key: str) -> str:
    """The id of a sweep's summary run: of characters and a length that W&B allows, for its tables' artifacts too."""
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '-', sweep)[:80]}-{sweep_key}-summary"
