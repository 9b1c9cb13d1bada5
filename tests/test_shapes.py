"""Shapes: what a run is trained on, chosen by memory and time, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.launch_plan import LaunchOptions, plan_launch
from orchestrator.plan import Plan
from orchestrator.slots import Hardware
from orchestrator.storage import open_storage
from search_spaces.catalog import SpaceError, load_space
from search_spaces.memory import evaluated_samples, run_bytes
from search_spaces.runs import Run, expand
from search_spaces.shapes import MEMORY_SHARE, Shape, gpu_hours_alone, shape_for, why_several
from search_spaces.spec import SearchSpace

BOX = Hardware(cpus=96, gpus=8, memory_bytes_per_cpu=8e9)


def shape_of(space: SearchSpace, width: int) -> Shape:
    return shape_for(run_of(space, width), space.resources)


def run_of(space: SearchSpace, width: int) -> Run:
    return next(run for run in expand(space) if run.width == width)


def plan(tmp_path: Path, space: SearchSpace) -> Plan:
    return plan_launch(space, LaunchOptions(open_storage(tmp_path), space.name, tmp_path), BOX)


def test_small_runs_share_a_gpu_and_large_ones_fill_it() -> None:
    space = load_space("cifar10-grid")
    assert [shape_of(space, width).total_gpus for width in (2, 32, 48, 64)] == [0.25, 0.25, 0.5, 1]
    assert shape_of(space, 2).cpus == 2, "and its share of the CPUs"


def test_a_run_that_takes_too_long_gets_more_gpus_in_powers_of_two() -> None:
    space = load_space("imagenet-grid", ["resources.longest_run_hours=12"])
    for width in (32, 64, 96):
        run, shape = run_of(space, width), shape_of(space, width)
        alone = gpu_hours_alone(run)
        assert alone / shape.total_gpus <= 12 or shape.total_gpus == 8
        assert shape.total_gpus == 1 or alone / (shape.total_gpus / 2) > 12
    assert shape_of(space, 96) == Shape(8, 12, 1)
    assert "53 h on one, over 12" in why_several(run_of(space, 96), shape_of(space, 96), space.resources)
    assert why_several(run_of(space, 8), shape_of(space, 8), space.resources) == ""


def test_a_run_that_one_gpu_does_not_hold_is_spread_over_several() -> None:
    space = load_space("imagenet-grid", ["resources.gpu_memory_gb=24"])
    run, shape = run_of(space, 64), shape_of(space, 64)
    room = MEMORY_SHARE * 24e9
    assert run_bytes(run) > room >= run_bytes(run, shape.processes)
    assert "one does not hold its 46.2 GB" in why_several(run, shape, space.resources)


def test_micro_batches_bring_the_memory_down_and_no_run_gets_more_gpus_than_samples() -> None:
    whole = run_of(load_space("imagenet-grid"), 64)
    space = load_space("imagenet-grid", ["recipe.micro_batch=2", "resources.longest_run_hours=0.1"])
    assert run_bytes(run_of(space, 64)) < run_bytes(whole) / 50
    assert shape_of(space, 64).processes == 2


@pytest.mark.parametrize(
    ("gpus", "shape"), [("0.25", Shape(1, 12, 0.25)), ("1", Shape(1, 12, 1)), ("4", Shape(4, 12, 1))]
)
def test_what_the_space_says_is_taken(gpus: str, shape: Shape) -> None:
    space = load_space("imagenet-grid", [f"resources.gpus_per_worker={gpus}"])
    assert {shape_of(space, width) for width in (8, 96)} == {shape}


def test_processes_on_cpus_share_a_run_too() -> None:
    space = load_space("digits-grid", ["resources.processes_per_worker=2"])
    assert shape_of(space, 2) == Shape(2, 1, 0)
    assert str(shape_of(space, 2)) == "2 processes of 1 CPU"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["resources.gpus_per_worker=1.5"], "a share from 0 to 1, or a whole number above it"),
        (["resources.gpus_per_worker=-1"], "a share from 0 to 1"),
        (["resources.gpus_per_worker=2", "resources.processes_per_worker=2"], "one process a GPU"),
        (["resources.gpus_per_worker=auto", "resources.processes_per_worker=2"], "train without GPUs"),
    ],
)
def test_shapes_that_cannot_be_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        load_space("digits-grid", overrides)


def test_a_plan_has_a_lane_for_each_shape_and_packs_never_mix_them(tmp_path: Path) -> None:
    made = plan(tmp_path, load_space("cifar10-grid"))
    assert [(lane.shape.total_gpus, lane.slots) for lane in made.lanes.lanes] == [(0.25, 32), (0.5, 16), (1, 8)]
    for pack in made.packs:
        assert len({made.lanes.number(run) for run in pack.runs}) == 1
    gpu_seconds = sum(made.lanes.seconds(run) * made.lanes.lane(run).shape.total_gpus for run in made.runs)
    assert made.estimate.gpu_hours == pytest.approx(gpu_seconds / 3600)


def test_shapes_are_placement(tmp_path: Path) -> None:
    spaces = [load_space("imagenet-lite", [f"resources.gpus_per_worker={gpus}"]) for gpus in ("auto", "0.5", "4")]
    ids = [[run.run_id for run in expand(space)] for space in spaces]
    assert ids[0] == ids[1] == ids[2]


def test_corrupted_examples_count_in_the_cost_of_an_evaluation() -> None:
    clean, noisy = (run for run in expand(load_space("imagenet-grid", ["widths=[8]", "noise.rates=[0, 0.4]"])))
    evaluations = evaluated_samples(clean) / (50_000 + 50_000)
    assert evaluated_samples(noisy) == evaluations * (50_000 + round(0.4 * (1_281_167 - 50_000)) + 50_000)
