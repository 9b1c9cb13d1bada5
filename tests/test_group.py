"""Training in a group: two real processes over gloo give what one gives, up to rounding, and see every sample once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.catalog import load_space
from search_spaces.runs import Run, expand
from tests.groups import in_group, train_together
from workers.batches import micro_batches
from workers.data import ImageData
from workers.group import ALONE, Group
from workers.placement import Placement
from workers.train import train_pack

CPU = torch.device("cpu")
SHORT = ("seeds=1", "widths=2", "noise.rates=[0, 0.4]", "dataset.validation_samples=501", "evaluation.points=4")


def runs_of(*overrides: str) -> list[Run]:
    return expand(load_space("digits-grid", (*SHORT, *overrides)))


@given(count=st.integers(0, 200), size=st.integers(1, 9))
def test_shares_follow_each_other_and_are_even(count: int, size: int) -> None:
    shares = [list(range(count))[Group(rank, size).share(count)] for rank in range(size)]
    assert [number for share in shares for number in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(samples=st.integers(1, 300), micro=st.integers(1, 20), times=st.integers(1, 5), skip=st.integers(0, 3))
def test_micro_batches_cover_every_batch_once_with_weights_that_sum_to_one(
    samples: int, micro: int, times: int, skip: int
) -> None:
    spans = list(micro_batches(samples, micro * times, micro, skip))
    covered = [position for span in spans for position in range(span.first, span.last)]
    assert covered == list(range(min(samples, skip * micro * times), samples))
    assert max((span.last - span.first for span in spans), default=0) <= micro
    weights, steps = 0.0, 0
    for span in spans:
        weights += span.weight * (span.last - span.first)
        if span.ends_step:
            assert weights == pytest.approx(1)
            weights, steps = 0.0, steps + 1
    assert steps == max(0, -(-samples // (micro * times)) - skip)
    assert weights == 0


def batches_of(group: Group, run: Run, folder: Path) -> list[list[int]]:
    data = ImageData(run, folder, CPU, Placement(group=group))
    return [batch.index.tolist() for batch in data.epoch(1)]


def test_processes_share_every_batch_without_overlap_in_the_order_of_one(data_folder: Path) -> None:
    (run, *_) = runs_of("recipe.batch_size=33", "samples=100")  # the last batch is of one sample
    whole = batches_of(ALONE, run, data_folder)
    assert [len(batch) for batch in whole] == [33, 33, 33, 1]
    parts = [batches_of(Group(rank, 2), run, data_folder) for rank in range(2)]
    assert [one + other for one, other in zip(*parts, strict=True)] == whole
    assert set(Counter(index for batch in whole for index in batch).values()) == {1}


def assert_close(rows: list[dict[str, Any]], expected: list[dict[str, Any]], tolerance: float) -> None:
    assert len(rows) == len(expected)
    for row, other in zip(rows, expected, strict=True):
        assert row.keys() == other.keys()
        for name, value in row.items():
            if isinstance(value, float):
                assert value == pytest.approx(other[name], rel=tolerance, abs=tolerance), name
            else:
                assert value == other[name], name


def alone(runs: list[Run], folder: Path) -> list[dict[str, Any]]:
    return train_together(ALONE, runs, folder)[0]


SGD = ("recipe.optimizer=sgd", "recipe.learning_rate=0.01")  # Adam divides by what is only rounding at first
TOGETHER = {
    "whole batches": runs_of("recipe.epochs=2", "recipe.batch_size=50", "samples=301", *SGD),  # the last is of one
    "micro-batches": runs_of(
        *("recipe.epochs=1", "recipe.batch_size=60", "recipe.micro_batch=15", "evaluation.train_samples=100", *SGD)
    ),
}
STOPPED = runs_of("recipe.epochs=2", "samples=128", "recipe.batch_size=48")


@pytest.fixture(scope="module")
def trained(data_folder: Path) -> list[dict[str, Any]]:
    """What each of two processes found, of one group for all tests: they take seconds to start."""
    return in_group(2, train_all, data_folder)


def train_all(group: Group, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {name: train_together(group, runs, folder)[0] for name, runs in TOGETHER.items()}
    found["whole"], _ = train_together(group, STOPPED, folder)
    found["before"], found["saved"] = train_together(group, STOPPED, folder, pause_at=1)
    found["after"], _ = train_together(group, STOPPED, folder, saved=group.told(found["saved"]))
    return found


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", TOGETHER)
def test_two_processes_give_the_metrics_of_one(name: str, trained: list[dict[str, Any]], data_folder: Path) -> None:
    of_first, of_second = (found[name] for found in trained)
    assert of_first == of_second, "every process holds the same metrics"
    assert_close(of_first, alone(TOGETHER[name], data_folder), 1e-4)


@pytest.mark.usefixtures("one_thread")
def test_a_group_that_was_stopped_goes_on_bitwise_and_on_one_process_too(
    trained: list[dict[str, Any]], data_folder: Path
) -> None:
    first, second = trained
    assert set(first["saved"]) == {run.run_id for run in STOPPED}
    assert second["saved"] == {}
    assert first["before"] + first["after"] == first["whole"]
    assert_close(train_together(ALONE, STOPPED, data_folder, saved=first["saved"])[0], first["after"], 1e-2)


def test_a_batch_that_processes_cannot_share_is_refused(data_folder: Path) -> None:
    (run, *_) = runs_of("recipe.batch_size=2")
    with pytest.raises(ValueError, match="3 processes cannot share 2 samples"):
        list(train_pack([run], data_folder, CPU, placement=Placement(group=Group(2, 3))))


def test_the_same_micro_batches_give_the_gradient_of_the_batch(data_folder: Path) -> None:
    """With batch norm left out of the picture (evaluation mode), accumulation is exact up to rounding."""
    from workers.member import Member
    from workers.stack import Stack

    gradients = []
    for micro in (None, 7):
        (run,) = runs_of(f"recipe.micro_batch={micro or 'null'}", "recipe.batch_size=28", "noise.rates=0.4")
        data = ImageData(run, data_folder, CPU)
        stack = Stack([Member(run, data.given(run))], "sequential", CPU, Placement())
        stack.model.eval()
        for batch in data.epoch(0):
            stack.accumulate(batch)
            if batch.ends_step:
                break
        gradients.append(np.concatenate([p.grad.flatten().numpy() for p in stack.model.parameters()]))  # type: ignore[union-attr]
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)
