"""The search space as a validated, frozen object: what a YAML file may say, and nothing else.

Everything that can change a result is in `DatasetChoice`, `Noise`, `Recipe` and `Evaluation`; `Resources`,
`Priority` and `Analysis` say where and when runs go and how the diagram is read, and are no part of a run's identity.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from search_spaces.architectures import LinearShape, shape_of
from search_spaces.cells import Cell, cell_problems
from search_spaces.dataset_choice import DatasetChoice
from search_spaces.frozen import Frozen
from search_spaces.recipe import EarlyStop, Evaluation, FlowRecipe, Recipe
from search_spaces.resources import Resources
from search_spaces.selectors import parse_selector
from search_spaces.values import Counts, Positive, Rate, Rates, Ratios, Seeds, as_off

__all__ = [
    "Analysis",
    "Cell",
    "DatasetChoice",
    "EarlyStop",
    "Evaluation",
    "FlowRecipe",
    "Frozen",
    "Noise",
    "NoiseGrid",
    "NoiseModel",
    "NoiseShape",
    "Priority",
    "Recipe",
    "Resources",
    "SearchSpace",
]

NoiseModel = Literal["symmetric", "symmetric_incl", "pair", "asym", "matrix", "file"]


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

    rates: Rates

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
    """Thresholds of the phase classes (the definitions are in orchestrator/analysis/)."""

    tau: float = Field(default=0.02, gt=0, lt=1)
    tau_cost: float = Field(default=0.05, gt=0, lt=1)
    confidence: float = Field(default=0.9, gt=0.5, le=1)
    last_evaluations: int = Field(default=1, ge=1)
    boundary_error: float | None = Field(default=None, gt=0, lt=1)
    """Draw the boundary where the final test error crosses this level."""
    usual_epochs: float | None = Field(default=None, gt=0)
    """Length of the usual schedule, marked in overfit curves: what lies right of it is trained past it."""


class SearchSpace(Frozen):
    """A grid of runs, noise rates x (widths or sample counts) x seeds, and cells beside it; under one recipe."""

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
    seeds: Seeds = (0,)
    cells: tuple[Cell, ...] = ()
    """Points beside the grid, each with its own seeds; `launch --refine` places them near a boundary."""
    recipe: Annotated[Recipe | FlowRecipe, Field(discriminator="optimizer")]
    evaluation: Evaluation = Evaluation()
    packing: Annotated[Literal["auto", "off"] | Positive, BeforeValidator(as_off)] = "auto"
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
        problems = [*self._grid_problems(), *self._fit_problems(), *cell_problems(self)]
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
        facts = self.dataset.described
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
        stop = getattr(self.recipe, "early_stop", None)
        if stop is not None and not self.dataset.validation_samples:
            problems.append(
                "recipe.early_stop watches the validation error: set dataset.validation_samples, for example 1000"
            )
        augmentation = getattr(self.recipe, "augmentation", "none")
        if augmentation != "none" and facts.channels != 3:
            problems.append(f"augmentation {augmentation} is for colour images; {facts.name} takes none")
        return problems
