"""The report as data: everything that the page's scripts draw, as JSON, cells and runs column by column."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import polars as pl

from orchestrator.analysis.definitions import DECIDED_PHASES, METRICS
from orchestrator.figures.captions import metric_caption, phase_caption
from orchestrator.figures.looks import PHASE_LOOK
from orchestrator.report.contents import Commands, Contents

CELL_COLUMNS = (
    *("noise_rate", "ratio", "width", "samples", "n", "n_planned", "n_diverged", "n_failed", "n_unfinished", "phase"),
    *(f"p_{name}" for name in DECIDED_PHASES),
)
RUN_COLUMNS = (
    *("run_id", "cell", "seed", "status", "evaluations", "err_last", "err_best", "seconds"),
    *("signature", "reused_from"),
)


def report_document(contents: Contents, commands: Commands) -> dict[str, Any]:
    """What the page draws."""
    space, cells = contents.space, contents.cells
    return {
        "sweep": contents.manifest.name,
        "axis": space.axis,
        "flow": space.recipe.optimizer == "gradient-flow",
        "metrics": [_metric(cells, metric) for metric in METRICS],
        "phases": [
            {"name": phase, "letter": letter, "colour": colour} for phase, (colour, letter) in PHASE_LOOK.items()
        ],
        "phase_caption": phase_caption(cells),
        "cells": _cells(contents),
        "axes": axes(cells, space.axis),
        "lines": _lines(contents.lines),
        "runs": {column: contents.plan[column].to_list() for column in RUN_COLUMNS},
        "reproduce": commands.reproduce,
    }


def _metric(cells: pl.DataFrame, metric: str) -> dict[str, Any]:
    about = METRICS[metric]
    numbers = {
        short: cells[f"{metric}_{short}"].to_list()
        for short in ("mean", "se", "low", "high", "n")
        if f"{metric}_{short}" in cells.columns
    }
    return {
        "id": metric,
        "label": about.label,
        "unit": about.unit,
        "definition": about.definition,
        "caption": metric_caption(cells, metric),
        **numbers,
    }


def _cells(contents: Contents) -> dict[str, list[Any]]:
    cells = contents.cells
    columns = {name: cells[name].to_list() for name in CELL_COLUMNS}
    keys = zip(columns["noise_rate"], columns["width"], columns["samples"], strict=True)
    columns["id"] = [f"{rate!r}/{width}/{samples}" for rate, width, samples in keys]
    columns["parameters"] = [round(ratio * n) for ratio, n in zip(columns["ratio"], columns["samples"], strict=True)]
    columns["in_grid"] = cells["in_grid"].to_list() if "in_grid" in cells.columns else [True] * cells.height
    return columns


def axes(cells: pl.DataFrame, axis: str) -> list[dict[str, str]]:
    """The axes that a reader may choose: p/n, what realises it, and parameters where they differ from both.

    All are drawn on a log scale. Where n is fixed, p is p/n but for the unit, so it shows other numbers on the same
    picture; where width is fixed, so is p.
    """
    found = [{"id": "ratio", "label": "parameters per training sample, p/n", "short": "p/n"}]
    if axis == "samples":
        return [*found, {"id": "samples", "label": "training samples, n", "short": "n"}]
    parameters = (cells["ratio"] * cells["samples"]).round()
    if (parameters != cells["width"]).any():
        found.append({"id": "width", "label": "width", "short": "width"})
    return [*found, {"id": "parameters", "label": "parameters, p", "short": "p"}]


def _lines(lines: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """Boundaries column by column; their bounds end where nothing was measured."""
    found: dict[str, Any] = {}
    if "theory" in lines:
        groups = lines["theory"].group_by("line", "guide", "branch", maintain_order=True)
        found["theory"] = [
            {"line": line, "guide": guide} | frame.select("noise_rate", "ratio").to_dict(as_series=False)
            for (line, guide, _), frame in groups
        ]
    if "boundary" in lines:
        table = lines["boundary"]
        names = [name for name in table.columns if name not in ("metric", "threshold", "confidence")]
        metric, threshold, confidence = table.select("metric", "threshold", "confidence").row(0)
        found["boundary"] = table.select(names).to_dict(as_series=False) | {
            "label": f"{METRICS[metric].label} = {threshold:g}",
            "confidence": confidence,
        }
    return found


def as_json(document: Mapping[str, Any]) -> str:
    """The document as JSON that can stand in a script element of an HTML page, whatever strings it holds.

    Numbers that are not finite become null; "<", ">" and "&" are written as escapes, so no string can end the element.
    """
    text = json.dumps(_finite(document), allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value
