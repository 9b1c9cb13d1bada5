"""The one place that knows how the project trains: everything here goes by these few functions."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from search_spaces.recipe import Recipe
from search_spaces.runs import Run, expand
from search_spaces.spec import SearchSpace
from workers.batches import GivenLabels, MicroBatch
from workers.checkpoint import Engine, Spent, dump_checkpoint, load_checkpoint
from workers.member import Member
from workers.placement import Placement
from workers.stack import Stack, stacks_of

HAS_FFCV = find_spec("ffcv") is not None
SGD: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}


def make_run(dataset: str, architecture: str, width: int, *, samples: int, batch_size: int, precision: str) -> Run:
    """A run of one epoch by SGD with Nesterov momentum, on clean labels."""
    (run,) = make_runs(1, dataset, architecture, width, samples=samples, batch_size=batch_size, precision=precision)
    return run


def make_runs(
    count: int, dataset: str, architecture: str, width: int, *, samples: int, batch_size: int, precision: str
) -> list[Run]:
    """Such runs that can be one pack: they differ in their noise rate."""
    space = {
        "name": "bench-gpu",
        "dataset": {"name": dataset},
        "architecture": architecture,
        "axis": "width",
        "widths": width,
        "samples": samples,
        "noise": {"rates": [number / 100 for number in range(count)]},
        "recipe": SGD | {"learning_rate": 0.1, "batch_size": batch_size, "epochs": 1, "precision": precision},
    }
    return expand(SearchSpace.model_validate(space))


def ffcv_version() -> str:
    """As installed, or that it is not."""
    if not HAS_FFCV:
        return "not installed"
    try:
        return version("ffcv")
    except PackageNotFoundError:
        return "of no stated version"  # carried along as files


class Learner:
    """A run in training: the project's model, optimiser and step.

    Args:
        labels: int64[N] by index, on the device.
    """

    def __init__(self, run: Run, labels: Tensor, device: torch.device) -> None:
        assert isinstance(run.recipe, Recipe)
        self.run = run
        given = GivenLabels(labels, torch.zeros_like(labels, dtype=torch.bool), "", 0.0)
        self._stack = Stack([Member(run, given)], "sequential", device, Placement())

    @property
    def model(self) -> torch.nn.Module:
        return self._stack.model

    def step(self, inputs: Tensor, index: Tensor, rate: float) -> None:
        """One optimiser step on samples `index` at this learning rate."""
        count = len(index)
        self._stack.accumulate(MicroBatch(inputs, index, count, 1 / count, ends_step=True))
        self._stack.update(rate)

    def mean_loss(self) -> float:
        """Of the steps since the last call."""
        return self._stack.mean_batch_losses()[0]

    def save(self) -> bytes:
        """A checkpoint as a worker writes it."""
        return dump_checkpoint(self._stack.checkpoints(0, 0, Spent())[self.run.run_id])

    def restore(self, content: bytes) -> None:
        """Go on from a checkpoint as a worker does."""
        self._stack.restore({self.run.run_id: load_checkpoint(content, self.run)})


class PackLearner:
    """Runs in training on the same batches.

    Args:
        runs: of one pack.
        tables: the labels of each, int64[N] by index, on the device.
        fused: networks in one, at most; 1 for one after another.
        graphs: whether their steps are CUDA graphs.
        compile: whether networks go through torch.compile.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        tables: Sequence[Tensor],
        device: torch.device,
        *,
        fused: int = 1,
        graphs: bool = False,
        compile: bool = False,
    ) -> None:
        given = [GivenLabels(table, torch.zeros_like(table, dtype=torch.bool), "", 0.0) for table in tables]
        members = [Member(*each) for each in zip(runs, given, strict=True)]
        engine: Engine = "sequential" if fused == 1 else "fused"
        placement = Placement(engine=engine, fused=fused, cuda_graphs=graphs, compile=compile)
        self.stacks = stacks_of(members, engine, device, placement)
        self.models = len(members)

    @property
    def in_graphs(self) -> bool:
        """Whether graphs have been replayed, and for every network."""
        return all(stack.graphed is not None and stack.graphed.replays > 0 for stack in self.stacks)

    def step(self, inputs: Tensor, index: Tensor, rate: float) -> None:
        """One optimiser step of every run on samples `index` at this learning rate."""
        count = len(index)
        batch = MicroBatch(inputs, index, count, 1 / count, ends_step=True)
        for stack in self.stacks:
            stack.accumulate(batch)
        for stack in self.stacks:
            stack.update(rate)

    def mean_losses(self) -> list[float]:
        """Of each run, over the steps since the last call."""
        return [loss for stack in self.stacks for loss in stack.mean_batch_losses()]

    def states(self) -> list[dict[str, Tensor]]:
        """Of each run: weights, batch statistics and what the optimiser keeps; copies."""
        found = []
        for stack in self.stacks:
            for checkpoint in stack.checkpoints(0, 0, Spent()).values():
                state = {name: value.clone() for name, value in checkpoint.model.items()}
                for number, values in checkpoint.optimizer["state"].items():
                    state |= {f"{number}.{name}": v.clone() for name, v in values.items() if isinstance(v, Tensor)}
                found.append(state)
        return found
