"""How many networks of a pack to train as one: measured once for each kind of run and device, then remembered.

Fusing pays where a network is too narrow to keep the processor busy, and costs where activations outgrow its caches.
Nothing but a measurement tells; a few steps of each size are enough. Placement, never identity.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from search_spaces.runs import Run
from search_spaces.spec import Recipe
from workers.batches import GivenLabels, MicroBatch
from workers.checkpoint import Engine
from workers.cuda_graph import WARM_UP_STEPS
from workers.device_names import cpu_name
from workers.member import Member
from workers.placement import Placement
from workers.safe_writing import beside, locked
from workers.speed import random_batches
from workers.stack import LEAST_FUSED, Stack, can_fuse, count_models, stack_sizes

FILE_NAME = "fusion.json"
"""In the data folder, beside what bench-worker measured."""
SIZES = (2, 4, 8, 16, 32)
LEAST_GAIN = 1.05
"""Fusing that gains less than this may lose: one after another, then."""
PAST_THE_BEST = 1.1
"""A size that takes so much longer for each network than the best one before it ends the search."""
ROUNDS, ROUND_SECONDS = 5, 0.03
LONG_STEP_SECONDS = 0.25
"""Steps so long are taken once."""


@dataclass(frozen=True)
class StepSeconds:
    """Seconds of an optimiser step by the number of networks in one; of one, by itself.

    `searched` is the largest size that a longer search would not go beyond: what was measured, or any where larger
    ones would only lose.
    """

    by_models: Mapping[int, float]
    searched: int

    def of(self, models: int) -> float:
        """Of any number of networks from the measured ones around it, in proportion beyond them."""
        sizes = sorted(self.by_models)
        above = next((size for size in sizes if size >= models), sizes[-1])
        below = max((size for size in sizes if size <= models), default=above)
        if above == below:
            return self.by_models[above] * models / above
        share = (models - below) / (above - below)
        return (1 - share) * self.by_models[below] + share * self.by_models[above]


def choose(
    run: Run, members: int, device: torch.device, placement: Placement, folder: Path, engine: Engine | None = None
) -> tuple[Engine, int]:
    """The engine for a pack of `members` runs like this one, and how many networks it makes one, at most.

    All packs of a sweep have the same engine for the same kind of run, so that a run that is trained once more, with
    others or alone, gives what it gave before: `placement.usual_pack` decides, not `members`.

    Args:
        run: one of the pack.
        device: that it is trained on.
        folder: the data folder, where measurements are kept if it can be written.
        engine: where it is settled already.
    """
    usual = placement.usual_pack
    if engine == "sequential" or (engine is None and usual == 1):
        return "sequential", 1

    def models(count: int) -> int:
        return count_models(run, count, device)

    most = models(max(members, usual))
    seconds = _known_or_measured(run, device, most, folder / FILE_NAME, graphs=placement.cuda_graphs)
    engine = engine or ("fused" if fastest(seconds, usual, models) > 1 else "sequential")
    return engine, 1 if engine == "sequential" else fastest(seconds, members, models, least=LEAST_FUSED)


def pack_gain(run: Run, members: int, device: torch.device, folder: Path) -> float:
    """How many times as fast `members` runs take a step in a pack of the faster engine, as one after another."""
    if members == 1 or not can_fuse(run, Placement()):
        return 1.0

    def models(count: int) -> int:
        return count_models(run, count, device)

    seconds = _known_or_measured(run, device, models(members), folder / FILE_NAME)
    most = fastest(seconds, members, models)
    sizes = stack_sizes(members, most) if most > 1 else []
    return members * seconds.by_models[1] / sum(seconds.of(models(size)) for size in sizes) if sizes else 1.0


def _known_or_measured(run: Run, device: torch.device, most: int, path: Path, *, graphs: bool = False) -> StepSeconds:
    key, most = conditions(run, device, graphs=graphs), min(most, SIZES[-1])
    found = _read(path).get(key)
    if found is None or found.searched < most:
        found = _keep(path, key, measure_steps(run, device, most, graphs=graphs))
    return found


def fastest(seconds: StepSeconds, members: int, models: Callable[[int], int], least: int = 1) -> int:
    """How many networks to fuse, at most, to train `members` in the least time.

    Args:
        models: networks that a fused one for so many members holds.
        least: 2 where they are to be fused in any case.
    """

    def total(most: int) -> float:
        return sum(seconds.of(models(size)) for size in stack_sizes(members, most))

    largest = max(seconds.by_models)
    sizes = [size for size in range(LEAST_FUSED, members + 1) if models(size) <= largest] or [LEAST_FUSED]
    best = min(sizes, key=total)
    return best if least > 1 or total(best) * LEAST_GAIN <= members * seconds.by_models[1] else 1


def conditions(run: Run, device: torch.device, *, graphs: bool = False) -> str:
    """Everything that the speed of a step depends on, in words."""
    facts, recipe = run.dataset.described, run.recipe
    assert isinstance(recipe, Recipe)
    side = run.dataset.input_resolution
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    threads = "" if device.type == "cuda" else f"threads {torch.get_num_threads()}"
    batch = min(recipe.micro_batch or recipe.batch_size, run.samples)
    network = f"{run.architecture} width {run.width}, {facts.channels}x{side}x{side} to {facts.classes}"
    training = f"batch {batch}, {recipe.precision} {recipe.optimizer}"
    ways = [name, threads, f"torch {torch.__version__}", network, training, "CUDA graphs" if graphs else ""]
    return ", ".join(filter(None, ways))


def measure_steps(run: Run, device: torch.device, most: int, *, graphs: bool = False) -> StepSeconds:
    """Measure a step of one network, and of more and more in one, up to `most` or until it gets worse.

    Each size takes turns with the single network, so that what else the machine does favours neither.
    """
    given, batches = random_batches(run, device)
    alone = _steps(run, 1, given, batches, device, graphs)
    single, ratios, searched = [_seconds(alone, device)], dict[int, float](), 1
    for size in [size for size in SIZES if count_models(run, size, device) == size]:
        if searched >= most:
            break
        try:
            rounds = _in_turn(alone, _steps(run, size, given, batches, device, graphs), device)
        except torch.OutOfMemoryError:
            searched = SIZES[-1]
            break
        single += [one for one, _ in rounds]
        ratios[size] = statistics.median(many / one for one, many in rounds)
        best = min(1.0, *(ratio / models for models, ratio in ratios.items()))
        searched = SIZES[-1] if ratios[size] / size > PAST_THE_BEST * best else size
    one = statistics.median(single)
    return StepSeconds({1: one} | {size: ratio * one for size, ratio in ratios.items()}, searched)


def _in_turn(alone: Callable[[], None], fused: Callable[[], None], device: torch.device) -> list[tuple[float, float]]:
    """Seconds of a step of each, in a few rounds; in one, where it takes long."""
    rounds = [(_seconds(alone, device), _seconds(fused, device))]
    while len(rounds) < ROUNDS and rounds[0][0] < LONG_STEP_SECONDS:
        rounds.append((_seconds(alone, device), _seconds(fused, device)))
    return rounds


def _steps(
    run: Run, models: int, given: GivenLabels, batches: Sequence[MicroBatch], device: torch.device, graphs: bool
) -> Callable[[], None]:
    """A step of so many networks; it leaves their weights as they are, and has been taken a few times already."""
    engine: Engine = "sequential" if models == 1 else "fused"
    stack = Stack([Member(run, given) for _ in range(models)], engine, device, Placement(cuda_graphs=graphs))

    def step() -> None:
        for batch in batches:
            stack.accumulate(batch)
        stack.update(0.0)

    for _ in range(WARM_UP_STEPS + 1 if graphs else 2):
        step()
    return step


def _seconds(step: Callable[[], None], device: torch.device) -> float:
    """Seconds of one step, over a few of them."""
    steps = 0
    started = time.perf_counter()
    while True:
        step()
        steps += 1
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken = time.perf_counter() - started
        if taken >= ROUND_SECONDS:
            return taken / steps


def _read(path: Path) -> dict[str, StepSeconds]:
    """What was measured before; nothing where there is no such file, or none of ours: it can be measured again."""
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        return {
            key: StepSeconds({int(size): float(taken) for size, taken in one["seconds"].items()}, int(one["searched"]))
            for key, one in content.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _keep(path: Path, key: str, found: StepSeconds) -> StepSeconds:
    """Keep a measurement; returns the one to go by, which is another worker's where that was faster.

    Where the folder cannot be written, every process measures for itself.
    """
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent):
            kept = _read(path)
            if key in kept and kept[key].searched >= found.searched:
                return kept[key]
            content = {
                name: {"seconds": dict(one.by_models), "searched": one.searched}
                for name, one in sorted((kept | {key: found}).items())
            }
            with beside(path) as unfinished:
                unfinished.write_text(json.dumps(content, indent=2))
    return found
