"""The two engines: a run is its own whichever runs are beside it, and the engines differ by rounding alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from search_spaces.catalog import load_space
from search_spaces.recipe import Recipe
from search_spaces.runs import Run, expand
from tests.poison import poison
from workers.batches import GivenLabels, MicroBatch
from workers.checkpoint import Checkpoint, Engine, Spent, dump_checkpoint, load_checkpoint
from workers.flat_optimizer import FlatOptimizer
from workers.member import Member, RunEnd
from workers.optimization import build_optimizer
from workers.placement import Placement
from workers.resnet import Heads, build_model
from workers.schema import TIMING_COLUMNS
from workers.stack import Stack, can_fuse, count_models, stack_sizes
from workers.stacking import part_of, stacked
from workers.train import train_pack

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
SGD = (
    *("recipe.optimizer=sgd", "recipe.momentum=0.9", "recipe.nesterov=true", "recipe.learning_rate=0.05"),
    *("recipe.schedule=cosine", "recipe.weight_decay=0.01", "recipe.decay_batch_norm=false"),
)
SHORT = (
    *("seeds=1", "samples=128", "recipe.batch_size=48", "recipe.epochs=3", "evaluation.points=4"),
    f"noise.rates={[number / 20 for number in range(16)]}",
)
"""16 runs that make one pack, of three steps an epoch."""
Rows = dict[str, list[dict[str, Any]]]


def runs_of(*overrides: str) -> list[Run]:
    return expand(load_space("digits-grid", ("widths=3", *SHORT, *overrides)))


def fused(most: int = 16) -> Placement:
    return Placement(engine="fused", fused=most)


def train(
    runs: Sequence[Run], folder: Path, placement: Placement, resume: dict[str, Checkpoint] | None = None
) -> tuple[Rows, list[RunEnd]]:
    rows: Rows = {}
    ends: list[RunEnd] = []
    for progress in train_pack(runs, folder, CPU, placement=placement, resume=resume):
        for row in progress.rows:
            rows.setdefault(row["run_id"], []).append({k: v for k, v in row.items() if k not in TIMING_COLUMNS})
        ends += progress.ended
    return rows, ends


@pytest.fixture(scope="module", params=["fused adam", "fused sgd", "sequential sgd"])
def sixteen(request: pytest.FixtureRequest, data_folder: Path) -> tuple[list[Run], Rows, Engine]:
    """What 16 runs in one pack give, by an engine and an optimiser."""
    engine, optimizer = request.param.split()
    runs = runs_of(*(SGD if optimizer == "sgd" else ()))
    rows, ends = train(runs, data_folder, Placement(engine=engine, fused=16))
    assert {end.engine for end in ends} == {engine}
    return runs, rows, engine


# -- one engine, packs of any size ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "size", "most"), [(0, 1, 16), (15, 1, 16), (3, 2, 2), (11, 5, 16), (2, 5, 2)])
def test_runs_give_bitwise_the_same_in_packs_of_any_size(
    first: int, size: int, most: int, sixteen: tuple[list[Run], Rows, Engine], data_folder: Path
) -> None:
    runs, expected, engine = sixteen
    rows, _ = train(runs[first : first + size], data_folder, Placement(engine=engine, fused=most))
    assert rows == {run.run_id: expected[run.run_id] for run in runs[first : first + size]}


def test_members_go_on_from_checkpoints_in_other_packs_by_the_engine_that_they_began_with(
    sixteen: tuple[list[Run], Rows, Engine], data_folder: Path
) -> None:
    runs, expected, engine = sixteen
    other: Engine = "sequential" if engine == "fused" else "fused"
    five = runs[4:9]
    steps = iter(range(1, 100))
    placement = Placement(engine=engine, fused=16)
    training = train_pack(five, data_folder, CPU, placement=placement, pause=lambda: next(steps) == 5)
    rows: Rows = {}
    saved: dict[str, bytes] = {}
    for progress in training:
        for row in progress.rows:
            rows.setdefault(row["run_id"], []).append({k: v for k, v in row.items() if k not in TIMING_COLUMNS})
        if not progress.rows:
            saved = progress.checkpoints()
            break
    training.close()  # type: ignore[attr-defined]
    for part in (five[:1], five[1:]):
        resume = {run.run_id: load_checkpoint(saved[run.run_id], run) for run in part}
        later, ends = train(part, data_folder, Placement(engine=other, fused=2), resume)
        assert {end.engine for end in ends} == {engine}
        for run in part:
            assert rows[run.run_id] + later[run.run_id] == expected[run.run_id]


def test_a_diverging_member_leaves_the_pack_and_the_others_are_untouched(
    sixteen: tuple[list[Run], Rows, Engine], data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, expected, engine = sixteen
    poison(monkeypatch, lambda run, step: run.noise.rate == 0.1 and step == 3)
    rows, ends = train(runs[:3], data_folder, Placement(engine=engine, fused=16))
    assert [(end.run_id, end.status) for end in ends] == [
        (runs[2].run_id, "diverged"),
        (runs[0].run_id, "done"),
        (runs[1].run_id, "done"),
    ]
    assert math.isnan(rows[runs[2].run_id][-1]["train_loss_given"])
    assert [rows[run.run_id] for run in runs[:2]] == [expected[run.run_id] for run in runs[:2]]


def test_members_stop_early_one_by_one(data_folder: Path) -> None:
    stop = "recipe.early_stop={train_error: 0.3, evaluations: 2, tolerance: 0.9}"
    runs = runs_of(stop, "recipe.epochs=14", "evaluation.points=14", "widths=8", "recipe.learning_rate=0.01")[:3]
    together, ends = train(runs, data_folder, fused())
    assert len({end.evaluations for end in ends}) > 1, "they should not all stop at once"
    for run in runs:
        assert train([run], data_folder, fused())[0] == {run.run_id: together[run.run_id]}


# -- every architecture, in training and evaluation -------------------------------------------------------------------

SPACES = {
    "tiny-resnet": ("digits-grid", ("widths=12",)),
    "cifar-resnet18": ("cifar10-grid", ("widths=2", "recipe.precision=fp32")),
    "cifar-resnet18 in bf16": ("cifar10-grid", ("widths=4",)),
    "resnet18": ("imagenet-grid", ("widths=2", "recipe.precision=fp32", "architecture=resnet18")),
    "resnet50": ("imagenet-grid", ("widths=2", "recipe.precision=fp32", "architecture=resnet50")),
}
BATCH, STEPS = 6, 2


class Synthetic:
    """Runs of a space, with random images and labels for a few steps."""

    def __init__(self, space: str, overrides: Sequence[str]) -> None:
        rates = f"noise.rates={[number / 20 for number in range(5)]}"
        small = ("dataset.resolution=64",) if space == "imagenet-grid" else ()
        self.runs = expand(load_space(space, (rates, "seeds=1", "resources.gpus_per_worker=0", *small, *overrides)))
        facts, side = self.runs[0].dataset.described, self.runs[0].dataset.input_resolution
        random = torch.Generator().manual_seed(0)
        shape = (STEPS * BATCH, facts.channels, side, side)
        self.images = torch.randn(shape, generator=random).to(memory_format=torch.channels_last)
        self.labels = torch.randint(facts.classes, (len(self.runs), STEPS * BATCH), generator=random)

    def train(self, numbers: Sequence[int], engine: Engine, steps: int = STEPS) -> tuple[Stack, Tensor]:
        """A stack of these runs after a few steps, and its logits in evaluation, [members, batch, classes]."""
        nothing = torch.zeros(1, dtype=torch.bool)
        members = [Member(self.runs[k], GivenLabels(self.labels[k], nothing, "", 0.0)) for k in numbers]
        stack = Stack(members, engine, CPU, Placement())
        for step in range(steps):
            index = torch.arange(step * BATCH, (step + 1) * BATCH)
            stack.accumulate(MicroBatch(self.images[index], index, BATCH, 1 / BATCH, ends_step=True))
            stack.update(0.01)
        stack.model.eval()
        with torch.inference_mode():
            return stack, stack.logits(self.images[:BATCH])


@pytest.mark.parametrize("name", SPACES)
def test_every_architecture_is_bitwise_the_same_in_packs_of_any_size(name: str) -> None:
    data = Synthetic(*SPACES[name])
    five, logits = data.train(range(5), "fused")
    saved = five.checkpoints(0, 0, Spent())
    for numbers in ([3], [4, 1]):
        stack, own = data.train(numbers, "fused")
        assert torch.equal(own, logits[numbers])
        for run_id, checkpoint in stack.checkpoints(0, 0, Spent()).items():
            assert_same(checkpoint.model, saved[run_id].model)
            assert_same(checkpoint.optimizer, saved[run_id].optimizer)


@pytest.mark.parametrize("name", [name for name in SPACES if "bf16" not in name])
def test_a_fused_run_starts_as_the_lone_run_does(name: str) -> None:
    """Before the first step nothing but the kernels differ; gradients and metrics then are those of the lone run."""
    data = Synthetic(*SPACES[name])
    together, logits = data.train(range(5), "fused", steps=1)
    for number in (0, 4):
        lone, own = data.train([number], "sequential", steps=1)
        assert together.loss_sums[number].item() == pytest.approx(lone.loss_sums[0].item(), rel=1e-5)
        np.testing.assert_allclose(logits[number], own[0], rtol=1e-2, atol=1e-2 * own.abs().max().item())
        network = together.network_of(number)
        with torch.inference_mode():
            np.testing.assert_allclose(network(data.images[:BATCH]), logits[number], rtol=1e-3, atol=1e-4)


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


# -- the engines against each other -----------------------------------------------------------------------------------


def test_engines_drift_apart_by_rounding_over_an_epoch(data_folder: Path) -> None:
    runs = runs_of(*SGD, "recipe.epochs=1", "evaluation.points=3")[:4]
    (packed, _), (alone, _) = (train(runs, data_folder, each) for each in (fused(), Placement()))
    for run in runs:
        for one, other in zip(packed[run.run_id], alone[run.run_id], strict=True):
            tolerance = 1e-6 if one["step"] == 1 else 1e-3
            assert one["batch_loss"] == pytest.approx(other["batch_loss"], rel=tolerance)
            assert one["test_loss"] == pytest.approx(other["test_loss"], rel=1e-3)


def test_final_errors_of_packed_and_lone_runs_do_not_differ(data_folder: Path) -> None:
    """Thirty pairs after rounding has grown into other trajectories: the mean difference is noise."""
    space = ("samples=200", "recipe.batch_size=50", "recipe.epochs=9", "evaluation.points=2", "widths=4")
    rates = "noise.rates=[0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45]"
    runs = expand(load_space("digits-grid", (*space, rates, "seeds=3")))
    packs = [runs[start : start + 10] for start in range(0, len(runs), 10)]
    found: dict[Engine, Rows] = {"fused": {}, "sequential": {}}
    for engine, rows in found.items():
        for pack in packs:
            rows |= train(pack, data_folder, Placement(engine=engine, fused=5))[0]
    differences = np.array(
        [
            found["fused"][run.run_id][-1]["test_error"] - found["sequential"][run.run_id][-1]["test_error"]
            for run in runs
        ]
    )
    assert len(differences) == 30
    assert np.any(differences), "rounding should have grown into other trajectories by now"
    assert abs(differences.mean()) <= 3.5 * differences.std(ddof=1) / math.sqrt(len(differences))
    assert abs(differences.mean()) < 0.02


def test_some_runs_are_not_fused() -> None:
    (run,) = runs_of("noise.rates=0")
    assert can_fuse(run, Placement())
    (half,) = runs_of("noise.rates=0", "recipe.precision=fp16")
    assert not can_fuse(half, Placement())
    (deep,) = runs_of("noise.rates=0", "architecture=cifar-resnet18")
    assert not can_fuse(deep, Placement()), "8 pixels, halved three times, are one"
    (lone,) = runs_of("noise.rates=0", "samples=97")
    assert not can_fuse(lone, Placement()), "two batches of 48, and one of a single sample"


# -- the parts --------------------------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(2, 16))
def test_stacks_hold_every_member_once_and_leave_none_alone(members: int, most: int) -> None:
    sizes = stack_sizes(members, most)
    assert sum(sizes) == members
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= max(most, 3)
    assert min(sizes) >= 2 or members == 1


@pytest.mark.parametrize(
    ("width", "members", "models"), [(2, 1, 4), (2, 5, 8), (3, 1, 8), (12, 3, 4), (16, 3, 3), (64, 1, 2)]
)
def test_models_fill_the_vectors_of_a_cpu(width: int, members: int, models: int) -> None:
    (run,) = runs_of("noise.rates=0", f"widths={width}")
    assert count_models(run, members, CPU) == models
    assert count_models(run, members, torch.device("cuda")) == max(2, members)


@pytest.mark.parametrize(("inputs", "classes", "batch"), [(6, 10, 48), (13, 3, 64), (32, 100, 2)])
def test_a_head_gives_and_learns_the_same_wherever_its_model_stands(inputs: int, classes: int, batch: int) -> None:
    """On some processors, libraries round otherwise for a matrix that does not begin with a cache line."""
    torch.manual_seed(0)
    features, grown = torch.randn(batch, inputs), torch.randn(batch, classes)
    weight, bias = torch.randn(classes, inputs), torch.randn(classes)

    def logits_and_gradients(models: int) -> tuple[Tensor, ...]:
        heads = Heads(models, inputs, classes)
        heads.load_state_dict({"weight": weight.repeat(models, 1), "bias": bias.repeat(models)})
        seen = features.repeat(1, models).requires_grad_()
        logits = heads(seen)
        (logits * grown).sum().backward()
        gradients = (heads.weight.grad, heads.bias.grad, seen.grad.T)  # type: ignore[union-attr]
        return logits, *(each.reshape(models, -1) for each in gradients)  # type: ignore[union-attr]

    alone = [each[0] for each in logits_and_gradients(2)]
    for models in (2, 5, 16):
        for found, expected in zip(logits_and_gradients(models), alone, strict=True):
            assert all(torch.equal(each, expected) for each in found)


def test_states_come_out_of_a_stack_as_they_went_in() -> None:
    states = [
        {
            "a": torch.full((2, 3), float(k)),
            "steps": torch.tensor(7),
            "groups": [{"lr": 0.1}],
            "b": {"c": torch.ones(1) * k},
        }
        for k in range(3)
    ]
    whole = stacked(states)
    assert whole["a"].shape == (6, 3)
    for number, state in enumerate(states):
        assert_same(part_of(whole, number, 3), state)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_a_flat_optimizer_steps_as_torchs_own_and_has_its_state_dict(name: str) -> None:
    recipe = runs_of(*(SGD if name == "sgd" else ("recipe.weight_decay=0.01",)))[0].recipe
    assert isinstance(recipe, Recipe)
    models = [build_model("tiny-resnet", 5, classes=10, channels=1, seed=0) for _ in range(2)]
    flat, plain = FlatOptimizer(models[0], recipe), build_optimizer(models[1], recipe)
    optimizers: tuple[Any, ...] = (flat, plain)
    images, labels = torch.randn(8, 1, 8, 8), torch.arange(8)

    def step() -> None:
        for model, optimizer in zip(models, optimizers, strict=True):
            torch.nn.functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()

    step()
    step()
    ours, theirs = flat.state_dict(), plain.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys()
    for number, state in theirs["state"].items():
        assert ours["state"][number].keys() == state.keys()
        for key, value in state.items():
            torch.testing.assert_close(ours["state"][number][key], value)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)

    again = FlatOptimizer(build_model("tiny-resnet", 5, classes=10, channels=1, seed=0), recipe)
    assert again.state_dict()["state"] == {}
    again.load_state_dict(theirs)
    assert_same(again.state_dict()["state"], theirs["state"])


def test_a_checkpoint_of_a_member_is_as_small_as_that_of_a_lone_run() -> None:
    data = Synthetic("digits-grid", ("widths=8",))
    sizes = []
    for engine, numbers in (("fused", range(5)), ("sequential", [0])):
        stack, _ = data.train(numbers, engine)  # type: ignore[arg-type]
        sizes.append(len(dump_checkpoint(stack.checkpoints(0, 0, Spent())[data.runs[0].run_id])))
    assert sizes[0] <= 1.05 * sizes[1]
