"""Two sweeps on their common cells: which these are, how they pair, and what is not decided."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orchestrator.analysis.compare import differences, match_cells
from orchestrator.comparison import recipe_differences
from orchestrator.figures.compare_figure import difference_maps
from search_spaces.catalog import load_space


def cells(*places: tuple[float, int, int, float]) -> pl.DataFrame:
    return pl.DataFrame(places, schema=["noise_rate", "width", "samples", "ratio"], orient="row")


def sweep(errors: dict[int, float | None], **values: Any) -> pl.DataFrame:
    """Runs of one cell by seed, as `score_runs` gives them."""
    run = {
        "noise_rate": 0.2,
        "width": 8,
        "samples": 500,
        "status": "done",
        "dataset": "digits",
        "dataset_version": "1",
        "mask_hash": "mask",
        "subset_hash": "subset",
        "emc_epoch": 5.0,
    } | values
    rows = [
        run | {"seed": seed, "err_last": error, "mask_hash": f"{run['mask_hash']}-{seed}"}
        for seed, error in errors.items()
    ]
    return pl.DataFrame(rows, schema_overrides={"err_last": pl.Float64, "emc_epoch": pl.Float64})


def one(a: pl.DataFrame, b: pl.DataFrame, metric: str = "err_last", **options: Any) -> dict[str, Any]:
    place = (0.2, 8, 500, 10.2)
    matched = match_cells(cells(place), cells(place), "size")
    return differences(matched, a, b, [metric], **{"same_noise": True, **options}).row(0, named=True)


# ---- which cells ----


def test_cells_of_equal_size_or_equal_ratio_are_common_and_the_others_are_listed() -> None:
    a = cells((0.0, 8, 500, 10.2), (0.2, 8, 500, 10.2), (0.2, 16, 500, 39.4))
    b = cells((0.2, 8, 500, 10.2), (0.2, 16, 1000, 39.4), (0.4, 8, 500, 10.2))
    by_size = match_cells(a, b, "size")
    assert by_size.select("noise_rate", "width_a", "width_b").rows() == [
        (0.0, 8, None),
        (0.2, 8, 8),
        (0.2, 16, None),
        (0.2, None, 16),  # equal p/n, another size: a place of its own
        (0.4, None, 8),
    ]
    assert by_size["place"].to_list() == [1, 1, 2, 3, 1]
    by_ratio = match_cells(a, b, "ratio")
    common = by_ratio.drop_nulls().select("noise_rate", "samples_a", "samples_b").rows()
    assert common == [(0.2, 500, 500), (0.2, 500, 1000)]
    assert by_ratio.height == 4


def test_ratios_match_exactly_unless_a_tolerance_allows_more() -> None:
    a, b = cells((0.2, 8, 500, 10.0)), cells((0.2, 9, 500, 10.4), (0.2, 10, 500, 10.3))
    assert match_cells(a, b, "ratio").drop_nulls().is_empty()
    near = match_cells(a, b, "ratio", tolerance=0.05)
    assert near.drop_nulls()["width_b"].to_list() == [10]  # the nearest
    assert near.filter(pl.col("width_a").is_null())["width_b"].to_list() == [9]
    with pytest.raises(ValueError, match=r"several cells of the first sweep are within 0\.05 of p/n 10"):
        match_cells(b, a, "ratio", tolerance=0.05)


def test_a_ratio_that_was_computed_twice_is_still_the_same_ratio() -> None:
    assert match_cells(cells((0.2, 8, 500, 0.1 + 0.2)), cells((0.2, 9, 500, 0.3)), "ratio").drop_nulls().height == 1


# ---- how much, and how sure ----


def test_seeds_that_share_data_noise_and_subset_are_paired() -> None:
    row = one(sweep({0: 0.10, 1: 0.30, 2: 0.50}), sweep({0: 0.11, 1: 0.32, 2: 0.53}))
    assert row["interval"] == "paired"
    assert (row["n_a"], row["n_b"]) == (3, 3)
    assert row["difference"] == pytest.approx(0.02)
    reach = stats.t.ppf(0.975, 2) * 0.01 / 3**0.5
    assert (row["low"], row["high"]) == (pytest.approx(0.02 - reach), pytest.approx(0.02 + reach))
    assert not row["decided"]  # 0.02 - 0.0248 < 0
    surer = one(sweep({0: 0.10, 1: 0.30, 2: 0.50}), sweep({0: 0.15, 1: 0.36, 2: 0.57}))
    assert surer["decided"]


def test_pairs_are_the_seeds_that_both_have() -> None:
    row = one(sweep({0: 0.1, 1: 0.2, 7: 0.9}), sweep({0: 0.2, 1: 0.3, 2: None}))
    assert (row["interval"], row["n_a"], row["n_b"]) == ("paired", 2, 2)
    assert (row["mean_a"], row["mean_b"]) == (pytest.approx(0.15), pytest.approx(0.25))
    assert row["difference"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("other", "options"),
    [
        ({"subset_hash": "another"}, {}),
        ({"mask_hash": "another"}, {}),
        ({"dataset_version": "2"}, {}),
        ({"mask_hash": None}, {}),
        ({}, {"same_noise": False}),
        ({}, {"same_data": False}),
    ],
)
def test_without_common_random_numbers_the_interval_is_welchs(other: dict[str, Any], options: dict[str, Any]) -> None:
    a, b = [0.10, 0.30, 0.50], [0.11, 0.32, 0.53]
    right = sweep(dict(enumerate(b)), **other)
    if other.get("mask_hash", "") is None:
        right = right.with_columns(mask_hash=pl.lit(None, pl.String))
    row = one(sweep(dict(enumerate(a))), right, **options)
    assert row["interval"] == "Welch"
    interval = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert (row["low"], row["high"]) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert not row["decided"]


def test_at_noise_rate_0_another_noise_model_does_not_part_the_pairs() -> None:
    clean = (0.0, 8, 500, 10.2)
    matched = match_cells(cells(clean), cells(clean), "size")
    runs = sweep({0: 0.1, 1: 0.2}, noise_rate=0.0)
    assert differences(matched, runs, runs, ["err_last"], same_noise=False)["interval"].to_list() == ["paired"]


def test_other_seeds_are_compared_without_pairs_and_one_seed_without_an_interval() -> None:
    apart = one(sweep({0: 0.1, 1: 0.2}), sweep({2: 0.3, 3: 0.5, 4: 0.4}))
    assert (apart["interval"], apart["n_a"], apart["n_b"]) == ("Welch", 2, 3)
    single = one(sweep({0: 0.1}), sweep({0: 0.4}))
    assert (single["interval"], single["low"], single["decided"]) == ("none", None, False)
    assert single["difference"] == pytest.approx(0.3)


def test_runs_that_did_not_finish_have_no_part_and_an_empty_side_gives_no_difference() -> None:
    row = one(sweep({0: 0.1, 1: 0.2}), sweep({0: 0.1, 1: 0.2}, status="diverged"))
    assert (row["difference"], row["mean_b"], row["n_b"], row["decided"]) == (None, None, 0, False)


def test_times_to_fit_count_only_where_all_finished_seeds_got_there() -> None:
    slow = pl.concat([sweep({0: 0.1}), sweep({1: 0.1}, emc_epoch=None)])
    row = one(slow, sweep({0: 0.1, 1: 0.1}), metric="emc_epoch")
    assert (row["mean_a"], row["difference"]) == (None, None)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_swapping_the_sweeps_changes_the_sign_and_nothing_else(a: list[float], b: list[float]) -> None:
    left, right = sweep(dict(enumerate(a))), sweep(dict(enumerate(b)))
    there, back = one(left, right), one(right, left)
    assert there["difference"] == pytest.approx(-back["difference"])
    assert there["low"] == pytest.approx(-back["high"], abs=1e-9)
    assert there["interval"] == back["interval"]


# ---- what is said and drawn ----


def test_what_two_recipes_differ_in_is_listed_and_what_makes_cells_is_not() -> None:
    a = load_space("digits-grid")
    b = load_space("digits-grid", ["recipe.epochs=20", "widths=[4]", "seeds=1", "noise.rates=[0]", "noise.model=pair"])
    assert recipe_differences(a, b) == [("noise.model", "symmetric", "pair"), ("recipe.epochs", 60, 20)]
    assert recipe_differences(a, a) == []
    flow = {key: (one, two) for key, one, two in recipe_differences(a, load_space("gmm-grid"))}
    assert flow["recipe.first_time"] == (None, 0.001)
    assert flow["recipe.epochs"] == (60, None)


def test_a_cell_is_coloured_only_by_a_difference_and_ringed_unless_it_is_decided() -> None:
    table = pl.DataFrame(
        {
            "noise_rate": [0.0, 0.0, 0.0, 0.2, 0.2],
            "place": [1, 2, 3, 1, 2],
            "ratio": [1.0, 2.0, 4.0, 1.0, 2.0],
            "metric": ["err_last"] * 5,
            "difference": [0.1, -0.02, None, None, None],
            "decided": [True, False, False, False, False],
            "cells": ["both", "both", "both", "a only", "b only"],
        }
    )
    figure = difference_maps(table, ["err_last"], title="T", caption="C")
    axes = figure.axes[0]
    found = {patch.get_gid() for patch in axes.patches}
    assert found == {"decided 0 0", "undecided 0 1", "missing 0 2", "a only 1 0", "b only 1 1"}
    assert [text.get_text() for text in axes.texts if text.get_text()] == ["+0.10", "\N{MINUS SIGN}0.02", "A", "B"]
    rings = [np.asarray(line.get_xdata()).tolist() for line in axes.lines]
    assert [[round(x) for x in ring] for ring in rings] == [[1]]
    low, high = figure.axes[1].get_ylim()
    assert low == -high == pytest.approx(-0.1)
    hatched = {patch.get_gid(): patch.get_hatch() for patch in axes.patches}
    assert hatched["missing 0 2"]
    assert not hatched["decided 0 0"]
