"""The metrics of runs at any size: against a plain reading of their definitions, run by run, however rows come."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from orchestrator import parquet_options
from orchestrator.analysis.run_metrics import NEEDED_MEASURED, SUMMARY, summarise_runs
from orchestrator.analysis.scores import run_table, score_runs
from orchestrator.parquet_options import write_compacted
from tests.synthetic import EVALUATION_DEFAULTS, evaluation_table, run_rows
from workers.schema import ROWS

COLUMNS = ("run_id", "evaluation", *NEEDED_MEASURED)


def plain(rows: pl.DataFrame, k: int) -> pl.DataFrame:
    """Every metric of every run from its definition, one number at a time."""

    def of_one(run: list[dict[str, Any]]) -> dict[str, Any]:
        def column(name: str) -> list[float | None]:
            return [row[name] for row in run]

        def last(name: str) -> float | None:
            values = column(name)[-k:]
            if len(run) < k or any(value is None or math.isnan(value) for value in values):
                return None
            return sum(value for value in values if value is not None) / k

        def lowest(name: str) -> float | None:
            return min((value for value in column(name) if value is not None and math.isfinite(value)), default=None)

        def first(of: str, name: str, holds: Any) -> float | None:
            found = [row[of] for row in run if row[name] is not None and holds(row[name])]
            return found[0] if found else None

        errors = [value for value in column("test_error") if value is not None]
        losses = [value for value in column("test_loss") if value is not None]
        return {
            "run_id": run[0]["run_id"],
            "evaluations": len(run),
            "broken": not all(map(math.isfinite, errors)) or any(map(math.isnan, losses)),
            "err_last": last("test_error"),
            "loss_last": last("test_loss"),
            "train_error_last": last("train_error_given"),
            "memorised": last("memorised"),
            "recovered": last("recovered"),
            "exact": last("excess_risk"),
            "err_best": lowest("test_error"),
            "loss_best": lowest("test_loss"),
            "epoch_best": first("epoch", "test_error", lambda value: value == lowest("test_error")),
            "err_valsel": first("test_error", "val_error", lambda value: value == lowest("val_error")),
            "interpolation_epoch": first("epoch", "train_error_given", lambda value: value <= 0.01 + 1e-8),
            "emc_epoch": first("epoch", "train_error_given", lambda value: value <= 0.1 + 1e-8),
        }

    runs = [of_one(part.to_dicts()) for part in rows.partition_by("run_id", maintain_order=True)]
    return pl.DataFrame(runs, schema=SUMMARY).with_columns(pl.col(pl.Float64).fill_nan(None))


def curves(runs: int, *, odd: bool, equal: bool = False) -> pl.DataFrame:
    """Rows of runs of 1 to 40 evaluations (all 40 if `equal`), sorted; nulls, NaN, infinities and ties where `odd`."""
    draw = np.random.default_rng(runs)
    ids = np.sort(draw.choice(10**9, runs, replace=False))
    lengths = np.full(runs, 40) if equal else draw.integers(1, 41, runs)
    total = int(lengths.sum())
    columns: dict[str, Any] = {
        "run_id": np.repeat([f"{each:016x}" for each in ids], lengths),
        "evaluation": np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
        **{name: draw.random(total) for name in NEEDED_MEASURED},
    }
    frame = pl.DataFrame(columns).with_columns(epoch=pl.col("evaluation").cast(pl.Float64))
    if not odd:
        return frame
    frame = frame.with_columns(pl.col("test_error", "val_error", "train_error_given").round(1))  # ties
    for name in NEEDED_MEASURED[1:]:
        for value, share in ((None, 0.2), (math.nan, 0.02), (math.inf, 0.02), (-math.inf, 0.02)):
            hit = pl.Series(draw.random(total) < share * draw.integers(0, 2))  # some columns have none of a kind
            frame = frame.with_columns(pl.when(hit).then(pl.lit(value)).otherwise(pl.col(name)).alias(name))
    last = pl.col("evaluation") == pl.col("evaluation").max().over("run_id")
    return frame.with_columns(epoch=pl.when(last).then(math.inf).otherwise(pl.col("epoch")))


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize(("runs", "odd", "equal"), [(200, False, True), (200, False, False), (300, True, False)])
def test_summaries_are_what_the_definitions_say(runs: int, odd: bool, equal: bool, k: int) -> None:
    rows = curves(runs, odd=odd, equal=equal)
    assert_frame_equal(summarise_runs(rows.lazy(), final_evaluations=k), plain(rows, k))


def test_one_kind_of_odd_value_at_a_time_is_found() -> None:
    for column in ("test_error", "test_loss", "val_error", "train_error_given", "excess_risk"):
        for value in (None, math.nan, math.inf, -math.inf):
            rows = curves(20, odd=False)
            hit = pl.int_range(pl.len()) % 7 == 3
            rows = rows.with_columns(pl.when(hit).then(pl.lit(value)).otherwise(pl.col(column)).alias(column))
            assert_frame_equal(summarise_runs(rows.lazy()), plain(rows, 1))
            rows = rows.with_columns(pl.lit(value, dtype=pl.Float64).alias(column))
            assert_frame_equal(summarise_runs(rows.lazy()), plain(rows, 1))


def full_table(rows: pl.DataFrame) -> Any:
    """The same rows with all columns of the schema."""
    absent = [pl.lit(0).alias(name) for name in ROWS.names if name not in rows.columns]
    return rows.with_columns(absent).select(ROWS.names).to_arrow().cast(ROWS)


@pytest.mark.parametrize("batch_rows", [1, 100, 10**6])
def test_files_of_any_layout_give_the_same(batch_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole runs, runs cut at every seventh row and at every row, and runs in memory; files in any order."""
    monkeypatch.setattr("orchestrator.analysis.run_metrics.BATCH_ROWS", batch_rows)
    monkeypatch.setattr(parquet_options, "ROW_GROUP_ROWS", 500)
    rows = curves(120, odd=True)
    parts = rows.partition_by("run_id", maintain_order=True)
    write_compacted(full_table(pl.concat(parts[60:90])), tmp_path / "a.parquet")
    pq.write_table(full_table(pl.concat(parts[:60])), tmp_path / "b.parquet", row_group_size=7)
    pq.write_table(full_table(parts[90]), tmp_path / "c.parquet", row_group_size=1)
    recent = pl.concat(parts[91:]).lazy()
    scanned = pl.concat([pl.scan_parquet(tmp_path / "*.parquet").select(COLUMNS), recent.select(COLUMNS)])
    found = summarise_runs(scanned, final_evaluations=2)
    assert_frame_equal(found.sort("run_id"), plain(rows, 2))


def test_runs_that_lost_their_first_rows_are_told_apart_by_their_ids() -> None:
    rows = pl.DataFrame([row for name in "abc" for row in run_rows(name, [0.5, 0.4, 0.3])])
    rows = rows.with_columns(pl.col(NEEDED_MEASURED).cast(pl.Float64))
    rows = rows.filter((pl.col("run_id") == "a") & (pl.col("evaluation") == 0) | (pl.col("evaluation") > 0))
    rows = rows.filter(~((pl.col("run_id") == "c") & (pl.col("evaluation") < 2)))
    rows = pl.concat([rows.filter(run_id="a").head(1), rows.filter(pl.col("run_id") != "a")])  # a 0; b 1, 2; c 2
    assert summarise_runs(rows.lazy())["evaluations"].to_list() == [1, 2, 1]


def test_no_rows_are_no_runs_and_k_is_at_least_one() -> None:
    assert_frame_equal(summarise_runs(curves(3, odd=False).clear().lazy()), SUMMARY.to_frame())
    with pytest.raises(ValueError, match="final_evaluations is 0; it must be at least 1"):
        summarise_runs(curves(3, odd=False).lazy(), final_evaluations=0)


def test_compacted_row_groups_hold_whole_runs_and_read_back_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_options, "ROW_GROUP_ROWS", 300)
    table = full_table(curves(100, odd=False))
    write_compacted(table, tmp_path / "a.parquet")
    file = pq.ParquetFile(tmp_path / "a.parquet")
    assert file.read().equals(table)
    assert file.num_row_groups == round(table.num_rows / 300)
    for number in range(file.num_row_groups):
        group = file.read_row_group(number, columns=["evaluation"])["evaluation"]
        assert group[0].as_py() == 0
        assert len(group) <= 300 + 2 * 40
    write_compacted(table.slice(0, 0), tmp_path / "none.parquet")
    assert pq.read_table(tmp_path / "none.parquet").equals(table.slice(0, 0))


def test_scores_from_summaries_runs_and_ends_are_those_of_the_tidy_table() -> None:
    evaluations = evaluation_table(
        run_rows("clean", [0.1, 0.2], mask_hash="m"),
        run_rows("noisy", [0.4, 0.3], noise_rate=0.2, mask_hash="n"),
        run_rows("wide", [0.5, math.nan], noise_rate=0.2, width=16, mask_hash="o"),
        run_rows("going-on", [0.5], noise_rate=0.4, status="running", noise_rate_realised=None, mask_hash=None),
    ).with_columns(subset_hash=pl.lit("s"), pack_size=1)
    ended = ["status", "mask_hash", "subset_hash", "noise_rate_realised", "pack_size"]
    described = evaluations.unique("run_id", maintain_order=True)
    measured = ["evaluation", "step", "test_error", *EVALUATION_DEFAULTS, "epoch"]
    runs = described.drop(*ended, *measured)
    ends = described.filter(pl.col("status") != "running").select("run_id", *ended)
    summaries = summarise_runs(evaluations.lazy())
    scored = score_runs(summaries, runs, ends)
    expected = run_table(evaluations)
    going_on = pl.col("run_id") == "going-on"
    expected = expected.with_columns(
        pl.when(~going_on).then(pl.col(name)).alias(name) for name in ("subset_hash", "pack_size")
    )
    assert_frame_equal(scored.select(expected.columns), expected)
    with pytest.raises(ValueError, match="run clean is there more than once among the summaries"):
        score_runs(pl.concat([summaries, summaries.filter(run_id="clean")]), runs, ends)
    with pytest.raises(ValueError, match="ends lacks the columns status"):
        score_runs(summaries, runs, ends.drop("status"))
