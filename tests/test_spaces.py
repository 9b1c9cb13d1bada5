"""Search spaces: what may be written, what it stands for, and ids that must never change by accident."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.architectures import count_parameters, width_for
from search_spaces.catalog import SpaceError, builtin_names, load_space, read_text
from search_spaces.packs import group_packs
from search_spaces.runs import CellError, RatioError, count_beside, expand, with_cells
from search_spaces.schedule import count_evaluations, evaluation_steps, flow_times
from search_spaces.spec import Evaluation, FlowRecipe, Recipe

GOLDEN_IDS = {
    "cifar10-grid": "4197b9ef1aa83682",
    "cifar10-pure": "1f6eefd00fae7040",
    "cifar10-samples": "8d9b969ff03e3af5",
    "cifar100-grid": "effbe00c2e4ec3c9",
    "cifar100-pure": "b94c09bc4ab542e1",
    "digits-grid": "b9a14789f4eadb9d",
    "digits-samples": "df6b29f6262c3650",
    "double-descent": "1011fa9132e04004",
    "double-descent-short": "5cdbeec2804989ee",
    "gmm-grid": "5e50afbc89d04b82",
    "imagenet-grid": "682fb41e278bfafd",
    "imagenet-lite": "2f3c5fdc88711e7a",
    "overfit-curves": "c81c95d5c0f38117",
    "overfit-curves-cifar10": "1968f957a451dafa",
}
"""Id of the first run of every built-in space. If one changes, finished runs of users are no longer found."""


def test_ids_of_all_builtin_spaces_are_golden() -> None:
    assert {name: expand(load_space(name))[0].run_id for name in builtin_names()} == GOLDEN_IDS


@pytest.mark.parametrize("name", sorted(GOLDEN_IDS))
def test_every_run_of_a_space_has_its_own_id(name: str) -> None:
    space = load_space(name)
    runs = expand(space)
    assert space.name == name
    assert len({run.run_id for run in runs}) == len(runs)
    columns = len(space.widths or space.ratios or ()) if space.axis == "width" else len(space.samples or ())
    assert len(runs) == columns * len(space.noise.rates) * len(space.seeds)


def ids(*overrides: str) -> list[str]:
    return [run.run_id for run in expand(load_space("digits-grid", overrides))]


@pytest.mark.parametrize(
    "override",
    [
        "recipe.learning_rate=0.001",
        "recipe.epochs=61",
        "recipe.weight_decay=1e-4",
        "samples=499",
        "evaluation.points=31",
        "dataset.validation_samples=299",
        "architecture=cifar-resnet18",
        "noise.flips=bernoulli",
    ],
)
def test_what_can_change_a_result_changes_every_noisy_id(override: str) -> None:
    before = {run.run_id for run in expand(load_space("digits-grid")) if run.noise.rate}
    assert before.isdisjoint(ids(override))


@pytest.mark.parametrize(
    "override",
    ["packing=off", "packing=2", "resources.cpus_per_worker=2", "description=other", "analysis.tau=0.1", "name=other"],
)
def test_where_and_how_it_runs_changes_no_id(override: str) -> None:
    assert ids(override) == ids()


def test_growing_a_grid_keeps_the_ids_of_what_was_there() -> None:
    grown = ids("seeds=4", "noise.rates=[0, 0.1, 0.2, 0.3, 0.4]", "widths=[2, 4, 6, 8, 12, 16, 24, 32, 48]")
    assert set(ids()) < set(grown)


def test_without_noise_the_noise_model_does_not_matter() -> None:
    clean = [run.run_id for run in expand(load_space("digits-grid")) if run.noise.rate == 0]
    as_pair = [run.run_id for run in expand(load_space("digits-grid", ["noise.model=pair"])) if run.noise.rate == 0]
    assert clean == as_pair


def test_a_label_file_is_identified_by_its_content(tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("1\n2\n")
    second.write_text("1\n2\n")
    noise = "noise={model: file, file: %s, rates: 0.3}"
    same = ids(noise % first)
    assert same == ids(noise % second)
    second.write_text("2\n2\n")
    assert same != ids(noise % second)


def test_all_problems_are_told_at_once_with_the_allowed_keys() -> None:
    overrides = ["recipe.epoch=3", "noise.rates=[0, 1.2, -0.1]", "widht=3", "recipe.batch_size=0"]
    with pytest.raises(SpaceError) as caught:
        load_space("digits-grid", overrides)
    message = str(caught.value)
    for part in ("5 problems", "recipe.epoch: unknown key", "'epochs'", "noise.rates.1", "1.2", "noise.rates.2"):
        assert part in message
    assert "widht" in message
    assert "recipe.batch_size" in message


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["ratios=[1]"], "give either `widths` or `ratios`"),
        (["samples=[100, 200]"], "`samples` must be one number"),
        (["samples=5"], "10 classes that need one each"),
        (["samples=701"], "digits has 700 to train on"),
        (["widths=[2, 2]"], "holds a value twice"),
        (["seeds=0"], "must be at least 1"),
        (["dataset.name=mnist"], "must be one of digits"),
        (["architecture=vgg"], "must be one of tiny-resnet"),
        (["noise.model=asym"], "defined for cifar10"),
        (["recipe.augmentation=crop-flip"], "for colour images"),
        (["recipe.momentum=0.9"], "belong to sgd"),
        (["recipe={optimizer: gradient-flow}"], "go together"),
        (["noise={model: matrix, matrix: [[1]], rates: 0}"], "noise matrix has 1 rows"),
        (["noise={model: file, file: nowhere.txt, rates: 0}"], "does not exist"),
        (["dataset.validation_samples=1097"], "must be below the 1097 test samples"),
        (["nonsense"], "must be key=value"),
        (["name.part=1"], "is a value, not a section"),
    ],
)
def test_a_bad_space_is_refused_with_the_reason(overrides: list[str], part: str) -> None:
    with pytest.raises(SpaceError, match="problem") as caught:
        load_space("digits-grid", overrides)
    assert part in str(caught.value)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(SpaceError, match="Did you mean 'imagenet-grid'"):
        load_space("imagnet-grid")


def test_a_file_is_a_space_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(read_text("digits-grid").replace("name: digits-grid", "name: mine"))
    assert [run.run_id for run in expand(load_space(str(path)))] == ids()
    path.write_text("- not a mapping")
    with pytest.raises(SpaceError, match="must be a mapping"):
        load_space(str(path))
    path.write_text("a: [")
    with pytest.raises(SpaceError, match="not valid YAML"):
        load_space(str(path))
    path.write_text("seeds: [0]\nwidths: [1]\nseeds: [1]")
    with pytest.raises(SpaceError, match=r"(?s)the key 'seeds' stands twice.*line 3"):
        load_space(str(path))


# -- cells beside the grid ----------------------------------------------------------------------------------------

BESIDE = (
    "cells=[{noise_rate: 0.1, width: 5, samples: 500, seeds: 2}, {noise_rate: 0.2, width: 8, samples: 500, seeds: [7]}]"
)


def test_cells_beside_the_grid_are_ordinary_runs_and_change_no_other_id() -> None:
    space = load_space("digits-grid", [BESIDE])
    runs = expand(space)
    assert [run.run_id for run in runs[:-3]] == ids()
    assert [(*run.cell, run.seed) for run in runs[-3:]] == [(0.1, 5, 500, 0), (0.1, 5, 500, 1), (0.2, 8, 500, 7)]
    assert [run.parameters for run in runs[-3:-1]] == [count_parameters("tiny-resnet", 5, classes=10, channels=1)] * 2
    as_grid = expand(load_space("digits-grid", ["noise.rates=[0.1]", "widths=[5]", "seeds=2"]))
    assert [run.run_id for run in runs[-3:-1]] == [run.run_id for run in as_grid]
    assert count_beside(space) == 3


def test_a_cell_that_is_of_the_grid_is_refused_and_left_out_when_cells_are_added() -> None:
    double = "cells=[{noise_rate: 0.2, width: 8, samples: 500, seeds: 4}]"
    with pytest.raises(CellError, match=r"noise rate 0.2, width 8, samples 500, seed 0.*seed 2"):
        expand(load_space("digits-grid", [double]))
    cells = load_space("digits-grid", [double]).cells
    assert [cell.seeds for cell in with_cells(load_space("digits-grid"), cells).cells] == [(3,)]
    assert [cell.seeds for cell in with_cells(load_space("digits-grid", [BESIDE]), cells).cells] == [(0, 1), (7, 3)]


@pytest.mark.parametrize(
    ("cell", "part"),
    [
        ("{noise_rate: 0.1, width: 5, samples: 400, seeds: 1}", "on axis width its samples must be 500"),
        ("{noise_rate: 1, width: 5, samples: 500, seeds: 1}", "less than 1"),
        ("{noise_rate: 0.1, width: 5, samples: 500, seeds: [1, 1]}", "`seeds` holds a value twice"),
        ("{noise_rate: 0.1, width: 5, samples: 500, seeds: []}", "at least 1"),
        ("{noise_rate: 0.1, widht: 5, samples: 500, seeds: 1}", "Did you mean 'width'"),
        (
            "{noise_rate: 0.1, width: 5, samples: 500, seeds: 1}, {noise_rate: 0.1, width: 5, samples: 500, seeds: 2}",
            "width 5, samples 500 twice",
        ),
    ],
)
def test_a_bad_cell_is_refused_with_the_reason(cell: str, part: str) -> None:
    with pytest.raises(SpaceError) as caught:
        load_space("digits-grid", [f"cells=[{cell}]"])
    assert part in str(caught.value)


def test_by_samples_a_cell_has_the_width_of_the_grid() -> None:
    load_space("digits-samples", ["cells=[{noise_rate: 0.1, width: 8, samples: 300, seeds: 1}]"])
    with pytest.raises(SpaceError, match="on axis samples its width must be 8"):
        load_space("digits-samples", ["cells=[{noise_rate: 0.1, width: 9, samples: 300, seeds: 1}]"])


# -- ratios -------------------------------------------------------------------------------------------------------


def test_a_ratio_is_realised_by_the_nearest_width() -> None:
    runs = expand(load_space("digits-grid", ["widths=null", "ratios=[2.75, 10, 155]", "seeds=1", "noise.rates=0"]))
    assert [run.width for run in runs] == [4, 8, 32]
    assert [run.ratio for run in runs] == [1382 / 500, 5122 / 500, 77290 / 500]
    assert [run.target_ratio for run in runs] == [2.75, 10, 155]


def test_ratios_that_are_missed_are_refused_together_unless_told_otherwise() -> None:
    bad = ["widths=null", "ratios=[0.5, 2, 10]"]
    with pytest.raises(RatioError) as caught:
        expand(load_space("digits-grid", bad))
    assert "p/n 0.5" in str(caught.value)
    assert "p/n 2 " in str(caught.value)
    assert "p/n 10 " not in str(caught.value)
    assert expand(load_space("digits-grid", [*bad, "ratio_tolerance=0.7"]))


def test_two_ratios_must_not_fall_on_one_width() -> None:
    with pytest.raises(RatioError, match="both fall on width 8"):
        expand(load_space("digits-grid", ["widths=null", "ratios=[10.2, 10.3]"]))


def test_ratios_by_samples_keep_the_network_and_must_fit_the_data() -> None:
    runs = expand(load_space("digits-samples", ["samples=null", "ratios=[10, 50]", "seeds=1", "noise.rates=0"]))
    assert [(run.width, run.samples) for run in runs] == [(8, 512), (8, 102)]
    with pytest.raises(RatioError, match="digits allows 10 to 700"):
        expand(load_space("digits-samples", ["samples=null", "ratios=[2]"]))


@given(st.sampled_from(["tiny-resnet", "cifar-resnet18", "resnet50", "linear"]), st.floats(1, 1e8))
def test_the_width_search_finds_the_best_width(architecture: str, target: float) -> None:
    def miss(width: int) -> float:
        return abs(count_parameters(architecture, width, classes=10, channels=3) / target - 1)

    width = width_for(architecture, target, classes=10, channels=3)
    assert all(miss(width) <= miss(other) for other in (max(1, width - 1), width + 1))


# -- schedule and packs -------------------------------------------------------------------------------------------


def test_log_spaced_evaluations_begin_inside_the_first_epoch_and_end_with_the_last_step() -> None:
    recipe = Recipe(optimizer="adam", learning_rate=1e-3, batch_size=64, epochs=60)
    steps = evaluation_steps(recipe, Evaluation(points=32), 500)
    assert steps[0] == 1
    assert steps[-1] == 480
    assert list(steps) == sorted(set(steps))
    assert sum(step < 8 for step in steps) >= 3
    assert 26 <= len(steps) <= 32


def test_epoch_spaced_evaluations_hold_every_epoch() -> None:
    recipe = Recipe(optimizer="sgd", learning_rate=0.1, batch_size=100, epochs=5)
    steps = evaluation_steps(recipe, Evaluation(spacing="epoch", first_epoch_points=3), 1000)
    assert steps == (1, 2, 5, 10, 20, 30, 40, 50)


def test_the_flow_ends_at_infinity() -> None:
    times = flow_times(FlowRecipe(optimizer="gradient-flow"), Evaluation(points=5))
    assert times[0] == pytest.approx(1e-3)
    assert times[-2] == pytest.approx(1e3)
    assert times[-1] == float("inf")
    assert count_evaluations(FlowRecipe(optimizer="gradient-flow"), Evaluation(points=5), 10) == 6


@given(st.sampled_from(sorted(GOLDEN_IDS)), st.sampled_from(["auto", "off", 1, 2, 3]), st.sampled_from([0.5, 1.5, 100]))
def test_packs_hold_every_run_once_and_never_mix_streams(name: str, packing: str | int, room: float) -> None:
    runs = expand(load_space(name))
    packs = group_packs(runs, packing, lambda run: room)
    assert sorted(run.run_id for pack in packs for run in pack.runs) == sorted(run.run_id for run in runs)
    for pack in packs:
        assert len({(run.seed, run.width, run.samples, run.recipe, run.dataset) for run in pack.runs}) == 1
        assert len({run.noise.rate for run in pack.runs}) == len(pack.runs)
        assert packing not in ("off", 1) or len(pack.runs) == 1
