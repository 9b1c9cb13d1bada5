"""The manifest of an analysis: by which runs, definitions and code its files were made, and what they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from orchestrator.analysis.definitions import (
    CATASTROPHIC_SHARE,
    EMC_ERROR,
    INTERPOLATION_ERROR,
    METRICS,
)
from orchestrator.provenance import versions
from search_spaces.spec import SearchSpace

SCHEMA_VERSION = 1


def analysis_manifest(
    sweep: str,
    space: SearchSpace,
    planned: pl.DataFrame,
    runs: pl.DataFrame,
    ends: pl.DataFrame,
    cells: pl.DataFrame,
    files: Sequence[Path],
) -> dict[str, Any]:
    """What `phase/manifest.json` holds. It tells no time and no place, so the same ledger gives the same bytes.

    planned: the runs of the diagram (run_id, and status as the ledger has it). runs: as `score_runs` gives them. ends:
    as the ledger gives them. cells: as `cell_table` gives them. files: what the analysis wrote, on this machine.
    """
    status = planned.select("run_id", told="status").join(runs.select("run_id", "status"), on="run_id", how="left")
    status = status.select("run_id", pl.coalesce("status", "told").fill_null("waiting").alias("status"))
    by_status = status.sort("status", "run_id").group_by("status", maintain_order=True).agg("run_id")
    used = ends.join(status.select("run_id"), on="run_id", how="semi")
    missing = cells.filter(pl.col("n") == 0).select("noise_rate", "width", "samples", "ratio", "phase", "in_grid")
    return {
        "schema_version": SCHEMA_VERSION,
        "sweep": sweep,
        "space": space.model_dump(mode="json"),
        "dataset": {"name": space.dataset.name, "version": space.dataset.described.version},
        "runs": dict(by_status.iter_rows()),
        "missing_cells": missing.to_dicts(),
        "thresholds": space.analysis.model_dump(mode="json")
        | {
            "interval": cells["interval"][0],
            "interpolation_error": INTERPOLATION_ERROR,
            "emc_error": EMC_ERROR,
            "catastrophic_share": CATASTROPHIC_SHARE,
        },
        "metrics": {name: asdict(metric) for name, metric in METRICS.items()},
        "versions": {
            "analysis": versions(),
            "runs": used["versions"].drop_nulls().unique().sort().to_list(),
        },
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)},
    }
