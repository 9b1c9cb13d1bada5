"""The search space as a validated, frozen object: what a YAML file may say, and nothing else.

Everything that can change a result is in `DatasetChoice`, `Noise`, `Recipe` and `Evaluation`; `Resources`,
`Priority` and `Analysis` say where and when runs go and how the diagram is read, and are no part of a run's identity.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from search_spaces.architectures import LinearShape, shape_of
from search_spaces.datasets import Dataset, dataset_of
from search_spaces.selectors import parse_selector

NoiseModel = Literal["symmetric", "symmetric_incl", "pair", "asym", "matrix", "file"]


def _as_tuple(value: Any) -> Any:
    """Let a single number stand for a list of one."""
    return (value,) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _as_seeds(value: Any) -> Any:
    """Let `seeds: 3` stand for seeds 0, 1 and 2."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise ValueError(f"{value} seeds: must be at least 1")
        return tuple(range(value))
    return value


def _off(value: Any) -> Any:
    """YAML 1.1 reads a bare `off` as false."""
    return "off" if value is False else value


Positive = Annotated[int, Field(ge=1)]
Counts = Annotated[tuple[Positive, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
Ratios = Annotated[
    tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...], BeforeValidator(_as_tuple), Field(min_length=1)
]
Rate = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class Frozen(BaseModel):
    """Base of all parts: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DatasetChoice(Frozen):
    """Which data, and how much of its official test split is held out for validation."""

    name: str
    validation_samples: int = Field(default=0, ge=0)
    resolution: int | None = Field(default=None, ge=8)
    """Input side in pixels, where not the data set's own."""
    signal: float | None = Field(default=None, gt=0)
    """R = |mu| of the Gaussian mixture."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        dataset_of(name)
        return name

    @model_validator(mode="after")
    def _fits(self) -> Self:
        facts = self.facts
        if facts.kind == "vector" and self.signal is None:
            raise ValueError(f"{self.name} needs `signal`, the length R of the mean vector, for example 10")
        if facts.kind == "image" and self.signal is not None:
            raise ValueError(f"`signal` belongs to gaussian-mixture, not to {self.name}: remove it")
        if facts.test_samples and self.validation_samples >= facts.test_samples:
            raise ValueError(
                f"validation_samples {self.validation_samples}: must be below the {facts.test_samples} test samples "
                f"of {self.name}, from which they are cut"
            )
        if not facts.test_samples and self.validation_samples:
            raise ValueError(f"{self.name} has an exact test error and no test samples: set validation_samples to 0")
        return self

    @property
    def facts(self) -> Dataset:
        return dataset_of(self.name)

    @property
    def input_resolution(self) -> int:
        return self.resolution or self.facts.resolution


class NoiseShape(Frozen):
    """How labels are corrupted, apart from how many (see workers/noise.py for each model)."""

    model: NoiseModel = "symmetric"
    flips: Literal["exact", "bernoulli"] = "exact"
    matrix: tuple[tuple[Annotated[float, Field(ge=0, le=1)], ...], ...] | None = None
    file: str | None = None
    file_key: str | None = None
    file_sha256: str | None = None
    """Filled in from the file: its content, not its path, is part of a run's identity."""
    whole_file: bool = False

    @model_validator(mode="before")
    @classmethod
    def _hash_file(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("file") and not data.get("file_sha256"):
            path = Path(str(data["file"]))
            if not path.is_file():
                raise ValueError(f"noise file {str(path)!r} does not exist: give the path of an integer label file")
            data = {**data, "file_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        if (self.model == "matrix") != (self.matrix is not None):
            problems.append("`matrix` (row-stochastic, classes x classes) goes with `model: matrix`, and only there")
        if (self.model == "file") != (self.file is not None):
            problems.append("`file` (integer labels) goes with `model: file`, and only there")
        if self.model != "file" and (self.file_key or self.whole_file):
            problems.append("`file_key` and `whole_file` go with `model: file`")
        if self.matrix is not None:
            size = len(self.matrix)
            if any(len(row) != size for row in self.matrix):
                problems.append(f"`matrix` must be square; it has {size} rows")
            for i, row in enumerate(self.matrix):
                if not math.isclose(sum(row), 1.0, abs_tol=1e-9):
                    problems.append(f"row {i} of `matrix` sums to {sum(row):.6g}: it must sum to 1")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class NoiseGrid(NoiseShape):
    """The noise axis of a space: one shape, several rates."""

    rates: Annotated[tuple[Rate, ...], BeforeValidator(_as_tuple), Field(min_length=1)]

    @model_validator(mode="after")
    def _whole_file_has_one_rate(self) -> Self:
        if self.whole_file and len(self.rates) != 1:
            raise ValueError("`whole_file` corrupts all that the file corrupts: give the one rate that it amounts to")
        return self


class Noise(NoiseShape):
    """The label noise of one run: a shape and a rate (share of the used training examples)."""

    rate: Rate

    def identity(self) -> dict[str, Any]:
        """What can change a result. Without noise the shape does not matter; the path of a file never does."""
        if self.rate == 0 and not self.whole_file:
            return {"rate": 0.0}
        return self.model_dump(mode="json", exclude={"file"})


class Recipe(Frozen):
    """Minibatch training."""

    optimizer: Literal["sgd", "adam"]
    learning_rate: float = Field(gt=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=0.0, ge=0)
    decay_batch_norm: bool = True
    """Whether weight decay covers batch norm and biases too."""
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_epochs: float = Field(default=0.0, ge=0)
    batch_size: int = Field(ge=1)
    epochs: int = Field(ge=1)
    augmentation: Literal["none", "crop-flip", "resized-crop-flip"] = "none"
    precision: Literal["fp32", "bf16"] = "fp32"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        if self.optimizer == "adam" and (self.momentum or self.nesterov):
            problems.append("`momentum` and `nesterov` belong to sgd: remove them, or set optimizer to sgd")
        if self.nesterov and not self.momentum:
            problems.append("`nesterov` needs a `momentum` above 0")
        if self.warmup_epochs >= self.epochs:
            problems.append(f"warmup_epochs {self.warmup_epochs:g}: must be below epochs {self.epochs}")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class FlowRecipe(Frozen):
    """Exact gradient flow of least squares from zero, between two times, and its limit at infinity."""

    optimizer: Literal["gradient-flow"]
    first_time: float = Field(default=1e-3, gt=0)
    last_time: float = Field(default=1e3, gt=0)

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


class Resources(Frozen):
    """What one worker gets. Placement only."""

    cpus_per_worker: float = Field(default=1, gt=0)
    gpus_per_worker: float = Field(default=0, ge=0)
    gpu_memory_gb: float = Field(default=80, gt=0)
    checkpoint_seconds: float = Field(default=60, gt=0)
    """How often runs in training are saved (less often where saving takes over 2 % of the time)."""


class Priority(Frozen):
    """Cells that run earlier (or, below 0, later) than the rest, which has priority 0. Placement only."""

    cells: str
    """Conditions such as "noise_rate>=0.2 ratio<10" (search_spaces/selectors.py)."""
    priority: int

    @field_validator("cells")
    @classmethod
    def _readable(cls, cells: str) -> str:
        return str(parse_selector(cells))


class Analysis(Frozen):
    """Thresholds of the phase classes (the definitions are in orchestrator/phase.py)."""

    tau: float = Field(default=0.02, gt=0, lt=1)
    tau_cost: float = Field(default=0.05, gt=0, lt=1)
    confidence: float = Field(default=0.9, gt=0.5, le=1)
    last_evaluations: int = Field(default=1, ge=1)
    boundary_error: float | None = Field(default=None, gt=0, lt=1)
    """Draw the boundary where the final test error crosses this level."""


class SearchSpace(Frozen):
    """A grid of runs: noise rates x (widths or sample counts) x seeds, under one recipe."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=38)
    description: str = ""
    dataset: DatasetChoice
    architecture: str
    axis: Literal["width", "samples"]
    """Which of the two realises the ratio p/n. They are not interchangeable and never share a diagram."""
    widths: Counts | None = None
    samples: Counts | None = None
    ratios: Ratios | None = None
    ratio_tolerance: float = Field(default=0.05, gt=0)
    """Largest relative distance between a wanted and a realised p/n."""
    noise: NoiseGrid
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_as_seeds), Field(min_length=1)] = (0,)
    recipe: Annotated[Recipe | FlowRecipe, Field(discriminator="optimizer")]
    evaluation: Evaluation = Evaluation()
    packing: Annotated[Literal["auto", "off"] | Positive, BeforeValidator(_off)] = "auto"
    resources: Resources = Resources()
    priorities: tuple[Priority, ...] = ()
    """Which cells run first; where several match a run, the largest counts."""
    analysis: Analysis = Analysis()

    @field_validator("architecture")
    @classmethod
    def _known_architecture(cls, name: str) -> str:
        shape_of(name)
        return name

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = [*self._grid_problems(), *self._fit_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _grid_problems(self) -> list[str]:
        problems = []
        varied, fixed = ("widths", "samples") if self.axis == "width" else ("samples", "widths")
        wanted, held = getattr(self, varied), getattr(self, fixed)
        if (wanted is None) == (self.ratios is None):
            problems.append(f"axis {self.axis}: give either `{varied}` or `ratios`, one of the two")
        if held is None or len(held) != 1:
            problems.append(f"axis {self.axis}: `{fixed}` must be one number, since only {varied} may vary")
        for name in ("widths", "samples", "ratios", "seeds"):
            values = getattr(self, name)
            if values and len(set(values)) != len(values):
                problems.append(f"`{name}` holds a value twice: {list(values)}")
        if len(set(self.noise.rates)) != len(self.noise.rates):
            problems.append(f"`noise.rates` holds a value twice: {list(self.noise.rates)}")
        return problems

    def _fit_problems(self) -> list[str]:
        problems = []
        facts = self.dataset.facts
        linear = isinstance(shape_of(self.architecture), LinearShape)
        flow = isinstance(self.recipe, FlowRecipe)
        if linear != (facts.kind == "vector") or flow != linear:
            problems.append(
                "gaussian-mixture, architecture linear and optimizer gradient-flow go together; "
                f"here: {facts.name}, {self.architecture}, {self.recipe.optimizer}"
            )
        for samples in self.samples or ():
            if not facts.classes <= samples <= facts.train_samples:
                problems.append(
                    f"samples {samples}: {facts.name} has {facts.train_samples} to train on, and {facts.classes} "
                    "classes that need one each"
                )
        if self.noise.model == "asym" and facts.name != "cifar10":
            problems.append(f"noise model asym is defined for cifar10, not for {facts.name}: use symmetric or pair")
        if self.noise.matrix is not None and len(self.noise.matrix) != facts.classes:
            problems.append(f"noise matrix has {len(self.noise.matrix)} rows; {facts.name} has {facts.classes} classes")
        augmentation = getattr(self.recipe, "augmentation", "none")
        if augmentation != "none" and facts.channels != 3:
            problems.append(f"augmentation {augmentation} is for colour images; {facts.name} takes none")
        return problems
