"""How a run is trained and when it is evaluated: everything here is part of its identity."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from search_spaces.frozen import Frozen


class EarlyStop(Frozen):
    """End a run once it interpolates and nothing changes any more: over the last few evaluations the train error on
    given labels stayed at or below `train_error`, and the validation error within `tolerance`.

    Test samples have no say in it. Saves the rest of a long schedule; a run that is still being fitted is not touched.
    """

    train_error: float = Field(default=0.01, ge=0, lt=1)
    evaluations: int = Field(default=10, ge=2)
    tolerance: float = Field(default=0.005, ge=0, lt=1)
    """Largest minus smallest validation error that still counts as flat."""


class Recipe(Frozen):
    """Minibatch training.

    The effective batch is `batch_size` on any number of GPUs, and batch norm sees the same samples together, so that
    the number of GPUs is no part of a run's identity.
    """

    optimizer: Literal["sgd", "adam"]
    learning_rate: float = Field(gt=0)
    learning_rate_batch: int | None = Field(default=None, ge=1)
    """Where set, `learning_rate` is that of a batch of so many samples, and grows in proportion to `batch_size`
    (Goyal et al. 2017, arXiv 1706.02677, section 2.1)."""
    momentum: float = Field(default=0.0, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=0.0, ge=0)
    decay_batch_norm: bool = True
    """Whether weight decay covers batch norm and biases too."""
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_epochs: float = Field(default=0.0, ge=0)
    batch_size: int = Field(ge=1)
    micro_batch: int | None = Field(default=None, ge=1)
    """Samples that go through the network at once, over all GPUs; gradients add up to those of the batch, batch norm
    sees a micro-batch. The whole batch where not set. For batches that memory does not hold."""
    epochs: int = Field(ge=1)
    augmentation: Literal["none", "crop-flip", "resized-crop-flip"] = "none"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of autocast; fp16 scales the loss so that small gradients survive."""
    early_stop: EarlyStop | None = None
    shared_stream: bool = False
    """All seeds train on the same subset, in the same order, with the same augmentation; they then differ in their
    initialisation and label noise only, and pack together. Not for estimating the variance over data order."""

    def identity(self) -> dict[str, Any]:
        """What can change a result. Runs from before there was `shared_stream` keep their ids."""
        return self.model_dump(mode="json", exclude=None if self.shared_stream else {"shared_stream"})

    @property
    def scaled_learning_rate(self) -> float:
        """The peak learning rate for this batch size."""
        return self.learning_rate * self.batch_size / (self.learning_rate_batch or self.batch_size)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        if self.optimizer == "adam" and (self.momentum or self.nesterov):
            problems.append("`momentum` and `nesterov` belong to sgd: remove them, or set optimizer to sgd")
        if self.nesterov and not self.momentum:
            problems.append("`nesterov` needs a `momentum` above 0")
        if self.warmup_epochs >= self.epochs:
            problems.append(f"warmup_epochs {self.warmup_epochs:g}: must be below epochs {self.epochs}")
        if self.micro_batch and self.batch_size % self.micro_batch:
            problems.append(f"micro_batch {self.micro_batch}: must divide batch_size {self.batch_size}")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class FlowRecipe(Frozen):
    """Exact gradient flow of least squares from zero, between two times, and its limit at infinity."""

    optimizer: Literal["gradient-flow"]
    first_time: float = Field(default=1e-3, gt=0)
    last_time: float = Field(default=1e3, gt=0)

    def identity(self) -> dict[str, Any]:
        """What can change a result."""
        return self.model_dump(mode="json")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.first_time >= self.last_time:
            raise ValueError(f"first_time {self.first_time:g}: must be below last_time {self.last_time:g}")
        return self


class Evaluation(Frozen):
    """When a run is evaluated: at log-spaced steps, or after each epoch and a few times inside the first."""

    spacing: Literal["log", "epoch"] = "log"
    points: int = Field(default=32, ge=2)
    """Log-spaced evaluations wanted (fewer where steps coincide)."""
    first_epoch_points: int = Field(default=4, ge=0)
    """Extra log-spaced evaluations inside epoch one, with `spacing: epoch`."""
    train_samples: int | None = Field(default=None, ge=1)
    """Evaluate the train error on this many (and all corrupted) examples; all where not set."""
