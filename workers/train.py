"""Training a pack: one stream of batches, several models, epoch metrics for each run.

All models of a pack are trained on every batch, one after another or several fused into one (stack.py), and each run's
result is its own. A pack can be left after any step, and its runs go on later, alone or in another pack, as if nothing
had happened.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from search_spaces.recipe import FlowRecipe
from search_spaces.runs import Run
from search_spaces.schedule import evaluation_steps, steps_per_epoch
from workers.batches import MicroBatch
from workers.checkpoint import Checkpoint, Engine, Spent, dump_checkpoint, group_by_progress
from workers.data import ALONE_HERE, ImageData
from workers.evaluation import Row, evaluate
from workers.fusion import choose
from workers.member import Member, RunEnd
from workers.optimization import learning_rate
from workers.placement import Placement
from workers.stack import Stack, can_fuse, stacks_of


@dataclass(frozen=True)
class Progress:
    """What a pack has come to: after an evaluation, a row for each run still in it, and the runs that ended here.

    Where it was only asked to pause, there are no rows and no ends.
    """

    rows: list[Row]
    ended: list[RunEnd]
    share_done: float
    checkpoints: Callable[[], dict[str, bytes]] = dict
    """Gives the runs still in training, by id, as `workers.checkpoint.load_checkpoint` reads them. Nothing is saved
    unless it is called; call it before the training goes on."""


def never() -> bool:
    """Do not pause."""
    return False


def train_pack(
    runs: Sequence[Run],
    folder: Path,
    device: torch.device,
    *,
    resume: Mapping[str, Checkpoint] | None = None,
    pause: Callable[[], bool] = never,
    placement: Placement = ALONE_HERE,
) -> Iterator[Progress]:
    """Train runs that share one data stream (see search_spaces/packs.py).

    Whoever wants to stop in between closes the generator; its threads end then. In a group every process calls this
    with the same runs and checkpoints, and gets the same progress; only the first can save checkpoints.

    Args:
        runs: of one pack.
        folder: where betons are, or are made for embedded data sets.
        device: CPU or one CUDA device.
        resume: checkpoints by run id, all at one step and of one engine; evaluations made before it are not repeated.
        pause: asked after optimiser steps (of the first process, in a group); where it says True, progress is yielded
            although no evaluation is due.
        placement: how it is trained; no part of the result.

    Raises:
        ValueError: labels that cannot be corrupted as asked, a missing or damaged beton, runs that cannot go on
            together.
        LoaderError: the data stream broke.
    """
    parts = group_by_progress(runs, resume or {})
    if len(parts) > 1:
        reached = [next((f"{one.engine} {one.step}" for one in part.values()), "0") for _, part in parts]
        raise ValueError(
            f"runs at steps {', '.join(reached)} cannot go on together: train the parts of group_by_progress one by one"
        )
    if isinstance(runs[0].recipe, FlowRecipe):
        from workers.flow_pack import train_flow_pack

        yield from train_flow_pack(runs, folder)
    else:
        data = ImageData(runs[0], folder, device, placement)
        yield from _train_networks(runs, data, parts[0][1], placement.group.agreed(pause))


def _train_networks(
    runs: Sequence[Run], data: ImageData, resume: Mapping[str, Checkpoint], pause: Callable[[], bool]
) -> Iterator[Progress]:
    recipe, device, samples = data.recipe, data.device, runs[0].samples
    engine, placement = _arrange(runs, data, resume)
    clock = Clock(device, pack_size=len(runs))
    stacks = stacks_of([Member(run, data.given(run)) for run in runs], engine, device, placement)
    step = seen = evaluations = 0
    if resume:
        for stack in stacks:
            stack.restore(resume)
        reached = resume[runs[0].run_id]
        step, seen, evaluations = reached.step, reached.seen, reached.evaluations
    due = set(evaluation_steps(recipe, runs[0].evaluation, samples))
    per_epoch = steps_per_epoch(samples, recipe.batch_size)
    total = per_epoch * recipe.epochs
    with closing(batches_after(step, data, per_epoch, recipe.epochs)) as batches:
        for batch in batches:
            seen += batch.samples
            for stack in stacks:
                stack.accumulate(batch)
            if not batch.ends_step:
                continue
            step += 1
            rate = learning_rate(recipe, step, per_epoch, total)
            for stack in stacks:
                stack.update(rate)
            if not pause() and step not in due:
                continue
            clock.pause_training()
            for stack in stacks:
                stack.settle()
            rows: list[Row] = []
            ended: list[RunEnd] = []
            if step in due:
                shared = {"evaluation": evaluations, "step": step, "epoch": seen / samples, "learning_rate": rate}
                rows = [shared | row for row in evaluate(stacks, data)]
                evaluations += 1
                elapsed = clock.spent()
                members = [member for stack in stacks for member in stack.members]
                for member, row in zip(members, rows, strict=True):
                    row |= timing(member.spent_before + elapsed, seen, device)
                leaving = [each for each in members if step == total or each.diverged or each.watch.says_stop]
                ended = [member.end(data.subset_hash, elapsed, evaluations, engine) for member in leaving]
                stacks = [rest for stack in stacks if (rest := stack.without(leaving))]
            yield Progress(rows, ended, step / total, partial(dump_runs, stacks, step, seen, evaluations, clock))
            if not stacks:
                return
            clock.resume_training()


def _arrange(runs: Sequence[Run], data: ImageData, resume: Mapping[str, Checkpoint]) -> tuple[Engine, Placement]:
    """The engine that the runs began with or that is asked for, else the faster one; and how many networks it fuses."""
    placement = data.placement
    if not can_fuse(runs[0], placement):
        return "sequential", placement
    engine = next((checkpoint.engine for checkpoint in resume.values()), placement.engine)
    if engine and placement.fused:
        return engine, placement
    engine, fused = choose(runs[0], len(runs), data.device, placement, data.folder, engine)
    return engine, replace(placement, fused=fused)


def batches_after(step: int, data: ImageData, per_epoch: int, epochs: int) -> Generator[MicroBatch]:
    """The training batches that are left after `step` steps, to the end of the last epoch."""
    first, taken = divmod(step, per_epoch)
    for epoch in range(first, epochs):
        yield from data.epoch(epoch, skip_steps=taken if epoch == first else 0)


def dump_runs(stacks: Sequence[Stack], step: int, seen: int, evaluations: int, clock: Clock) -> dict[str, bytes]:
    """The checkpoint of each run, by its id."""
    assert all(stack.step == step for stack in stacks), "training has gone on: these are no longer there to be saved"
    elapsed = clock.spent()
    checkpoints = [stack.checkpoints(seen, evaluations, elapsed) for stack in stacks]
    return {run_id: dump_checkpoint(each) for part in checkpoints for run_id, each in part.items()}


def timing(spent: Spent, seen: int, device: torch.device) -> Row:
    """The timing columns of a row (see schema.py); `seen` samples were trained on."""
    return {
        "images_per_second": seen / spent.training,
        "wall_seconds": spent.wall,
        "peak_memory_bytes": peak_memory_bytes(device),
    }


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory so far: of the CUDA device, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass
class Clock:
    """Wall time of a pack, and the part of it spent training."""

    device: torch.device
    pack_size: int
    started: float = field(default_factory=time.perf_counter)
    _resumed: float = field(default_factory=time.perf_counter)
    training_seconds: float = 0.0

    def spent(self) -> Spent:
        """Seconds of each run since the pack began; training as of the last pause."""
        wall = time.perf_counter() - self.started
        return Spent(wall, self.training_seconds, wall / self.pack_size)

    def pause_training(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.training_seconds += time.perf_counter() - self._resumed

    def resume_training(self) -> None:
        self._resumed = time.perf_counter()
