"""What a recipe may say beyond the plain one: precision, batches, early stop, and evaluation on a part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from search_spaces.catalog import SpaceError, load_space
from search_spaces.recipe import EarlyStop, Recipe
from search_spaces.runs import Run, expand
from search_spaces.schedule import count_evaluations, least_evaluations
from tests.groups import train_together
from workers.checkpoint import load_checkpoint
from workers.early_stop import Watch
from workers.group import ALONE
from workers.optimization import gradient_scaler, learning_rate
from workers.placement import Placement
from workers.train import train_pack

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
SHORT = ("seeds=1", "widths=4", "recipe.epochs=3", "noise.rates=0.4", "evaluation.points=4")


def runs_of(*overrides: str) -> list[Run]:
    return expand(load_space("digits-grid", (*SHORT, *overrides)))


def rows_of(folder: Path, *overrides: str) -> list[dict[str, Any]]:
    return train_together(ALONE, runs_of(*overrides), folder)[0]


# -- learning rate ----------------------------------------------------------------------------------------------------


def test_the_learning_rate_grows_with_the_batch_where_its_own_batch_is_given() -> None:
    given: Any = {"optimizer": "sgd", "learning_rate": 0.1, "epochs": 1}
    assert Recipe(**given, batch_size=1024, learning_rate_batch=256).scaled_learning_rate == pytest.approx(0.4)
    assert Recipe(**given, batch_size=1024).scaled_learning_rate == 0.1
    assert learning_rate(Recipe(**given, batch_size=64, learning_rate_batch=256), 1, 10, 10) == pytest.approx(0.025)


def test_imagenet_spaces_follow_the_rule_of_0_1_per_256() -> None:
    for name, rate in (("imagenet-grid", 0.4), ("imagenet-lite", 0.2)):
        recipe = load_space(name).recipe
        assert isinstance(recipe, Recipe)
        assert recipe.scaled_learning_rate == pytest.approx(rate)


# -- precision --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains_like_full_precision(precision: str, data_folder: Path) -> None:
    sgd = ("recipe.optimizer=sgd", "recipe.learning_rate=0.05")
    full, mixed = (rows_of(data_folder, *sgd, f"recipe.precision={each}") for each in ("fp32", precision))
    for name in ("batch_loss", "train_loss_given", "test_loss"):
        assert [row[name] for row in mixed] == pytest.approx([row[name] for row in full], rel=0.05)
    assert [row["batch_loss"] for row in mixed] != [row["batch_loss"] for row in full]


def test_the_loss_scale_of_fp16_goes_into_checkpoints(data_folder: Path) -> None:
    runs = runs_of("recipe.precision=fp16", "noise.rates=[0, 0.4]")
    assert isinstance(runs[0].recipe, Recipe)
    whole, _ = train_together(ALONE, runs, data_folder)
    before, saved = train_together(ALONE, runs, data_folder, pause_at=2)
    assert load_checkpoint(saved[runs[0].run_id], runs[0]).scaler == gradient_scaler(
        runs[0].recipe, CPU
    ).state_dict() | {"_growth_tracker": 2}
    after, _ = train_together(ALONE, runs, data_folder, saved=saved)
    assert before + after == whole


def test_no_other_precision_scales() -> None:
    for precision in ("fp32", "bf16"):
        recipe = Recipe(optimizer="sgd", learning_rate=1, batch_size=1, epochs=1, precision=precision)  # type: ignore[arg-type]
        assert gradient_scaler(recipe, CPU).state_dict() == {}


def test_a_compiled_network_trains_like_the_plain_one(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a backend that traces but does not generate code, which would take a minute."""
    runs = runs_of("recipe.epochs=1", "evaluation.points=2", "recipe.optimizer=sgd")
    plain = [row for progress in train_pack(runs, data_folder, CPU) for row in progress.rows]
    traced: list[nn.Module] = []

    def compile_quickly(model: nn.Module) -> Any:
        traced.append(model)
        return real_compile(model, backend="aot_eager")

    real_compile = torch.compile
    monkeypatch.setattr(torch, "compile", compile_quickly)
    progress = list(train_pack(runs, data_folder, CPU, placement=Placement(compile=True)))
    assert len(traced) == len(runs)
    for row, expected in zip([row for part in progress for row in part.rows], plain, strict=True):
        assert row["train_loss_given"] == pytest.approx(expected["train_loss_given"], rel=1e-3)


# -- early stop -------------------------------------------------------------------------------------------------------


def watch_of(errors: list[tuple[float, float]], **rule: float) -> list[bool]:
    watch = Watch(EarlyStop(**rule))  # type: ignore[arg-type]
    said = []
    for train, validation in errors:
        watch.add({"train_error_given": train, "val_error": validation})
        said.append(watch.says_stop)
    return said


def test_a_run_stops_once_it_interpolates_and_its_validation_error_is_flat() -> None:
    rule = {"train_error": 0.01, "evaluations": 3, "tolerance": 0.02}
    flat = [(0.0, 0.30), (0.01, 0.31), (0.0, 0.32), (0.0, 0.35)]
    assert watch_of(flat, **rule) == [False, False, True, False]
    assert watch_of([(0.02, 0.3)] * 5, **rule) == [False] * 5, "it does not interpolate"
    assert watch_of([(0.5, 0.3), (0.0, 0.3), (0.0, 0.3), (0.0, 0.3)], **rule) == [False, False, False, True]
    assert not Watch(None).says_stop


EARLY = ("recipe.early_stop={train_error: 0.99, evaluations: 3, tolerance: 0.99}", "evaluation.points=8")


def test_a_run_that_stops_early_is_done_and_another_run_than_one_that_goes_on(data_folder: Path) -> None:
    (stopping,), (going,) = runs_of(*EARLY), runs_of("evaluation.points=8")
    assert stopping.run_id != going.run_id
    progress = list(train_pack([stopping], data_folder, CPU))
    (end,) = progress[-1].ended
    assert (end.status, end.evaluations) == ("done", 3)
    whole = rows_of(data_folder, "evaluation.points=8")
    stopped = rows_of(data_folder, *EARLY)
    assert [row | {"run_id": ""} for row in stopped] == [row | {"run_id": ""} for row in whole[:3]]
    least = least_evaluations(stopping.recipe, stopping.evaluation, stopping.samples)
    assert least == 3 < count_evaluations(stopping.recipe, stopping.evaluation, stopping.samples)


def test_a_resumed_run_stops_where_it_would_have(data_folder: Path) -> None:
    runs = runs_of(*EARLY)
    whole, _ = train_together(ALONE, runs, data_folder)
    before, saved = train_together(ALONE, runs, data_folder, pause_at=2)
    assert len(load_checkpoint(saved[runs[0].run_id], runs[0]).watched) == len(before) > 0
    after, _ = train_together(ALONE, runs, data_folder, saved=saved)
    assert before + after == whole


def test_bad_batches_and_stops_are_refused_all_at_once() -> None:
    with pytest.raises(SpaceError) as refused:
        load_space("digits-grid", ["recipe.early_stop.tolerance=2", "recipe.learning_rate_batch=0"])
    for part in ("early_stop.tolerance", "learning_rate_batch"):
        assert part in str(refused.value)
    with pytest.raises(SpaceError, match="micro_batch 7: must divide batch_size 64"):
        load_space("digits-grid", ["recipe.micro_batch=7"])
    with pytest.raises(SpaceError, match=r"set dataset\.validation_samples"):
        load_space("digits-grid", ["recipe.early_stop={}", "dataset.validation_samples=0"])


# -- evaluation on a part of the train set ----------------------------------------------------------------------------


def test_corrupted_examples_are_all_evaluated_though_the_train_set_is_a_part(data_folder: Path) -> None:
    overrides = ("noise.rates=[0, 0.2, 0.4]", "recipe.epochs=2", "evaluation.points=3")
    whole = rows_of(data_folder, *overrides)
    part = rows_of(data_folder, *overrides, "evaluation.train_samples=60")
    for row, expected in zip(part, whole, strict=True):
        for name in ("memorised", "recovered", "corrupted_loss_given", "corrupted_error_given"):
            assert row[name] == (None if expected[name] is None else pytest.approx(expected[name], rel=1e-5)), name
        assert row["train_error_given"] * 60 == pytest.approx(round(row["train_error_given"] * 60))
        assert row["test_loss"] == pytest.approx(expected["test_loss"], rel=1e-5)


def test_a_pack_gives_bitwise_what_each_run_alone_gives_on_a_part_too(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.evaluation.EVALUATION_BATCH", 32)
    runs = runs_of("noise.rates=[0.1, 0.2, 0.4]", "evaluation.train_samples=60", "recipe.epochs=1")
    packed, _ = train_together(ALONE, runs, data_folder)
    for run in runs:
        alone, _ = train_together(ALONE, [run], data_folder)
        assert alone == [row for row in packed if row["run_id"] == run.run_id]
