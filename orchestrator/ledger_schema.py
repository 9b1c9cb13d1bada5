"""Arrow schemas of a ledger's tables, beside that of the epoch rows (workers/schema.py)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from search_spaces.runs import Run
from search_spaces.spec import FlowRecipe, Recipe


def _field(name: str, type_: pa.DataType, description: str = "", unit: str = "") -> pa.Field:
    texts = {"unit": unit, "description": description}
    return pa.field(name, type_, metadata={key: text for key, text in texts.items() if text})


RUNS = pa.schema(
    [
        _field("run_id", pa.string()),
        _field("dataset", pa.string()),
        _field("dataset_version", pa.string()),
        _field("architecture", pa.string()),
        _field("axis", pa.string()),
        _field("width", pa.int32()),
        _field("parameters", pa.int64(), "p, trainable parameters"),
        _field("samples", pa.int64(), "n, used training examples"),
        _field("ratio", pa.float64(), "realised p/n"),
        _field("target_ratio", pa.float64()),
        _field("noise_model", pa.string()),
        _field("noise_rate", pa.float64(), "nominal", "fraction in [0, 1]"),
        _field("seed", pa.int32()),
        _field("classes", pa.int32()),
        _field("optimizer", pa.string()),
        _field("learning_rate_base", pa.float64()),
        _field("batch_size", pa.int32()),
        _field("epochs", pa.int32()),
        _field("weight_decay", pa.float64()),
        _field("augmentation", pa.string()),
        _field("signal", pa.float64()),
        _field("recipe", pa.string(), "the whole recipe, JSON"),
    ]
)
ENDS = pa.schema(
    [
        _field("run_id", pa.string()),
        _field("attempt", pa.int64(), "rows of later attempts are not part of this end"),
        _field("status", pa.string(), "done, diverged or failed"),
        _field("evaluations", pa.int32(), "rows that it claims: evaluations 0, 1, ...; null for a failed run"),
        _field("mask_hash", pa.string(), "of the mask of corrupted examples"),
        _field("subset_hash", pa.string(), "of the indices of used examples, and of the prepared files that hold them"),
        _field("noise_rate_realised", pa.float64(), "", "fraction in [0, 1]"),
        _field("seconds", pa.float64(), "share of the pack's wall time", "s"),
        _field("gpu_seconds", pa.float64(), "seconds x GPUs (or share of one) that the worker held", "s"),
        _field("images", pa.int64(), "samples trained on"),
        _field("pack_size", pa.int32()),
        _field("engine", pa.string(), "how its network was trained, sequential or fused; null where there was none"),
        _field("device", pa.string()),
        _field("node", pa.string(), "host name of the worker"),
        _field("error", pa.string(), "last lines of a failed run"),
        _field("signature", pa.string(), "groups failures of one cause"),
        _field("versions", pa.string(), "bo-sweep and a digest of its code, Python, torch, NumPy, FFCV"),
        _field("reused_from", pa.string(), "sweep whose rows these are, where they were not trained for this one"),
    ]
)
ADDED_LATER = frozenset({"engine"})
"""Columns that files of this version may lack, as they were written before there was the column: null."""
LOGS = pa.schema(
    [
        _field("time", pa.timestamp("us", "UTC")),
        _field("attempt", pa.int64()),
        _field("worker", pa.string(), "host name and process id"),
        _field("run_id", pa.string(), "null where the event is of the whole worker"),
        _field("level", pa.string(), "info, warning or error"),
        _field("event", pa.string(), "started, resumed, checkpointed, paused, done, diverged, failed, ..."),
        _field("message", pa.string()),
    ]
)


def run_row(run: Run, axis: str) -> Mapping[str, Any]:
    """The hyperparameters of one run, as they stand in the ledger."""
    recipe = run.recipe
    training: dict[str, Any] = {}
    if isinstance(recipe, Recipe):
        training = {
            "learning_rate_base": recipe.learning_rate,
            "batch_size": recipe.batch_size,
            "epochs": recipe.epochs,
            "weight_decay": recipe.weight_decay,
            "augmentation": recipe.augmentation,
        }
    return training | {
        "run_id": run.run_id,
        "dataset": run.dataset.name,
        "dataset_version": run.dataset.described.version,
        "architecture": run.architecture,
        "axis": axis,
        "width": run.width,
        "parameters": run.parameters,
        "samples": run.samples,
        "ratio": run.ratio,
        "target_ratio": run.target_ratio,
        "noise_model": run.noise.model,
        "noise_rate": run.noise.rate,
        "seed": run.seed,
        "classes": run.dataset.described.classes,
        "optimizer": recipe.optimizer,
        "signal": run.dataset.signal,
        "recipe": recipe_json(recipe),
    }


@functools.lru_cache(maxsize=8)
def recipe_json(recipe: Recipe | FlowRecipe) -> str:
    """The recipe as JSON; one string for all the runs of a space."""
    return recipe.model_dump_json()
