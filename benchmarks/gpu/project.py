"""The one place that knows how the project trains: everything here goes by these few functions."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from search_spaces.recipe import Recipe
from search_spaces.runs import Run, expand
from search_spaces.spec import SearchSpace
from workers.batches import GivenLabels, MicroBatch
from workers.checkpoint import Spent, dump_checkpoint, load_checkpoint
from workers.member import Member
from workers.placement import Placement

HAS_FFCV = find_spec("ffcv") is not None
SGD: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}


def make_run(dataset: str, architecture: str, width: int, *, samples: int, batch_size: int, precision: str) -> Run:
    """A run of one epoch by SGD with Nesterov momentum, on clean labels."""
    space = {
        "name": "bench-gpu",
        "dataset": {"name": dataset},
        "architecture": architecture,
        "axis": "width",
        "widths": width,
        "samples": samples,
        "noise": {"rates": 0},
        "recipe": SGD | {"learning_rate": 0.1, "batch_size": batch_size, "epochs": 1, "precision": precision},
    }
    (run,) = expand(SearchSpace.model_validate(space))
    return run


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
        self._member = Member(run, run.recipe, given, device, Placement())

    @property
    def model(self) -> torch.nn.Module:
        return self._member.model

    def step(self, inputs: Tensor, index: Tensor, rate: float) -> None:
        """One optimiser step on samples `index` at this learning rate."""
        count = len(index)
        self._member.accumulate(MicroBatch(inputs, index, count, 1 / count, ends_step=True))
        self._member.update(rate)

    def mean_loss(self) -> float:
        """Of the steps since the last call."""
        return self._member.mean_batch_loss()

    def save(self) -> bytes:
        """A checkpoint as a worker writes it."""
        return dump_checkpoint(self._member.checkpoint(0, 0, Spent()))

    def restore(self, content: bytes) -> None:
        """Go on from a checkpoint as a worker does."""
        self._member.restore(load_checkpoint(content, self.run))
