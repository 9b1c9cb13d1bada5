"""From a search space to its runs: frozen, each with an id that hashes everything that can change its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search_spaces.architectures import count_parameters, width_for
from search_spaces.cells import Cell, Point, merge_cells
from search_spaces.spec import DatasetChoice, Evaluation, FlowRecipe, Noise, Recipe, SearchSpace

IDENTITY_VERSION = 2
"""Raise it when training itself changes, so that old results are not mistaken for new ones."""
SHARED_STREAM_SEED = 0
"""Of the one data stream that all seeds see with `recipe.shared_stream`."""


@dataclass(frozen=True, slots=True)
class Run:
    """One model trained once. `parameters` is p and `samples` is n; `run_id` is 16 hex digits."""

    dataset: DatasetChoice
    architecture: str
    width: int
    samples: int
    noise: Noise
    seed: int
    recipe: Recipe | FlowRecipe
    evaluation: Evaluation
    parameters: int
    target_ratio: float | None
    run_id: str

    @property
    def ratio(self) -> float:
        """Realised p/n: trainable parameters over used training examples."""
        return self.parameters / self.samples

    @property
    def cell(self) -> tuple[float, int, int]:
        """The point of the grid that this run is a seed of: noise rate, width, samples."""
        return (self.noise.rate, self.width, self.samples)

    @property
    def stream_seed(self) -> int:
        """Keys the subset, the order of the samples and their augmentation: the run's own, or one for all seeds."""
        return SHARED_STREAM_SEED if isinstance(self.recipe, Recipe) and self.recipe.shared_stream else self.seed


class RatioError(ValueError):
    """A wanted p/n that no width or sample count realises closely enough."""


class CellError(ValueError):
    """Cells beside the grid that hold runs of the grid."""


def expand(space: SearchSpace) -> list[Run]:
    """All runs of `space`: the grid seed by seed, and within a seed by ratio and noise rate; then the cells beside it.

    Raises:
        RatioError: a ratio is missed by more than `ratio_tolerance`, two ratios fall on one width or sample count,
            or a sample count leaves the data set; all of them in one message.
        CellError: a cell beside the grid holds runs of the grid; all of them in one message.
    """
    make = _RunMaker(space)
    columns = list(_grid_points(space))
    runs = []
    for seed in space.seeds:
        for width, samples, parameters, target in columns:
            runs += [make(rate, width, samples, seed, parameters, target) for rate in space.noise.rates]
    for cell in space.cells:
        parameters = _parameters_at(space, cell.width)
        runs += [make(*cell.point, seed, parameters, None) for seed in cell.seeds]
    if space.cells:
        _refuse_doubles(space, runs)
    return runs


class _RunMaker:
    """Makes the runs of one space; what they share is put into JSON once, not once a run."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        shared: dict[str, Any] = {
            "identity": IDENTITY_VERSION,
            "dataset": {**space.dataset.model_dump(mode="json"), "version": space.dataset.described.version},
            "architecture": space.architecture,
            "recipe": space.recipe.identity(),
            "evaluation": space.evaluation.model_dump(mode="json"),
        }
        self._parts = {key: canonical_json(value) for key, value in shared.items()}
        self._noises: dict[float, tuple[Noise, str]] = {}

    def __call__(self, rate: float, width: int, samples: int, seed: int, parameters: int, target: float | None) -> Run:
        space = self._space
        if rate not in self._noises:
            noise = Noise(**space.noise.model_dump(exclude={"rates"}), rate=rate)
            self._noises[rate] = (noise, canonical_json(noise.identity()))
        noise, noise_part = self._noises[rate]
        own = {"width": str(width), "samples": str(samples), "seed": str(seed), "noise": noise_part}
        return Run(
            dataset=space.dataset,
            architecture=space.architecture,
            width=width,
            samples=samples,
            noise=noise,
            seed=seed,
            recipe=space.recipe,
            evaluation=space.evaluation,
            parameters=parameters,
            target_ratio=target,
            run_id=hash_identity(self._parts | own),
        )


def with_cells(space: SearchSpace, cells: Sequence[Cell]) -> SearchSpace:
    """`space` with these cells beside its own: those that fit its held width or sample count, without what its grid
    has itself. So a grid can grow over cells that were placed beside it.

    Raises:
        RatioError: as `expand`.
    """
    held = space.samples if space.axis == "width" else space.widths
    assert held is not None
    fitting = [cell for cell in cells if (cell.samples if space.axis == "width" else cell.width) == held[0]]
    if not space.cells and not fitting:
        return space
    grid = grid_points(space)
    merged = [
        cell.model_copy(update={"seeds": tuple(seed for seed in cell.seeds if seed not in space.seeds)})
        if cell.point in grid
        else cell
        for cell in merge_cells([*space.cells, *fitting])
    ]
    return space.model_copy(update={"cells": tuple(cell for cell in merged if cell.seeds)})


def grid_points(space: SearchSpace) -> set[Point]:
    """Noise rate, width and samples of every point of the grid. Raises RatioError as `expand`."""
    sizes = [(width, samples) for width, samples, _, _ in _grid_points(space)]
    return {(rate, *size) for rate in space.noise.rates for size in sizes}


def count_beside(space: SearchSpace) -> int:
    """Runs of a space that are beside its grid: the last ones of `expand`."""
    return sum(len(cell.seeds) for cell in space.cells)


def _refuse_doubles(space: SearchSpace, runs: Sequence[Run]) -> None:
    beside = count_beside(space)
    grid = {run.run_id for run in runs[:-beside]}
    doubles = [run for run in runs[-beside:] if run.run_id in grid]
    if doubles:
        named = "; ".join(
            f"noise rate {run.noise.rate:g}, width {run.width}, samples {run.samples}, seed {run.seed}"
            for run in doubles
        )
        raise CellError(f"`cells` holds runs that the grid has itself ({named}): leave them out")


def hash_identity(parts: Mapping[str, str]) -> str:
    """16 hex digits of the SHA-256 of the canonical JSON of an identity, whose values come as canonical JSON."""
    members = ",".join(f'"{key}":{parts[key]}' for key in sorted(parts))
    return hashlib.sha256(f"{{{members}}}".encode()).hexdigest()[:16]


def canonical_json(value: Any) -> str:
    """The one JSON text of `value`."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _parameters_at(space: SearchSpace, width: int) -> int:
    facts = space.dataset.described
    return count_parameters(space.architecture, width, classes=facts.classes, channels=facts.channels)


def _grid_points(space: SearchSpace) -> Iterator[tuple[int, int, int, float | None]]:
    """Width, samples, parameters and target ratio of each column of the diagram, checked."""
    facts = space.dataset.described
    points: list[tuple[int, int, int, float | None]] = []
    problems: list[str] = []
    if space.axis == "width":
        assert space.samples is not None
        (samples,) = space.samples
        if space.widths is not None:
            points = [(width, samples, _parameters_at(space, width), None) for width in space.widths]
        else:
            for ratio in space.ratios or ():
                width = width_for(space.architecture, ratio * samples, classes=facts.classes, channels=facts.channels)
                points.append((width, samples, _parameters_at(space, width), ratio))
    else:
        assert space.widths is not None
        (width,) = space.widths
        parameters = _parameters_at(space, width)
        counts = [(count, None) for count in space.samples or ()]
        counts += [(max(1, round(parameters / ratio)), ratio) for ratio in space.ratios or ()]  # type: ignore[misc]
        points = [(width, count, parameters, ratio) for count, ratio in counts]

    for width, samples, parameters, target in points:
        realised = parameters / samples
        if target is not None and abs(realised / target - 1) > space.ratio_tolerance:
            problems.append(
                f"p/n {target:g} with n = {samples:,}: the nearest is {realised:.4g} (width {width}, "
                f"p = {parameters:,}), {abs(realised / target - 1):.1%} off; at most {space.ratio_tolerance:.0%} is "
                f"allowed. Ask for {realised:.4g}, or raise ratio_tolerance"
            )
        if not facts.classes <= samples <= facts.train_samples:
            problems.append(
                f"p/n {target or realised:g} needs n = {samples:,}; {facts.name} allows {facts.classes:,} to "
                f"{facts.train_samples:,}"
            )
    seen: dict[tuple[int, int], float | None] = {}
    for width, samples, _, target in points:
        if (width, samples) in seen:
            problems.append(f"p/n {seen[width, samples]:g} and {target:g} both fall on width {width}, n = {samples:,}")
        seen[width, samples] = target
    if problems:
        raise RatioError("; ".join(problems))
    yield from points
