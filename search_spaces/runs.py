"""From a search space to its runs: frozen, each with an id that hashes everything that can change its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.architectures import count_parameters, width_for
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


def expand(space: SearchSpace) -> list[Run]:
    """All runs of `space`: seed by seed, and within a seed by ratio and noise rate.

    Raises:
        RatioError: a ratio is missed by more than `ratio_tolerance`, two ratios fall on one width or sample count,
            or a sample count leaves the data set; all of them in one message.
    """
    points = list(_grid_points(space))
    noises = [Noise(**space.noise.model_dump(exclude={"rates"}), rate=rate) for rate in space.noise.rates]
    shared: dict[str, Any] = {
        "identity": IDENTITY_VERSION,
        "dataset": {**space.dataset.model_dump(mode="json"), "version": space.dataset.described.version},
        "architecture": space.architecture,
        "recipe": space.recipe.identity(),
        "evaluation": space.evaluation.model_dump(mode="json"),
    }
    parts = {key: canonical_json(value) for key, value in shared.items()}  # once, not once a run
    noise_parts = [canonical_json(noise.identity()) for noise in noises]
    runs = []
    for seed in space.seeds:
        for width, samples, parameters, target in points:
            parts |= {"width": str(width), "samples": str(samples), "seed": str(seed)}
            for noise, noise_part in zip(noises, noise_parts, strict=True):
                runs.append(
                    Run(
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
                        run_id=hash_identity(parts | {"noise": noise_part}),
                    )
                )
    return runs


def hash_identity(parts: Mapping[str, str]) -> str:
    """16 hex digits of the SHA-256 of the canonical JSON of an identity, whose values come as canonical JSON."""
    members = ",".join(f'"{key}":{parts[key]}' for key in sorted(parts))
    return hashlib.sha256(f"{{{members}}}".encode()).hexdigest()[:16]


def canonical_json(value: Any) -> str:
    """The one JSON text of `value`."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _grid_points(space: SearchSpace) -> Iterator[tuple[int, int, int, float | None]]:
    """Width, samples, parameters and target ratio of each column of the diagram, checked."""
    facts = space.dataset.described

    def parameters_at(width: int) -> int:
        return count_parameters(space.architecture, width, classes=facts.classes, channels=facts.channels)

    points: list[tuple[int, int, int, float | None]] = []
    problems: list[str] = []
    if space.axis == "width":
        assert space.samples is not None
        (samples,) = space.samples
        if space.widths is not None:
            points = [(width, samples, parameters_at(width), None) for width in space.widths]
        else:
            for ratio in space.ratios or ():
                width = width_for(space.architecture, ratio * samples, classes=facts.classes, channels=facts.channels)
                points.append((width, samples, parameters_at(width), ratio))
    else:
        assert space.widths is not None
        (width,) = space.widths
        parameters = parameters_at(width)
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
