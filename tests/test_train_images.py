"""CIFAR and ImageNet recipes on betons in the true format: colour images, augmentation, mixed precision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from search_spaces.catalog import load_space
from search_spaces.datasets import DATASETS
from search_spaces.runs import expand
from workers import quiet_ffcv as ffcv
from workers.betons import BetonError
from workers.schema import TIMING_COLUMNS
from workers.train import train_pack

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
TRAIN, TEST = 120, 60


class Samples(list[Any]):
    """What FFCV's writer takes."""


def write(folder: Path, name: str, mode: str, sides: tuple[int, int]) -> None:
    """Betons as FFCV's own scripts write them: coloured noise that is brighter where the label is higher."""
    random = np.random.default_rng(0)
    (folder / name).mkdir(parents=True)
    for part, count in (("train", TRAIN), ("test", TEST)):
        samples = Samples()
        for i in range(count):
            label = i % 10
            height, width = random.integers(*sides, 2, endpoint=True)
            image = random.integers(0, 30, (height, width, 3)) + 22 * label
            samples.append((image.astype(np.uint8), label))
        fields = {"image": ffcv.RGBImageField(write_mode=mode), "label": ffcv.IntField()}
        writer = ffcv.DatasetWriter(str(folder / name / f"{part}.beton"), fields, num_workers=1)
        writer.from_indexed_dataset(samples)


@pytest.fixture(scope="module")
def betons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("betons")
    write(folder, "cifar10", "raw", (32, 32))
    write(folder, "imagenet", "jpg", (50, 80))
    return folder


@pytest.fixture(autouse=True)
def _small_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cifar10", "imagenet"):
        small = replace(DATASETS[name], train_samples=TRAIN, test_samples=TEST, classes=10)
        monkeypatch.setitem(DATASETS, name, small)


def rows_of(space: str, folder: Path, *overrides: str) -> list[dict[str, Any]]:
    common = ["widths=[4]", "samples=100", "noise.rates=[0, 0.3]", "seeds=1", "dataset.validation_samples=20"]
    common += ["recipe.epochs=4", "recipe.batch_size=32", "recipe.warmup_epochs=0", "evaluation.first_epoch_points=1"]
    common += ["recipe.learning_rate=0.02"]
    runs = expand(load_space(space, [*common, *overrides]))
    progress = list(train_pack(runs, folder, CPU))
    assert sum(len(part.ended) for part in progress) == len(runs)
    return [
        {name: value for name, value in row.items() if name not in TIMING_COLUMNS}
        for part in progress
        for row in part.rows
    ]


@pytest.mark.parametrize("space", ["cifar10-grid", "cifar10-samples"])
def test_cifar_trains_with_its_own_recipe_and_repeats_itself(space: str, betons: Path) -> None:
    by_samples = ["samples=[100]", "recipe.precision=fp32"] if space == "cifar10-samples" else []
    rows = rows_of(space, betons, *by_samples)
    assert len(rows) == 2 * 5
    assert rows[-2]["train_loss_given"] < rows[0]["train_loss_given"]
    assert rows[-1]["memorised"] is not None
    assert 0 <= rows[-1]["val_error"] <= 1
    assert rows == rows_of(space, betons, *by_samples)


def test_imagenet_trains_on_jpegs_of_any_size_and_evaluates_a_part_of_the_train_set(betons: Path) -> None:
    rows = rows_of("imagenet-lite", betons, "dataset.resolution=32", "evaluation.train_samples=50")
    assert rows[-1]["epoch"] == 4
    assert rows[-2]["train_error_given"] in {i / 50 for i in range(51)}
    assert rows[-2]["batch_loss"] < rows[0]["batch_loss"]


def test_a_damaged_beton_is_refused_with_its_name(betons: Path, tmp_path: Path) -> None:
    (tmp_path / "cifar10").mkdir()
    for part in ("train", "test"):
        content = (betons / "cifar10" / f"{part}.beton").read_bytes()
        (tmp_path / "cifar10" / f"{part}.beton").write_bytes(content[: len(content) // 2])
    with pytest.raises(BetonError, match=r"train\.beton"):
        rows_of("cifar10-grid", tmp_path)
