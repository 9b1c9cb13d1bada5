"""Acceptance: the digits say what theory and earlier measurements say, through the whole path of a launch."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from orchestrator.analysis.scores import run_table
from orchestrator.ledger import Ledger
from tests.launches import launch

pytestmark = pytest.mark.ray

PART = ("--set", "widths=[2, 8, 16]", "--set", "noise.rates=[0, 0.4]", "--seeds", "2")
"""A part of digits-grid: 12 runs, most of a minute on a core."""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Path:
    storage = tmp_path_factory.mktemp("digits")
    result = launch(storage, data_folder, *PART)
    assert result.returncode == 0, result.stderr
    return storage / "digits-grid"


@pytest.mark.slow
def test_digits_agree_with_what_is_known(digits: Path) -> None:
    runs = run_table(Ledger(digits).load())
    mean = runs.group_by("noise_rate", "width").agg(pl.col("gap_err", "err_last", "memorised").mean())

    def of(name: str, rate: float, width: int) -> float:
        return float(mean.filter(pl.col("noise_rate") == rate, pl.col("width") == width)[name].item())

    clean = mean.filter(pl.col("noise_rate") == 0)
    assert clean["gap_err"].to_numpy().max() <= 0.01  # without noise, overfitting is benign
    assert of("gap_err", 0.4, 8) >= 0.12  # with noise it is not, near the threshold
    assert of("err_last", 0.4, 16) < of("err_last", 0.4, 8) - 0.03  # and width helps
    assert min(of("memorised", 0.4, width) for width in (8, 16)) >= 0.97  # though all noise is memorised


@pytest.mark.slow
def test_the_diagram_of_the_digits_calls_clean_cells_benign(digits: Path) -> None:
    cells = pl.read_parquet(digits / "phase" / "cells.parquet")
    wide_and_clean = cells.filter(pl.col("noise_rate") == 0, pl.col("width") >= 8)
    assert wide_and_clean["phase"].to_list() == ["benign"] * 2
    noisy = cells.filter(pl.col("noise_rate") == 0.4, pl.col("width") == 8)
    assert noisy["phase"].to_list() == ["tempered"]
