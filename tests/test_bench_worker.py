"""`bo-sweep bench-worker`: real measurements of small networks, what is kept of them, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from orchestrator.calibration import FILE_NAME, read_calibration
from orchestrator.cli import main
from search_spaces.catalog import load_space
from search_spaces.datasets import DATASETS
from search_spaces.runs import expand
from tests.test_train_images import TEST, TRAIN, write
from workers import speed

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
QUICK = ("--seconds", "0.01", "--rounds", "2")
ON_CPU = ("--set", "resources.gpus_per_worker=0", "--set", "resources.cpus_per_worker=1")
SMALL = ("--set", "samples=100", "--set", "recipe.batch_size=32", "--set", "recipe.precision=fp32")


def bench(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["bench-worker", *map(str, arguments)])


@pytest.fixture(scope="module")
def betons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("betons")
    write(folder, "imagenet", "jpg", (50, 80))
    return folder


@pytest.fixture
def _small_imagenet(monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(DATASETS["imagenet"], train_samples=TRAIN, test_samples=TEST, classes=10)
    monkeypatch.setitem(DATASETS, "imagenet", small)


def test_digits_are_measured_width_by_width_and_kept_for_the_plan(tmp_path: Path) -> None:
    result = bench("digits-grid", "--set", "widths=[2, 4]", "--data", tmp_path, *QUICK, "--json")
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    assert document["schema_version"] == 1
    assert document["images"] == "data set"
    assert [entry["width"] for entry in document["widths"]] == [2, 4]
    for entry in document["widths"]:
        assert entry["rounds"] == 2
        assert entry["kind"] == "cpu"
        assert entry["slower"] in ("loader", "step")
        assert entry["advice"]
        assert entry["pack_size"] == 3
        assert entry["pack_gain"] > 1, "so narrow networks gain from being fused, on any machine"
        for name in ("loader", "step", "both", "forward"):
            assert 0 < entry[name]["min"] <= entry[name]["median"] <= entry[name]["max"]
    assert [one.width for one in read_calibration(tmp_path / FILE_NAME)] == [2, 4]
    assert f"bo-sweep plan digits-grid --set 'widths=[2, 4]' --calibration {tmp_path / FILE_NAME}" in result.stderr

    storage = ("--storage", str(tmp_path / "sweeps"))
    plan = CliRunner().invoke(
        main, ["plan", "digits-grid", *storage, "--calibration", str(tmp_path / FILE_NAME), "--json"]
    )
    basis = json.loads(plan.stdout)["estimate"]["basis"]
    assert basis.startswith(f"measured on {document['widths'][0]['device']} on ")
    assert "n=2; scaled by arithmetic from the nearest width for 6, 8, 12, 16, 32" in basis


def test_people_get_a_table_with_n_and_what_to_change(tmp_path: Path) -> None:
    result = bench("digits-grid", "--set", "widths=[2]", "--data", tmp_path, *QUICK)
    assert result.exit_code == 0, result.output
    for part in ("median (min..max), n=2", "tiny-resnet, 8 px, batches of 64", "loader", "Width 2: ", "  - "):
        assert part in result.stdout


@pytest.mark.usefixtures("_small_imagenet")
def test_colour_images_are_measured_with_the_augmentation_of_the_recipe(betons: Path, tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / "imagenet").mkdir(exist_ok=True)
        (tmp_path / "imagenet" / f"{part}.beton").symlink_to(betons / "imagenet" / f"{part}.beton")
    few = ("--set", "widths=[4]", "--set", "dataset.resolution=32", "--set", "dataset.validation_samples=20")
    result = bench("imagenet-lite", *few, *SMALL, *ON_CPU, "--data", tmp_path, *QUICK, "--json")
    assert result.exit_code == 0, result.output
    (entry,) = json.loads(result.stdout)["widths"]
    assert entry["conditions"]["augmentation"] == "resized-crop-flip"
    assert entry["conditions"]["resolution"] == 32
    assert entry["loader"]["median"] > 0


def test_without_the_data_set_the_step_alone_is_measured_and_how_to_prepare_is_told(tmp_path: Path) -> None:
    arguments = ("cifar10-grid", "--set", "widths=[2]", *SMALL, *ON_CPU, "--data", tmp_path, *QUICK)
    result = bench(*arguments)
    assert result.exit_code == 0, result.output
    assert "the step alone was measured, on random images" in result.stdout
    assert f"bo-sweep prepare cifar10 --source SOURCE --out {tmp_path}" in result.stdout
    assert "not measured" in result.stdout
    document = json.loads(bench(*arguments, "--json").stdout)
    assert document["images"] == "random"
    assert document["widths"][0]["both"] is None
    assert document["widths"][0]["slower"] is None
    assert "bo-sweep prepare cifar10" in document["widths"][0]["advice"][0]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["gmm-grid"], ["gradient-flow", "trains no network", "bo-sweep spaces list"]),
        (["digit-grid"], ["Did you mean 'digits-grid'?"]),
        (["digits-grid", "--seconds", "0"], ["--seconds"]),
        (["digits-grid", "--rounds", "0"], ["--rounds"]),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments: list[str], parts: list[str], tmp_path: Path) -> None:
    result = bench(*arguments, "--data", tmp_path)
    assert result.exit_code == 2
    for part in parts:
        assert part in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_space_without_a_gpu_says_where_to_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "gpu_name", lambda: None)
    result = bench("cifar10-grid", "--data", tmp_path)
    assert result.exit_code == 2
    assert "--calibration PATH" in result.stderr
    assert "resources.gpus_per_worker=0" in result.stderr


def test_a_worker_that_this_machine_cannot_hold_is_not_measured(tmp_path: Path) -> None:
    result = bench("digits-grid", "--set", "resources.cpus_per_worker=5000", "--data", tmp_path)
    assert result.exit_code == 2
    assert "has 5000 CPUs; this machine has" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_calibration_that_could_not_be_kept_is_told_before_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "measure", lambda *arguments, **options: pytest.fail("measured in vain"))
    (tmp_path / FILE_NAME).write_text("{")
    assert bench("digits-grid", "--data", tmp_path).exit_code == 2
    (tmp_path / "file").write_text("")
    assert bench("digits-grid", "--data", tmp_path / "file" / "data").exit_code == 4


def test_a_width_that_does_not_fit_into_memory_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = speed.measure

    def limited(run: Any, *arguments: Any, **options: Any) -> speed.Speeds:
        if run.width == 4:
            raise speed.TooLargeError("width 4 does not fit")
        return measure(run, *arguments, **options)

    monkeypatch.setattr(speed, "measure", limited)
    result = bench("digits-grid", "--set", "widths=[2, 4]", "--data", tmp_path, *QUICK, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["widths"][1] == {"width": 4, "problem": "width 4 does not fit"}
    assert "width 4 does not fit" in result.stderr
    assert bench("digits-grid", "--set", "widths=[4]", "--data", tmp_path, *QUICK).exit_code == 4


def test_measuring_takes_each_speed_in_every_round_and_leaves_the_threads_as_they_were(tmp_path: Path) -> None:
    run = expand(load_space("digits-grid", ["widths=[2]", "recipe.micro_batch=16"]))[0]
    told: list[str] = []
    torch.set_num_threads(2)
    speeds = speed.measure(run, tmp_path, CPU, threads=1, rounds=3, seconds=0.001, tell=told.append)
    assert {len(taken) for taken in (speeds.step, speeds.forward, speeds.loader, speeds.both)} == {3}
    assert not speeds.jpegs
    names = [what.split(", ")[1] for what in told]
    assert names == ["step", "forward", "loader", "both"] * 4
    assert all(first != second for first, second in pairwise(told))
    assert torch.get_num_threads() == 2
