"""The training loop: a pack gives what each of its runs alone gives, exactly, and says truthfully how it went."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from search_spaces.catalog import load_space
from search_spaces.runs import Run, expand
from search_spaces.spec import Recipe
from tests.poison import poison
from workers.metrics import Labelled, concatenate, predictions, train_metrics
from workers.optimization import build_optimizer, learning_rate
from workers.schema import ROW_COLUMNS, TIMING_COLUMNS
from workers.train import Progress, train_pack

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
SHORT = ("seeds=1", "widths=4", "recipe.epochs=3", "noise.rates=[0, 0.2, 0.4]", "evaluation.points=6")


def runs_of(*overrides: str, space: str = "digits-grid") -> list[Run]:
    return expand(load_space(space, (*SHORT, *overrides) if space == "digits-grid" else overrides))


def rows_by_run(progress: list[Progress]) -> dict[str, list[dict[str, Any]]]:
    """Rows of each run without what differs from one execution to the next."""
    found: dict[str, list[dict[str, Any]]] = {}
    for part in progress:
        for row in part.rows:
            found.setdefault(row["run_id"], []).append({k: v for k, v in row.items() if k not in TIMING_COLUMNS})
    return found


def test_a_pack_gives_bitwise_what_each_run_alone_gives(data_folder: Path) -> None:
    runs = runs_of()
    packed = rows_by_run(list(train_pack(runs, data_folder, CPU)))
    for run in runs:
        alone = rows_by_run(list(train_pack([run], data_folder, CPU)))
        assert alone[run.run_id] == packed[run.run_id]


def test_every_run_gets_all_its_rows_and_one_end(data_folder: Path) -> None:
    runs = runs_of()
    progress = list(train_pack(runs, data_folder, CPU))
    names = {column.name for column in ROW_COLUMNS} - {"attempt", "excess_risk"}
    for rows in [part.rows for part in progress]:
        assert [row["run_id"] for row in rows] == [run.run_id for run in runs]
        assert all(set(row) == names for row in rows)
    ends = [end for part in progress for end in part.ended]
    assert [end.run_id for end in ends] == [run.run_id for run in runs]
    assert {end.status for end in ends} == {"done"}
    assert [end.noise_rate_realised for end in ends] == [0, 0.2, 0.4]
    assert len({end.subset_hash for end in ends}) == 1
    assert len({end.mask_hash for end in ends}) == 3
    steps = [part.rows[0]["step"] for part in progress]
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (1, 24)
    assert [part.rows[0]["epoch"] for part in progress][-1] == 3
    assert progress[0].rows[0]["epoch"] == 64 / 500
    assert progress[-1].share_done == 1


def test_training_learns_and_the_shares_of_corrupted_examples_add_up(data_folder: Path) -> None:
    runs = runs_of("recipe.epochs=25", "widths=8", "noise.rates=[0, 0.4]", "evaluation.points=3")
    clean, noisy = list(train_pack(runs, data_folder, CPU))[-1].rows
    assert clean["test_error"] < 0.1
    assert clean["memorised"] is None
    assert clean["corrupted_loss_given"] is None
    assert clean["train_error_given"] == clean["train_error_true"] == clean["clean_error"]
    assert noisy["test_error"] > clean["test_error"] + 0.1
    assert noisy["memorised"] == pytest.approx(1 - noisy["corrupted_error_given"])
    assert noisy["memorised"] + noisy["recovered"] <= 1
    assert noisy["train_error_given"] == pytest.approx(
        0.6 * noisy["clean_error"] + 0.4 * noisy["corrupted_error_given"]
    )


def test_a_diverging_run_leaves_the_pack_and_the_others_are_untouched(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = runs_of()
    untouched = rows_by_run(list(train_pack(runs, data_folder, CPU)))
    poison(monkeypatch, lambda run, step: run.noise.rate == 0.2 and step == 5)
    progress = list(train_pack(runs, data_folder, CPU))
    status = {end.run_id: end.status for part in progress for end in part.ended}
    assert [status[run.run_id] for run in runs] == ["done", "diverged", "done"]
    rows = rows_by_run(progress)
    assert rows[runs[0].run_id] == untouched[runs[0].run_id]
    assert rows[runs[2].run_id] == untouched[runs[2].run_id]
    broken = rows[runs[1].run_id]
    assert len(broken) < len(untouched[runs[1].run_id])
    assert math.isnan(broken[-1]["train_loss_given"])


def test_a_space_without_validation_has_null_validation_columns(data_folder: Path) -> None:
    run = runs_of("dataset.validation_samples=0", "noise.rates=0", "recipe.epochs=1", "evaluation.points=2")
    row = list(train_pack(run, data_folder, CPU))[-1].rows[0]
    assert row["val_error"] is None
    assert row["val_loss"] is None
    assert 0 < row["test_error"] < 1


def test_labels_that_cannot_be_corrupted_raise(data_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("0\n1\n")
    runs = runs_of(f"noise={{model: file, file: {path}, rates: 0.2}}")
    with pytest.raises(ValueError, match="2"):
        list(train_pack(runs, data_folder, CPU))


def test_the_mixture_is_solved_exactly_and_its_rows_fit_the_schema(data_folder: Path) -> None:
    runs = runs_of("seeds=1", "ratios=[0.5, 4]", "noise.rates=[0, 0.2]", space="gmm-grid")
    for pack in (runs[:2], runs[2:]):
        (progress,) = train_pack(pack, data_folder, CPU)
        rows = rows_by_run([progress])
        clean, noisy = rows[pack[0].run_id], rows[pack[1].run_id]
        assert [row["epoch"] for row in noisy][-1] == math.inf
        assert clean[-1]["test_error"] < 1e-3
        assert noisy[-1]["test_error"] > clean[-1]["test_error"]
        assert noisy[-1]["excess_risk"] == pytest.approx(noisy[-1]["test_error"], abs=1e-12)
        known = {column.name for column in ROW_COLUMNS}
        assert all(set(row) <= known for row in noisy)
    assert noisy[-1]["train_error_given"] == 0
    assert noisy[-1]["memorised"] == 1


# -- the parts --------------------------------------------------------------------------------------------------------


def test_metrics_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0], [2.0, 0.0, 0.0]])
    given = torch.tensor([0, 1, 0, 1])
    true = torch.tensor([0, 0, 2, 2])
    parts = [predictions(logits[span], given[span], true[span]) for span in (slice(3), slice(3, None))]
    metrics = train_metrics(Labelled(concatenate(parts, CPU), given, true))
    right, wrong = math.log(math.exp(2) + 2) - 2, math.log(math.exp(2) + 2)
    assert metrics["train_error_given"] == 0.5
    assert metrics["train_error_true"] == 0.5
    assert metrics["clean_error"] == 0
    assert metrics["clean_loss"] == pytest.approx(right)
    assert metrics["corrupted_error_given"] == pytest.approx(2 / 3)
    assert metrics["memorised"] == pytest.approx(1 / 3)
    assert metrics["recovered"] == pytest.approx(1 / 3)
    assert metrics["train_loss_given"] == pytest.approx((2 * right + 2 * wrong) / 4)
    assert metrics["corrupted_loss_given"] == pytest.approx((right + 2 * wrong) / 3)


def test_the_learning_rate_warms_up_and_falls_along_a_cosine() -> None:
    recipe = Recipe(optimizer="sgd", learning_rate=1, schedule="cosine", warmup_epochs=1, batch_size=10, epochs=5)
    rates = [learning_rate(recipe, step, 10, 50) for step in range(1, 51)]
    assert rates[:10] == pytest.approx(np.linspace(0.1, 1, 10))
    assert rates[10] == 1
    assert rates[30] == pytest.approx(0.5)
    assert 0 < rates[-1] < 0.01
    constant = Recipe(optimizer="adam", learning_rate=0.5, batch_size=10, epochs=5)
    assert {learning_rate(constant, step, 10, 50) for step in (1, 25, 50)} == {0.5}


def test_batch_norm_and_biases_can_be_left_out_of_weight_decay() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))
    everything = Recipe(optimizer="sgd", learning_rate=1, weight_decay=0.1, batch_size=1, epochs=1)
    assert [len(group["params"]) for group in build_optimizer(model, everything).param_groups] == [5]
    weights_only = everything.model_copy(update={"decay_batch_norm": False})
    groups = build_optimizer(model, weights_only).param_groups
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(2, 0.1), (3, 0.0)]
