"""Training a pack: one stream of batches, several models, epoch metrics for each run.

The models of a pack are trained one after another on every shared batch, so each run's result is its own. A pack can
be left after any step, and its runs go on later, alone or in another pack, as if nothing had happened.
"""

from __future__ import annotations

import copy
import math
import resource
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_spaces.runs import Run
from search_spaces.schedule import evaluation_steps, steps_per_epoch
from search_spaces.spec import FlowRecipe, Recipe
from workers.checkpoint import Checkpoint, Spent, dump_checkpoint, group_by_step
from workers.data import EvaluationSet, GivenLabels, ImageData
from workers.metrics import clean_metrics, concatenate, predictions, train_metrics
from workers.resnet import build_model

Row = dict[str, Any]


@dataclass(frozen=True)
class RunEnd:
    """How a run ended, and the facts of its data that stand beside every row."""

    run_id: str
    status: str
    mask_hash: str
    subset_hash: str
    noise_rate_realised: float
    seconds: float
    """The run's share of the wall time of its packs."""
    evaluations: int
    """Rows that the run has in all, those from before a checkpoint too."""


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
) -> Iterator[Progress]:
    """Train runs that share one data stream (see search_spaces/packs.py).

    Whoever wants to stop in between closes the generator; its threads end then.

    Args:
        runs: of one pack.
        folder: where betons are, or are made for embedded data sets.
        device: CPU or one CUDA device.
        resume: checkpoints by run id, all at one step; evaluations made before it are not repeated.
        pause: asked after every optimiser step; where it says True, progress is yielded although no evaluation is due.

    Raises:
        ValueError: labels that cannot be corrupted as asked, a missing or damaged beton, runs at different steps.
        LoaderError: the data stream broke.
    """
    parts = group_by_step(runs, resume or {})
    if len(parts) > 1:
        steps = [next((checkpoint.step for checkpoint in part.values()), 0) for _, part in parts]
        raise ValueError(f"runs at steps {steps} cannot go on together: train the parts of group_by_step one by one")
    if isinstance(runs[0].recipe, FlowRecipe):
        from workers.flow_pack import train_flow_pack

        yield from train_flow_pack(runs, folder)
    else:
        yield from _train_networks(runs, runs[0].recipe, folder, device, parts[0][1], pause)


def _train_networks(
    runs: Sequence[Run],
    recipe: Recipe,
    folder: Path,
    device: torch.device,
    resume: Mapping[str, Checkpoint],
    pause: Callable[[], bool],
) -> Iterator[Progress]:
    data = ImageData(runs[0], folder, device)
    clock = Clock(device, pack_size=len(runs))
    members = [Member(run, recipe, data.given(run), device) for run in runs]
    step = seen = evaluations = 0
    for member in members:
        if checkpoint := resume.get(member.run.run_id):
            member.restore(checkpoint)
            step, seen, evaluations = checkpoint.step, checkpoint.seen, checkpoint.evaluations
    samples = runs[0].samples
    due = set(evaluation_steps(recipe, runs[0].evaluation, samples))
    per_epoch = steps_per_epoch(samples, recipe.batch_size)
    total = per_epoch * recipe.epochs
    with closing(batches_after(step, data, per_epoch, recipe.epochs)) as batches:
        for inputs, index in batches:
            step += 1
            seen += len(index)
            rate = learning_rate(recipe, step, per_epoch, total)
            for member in members:
                member.train_step(inputs, index, rate)
            if not pause() and step not in due:
                continue
            clock.pause_training()
            rows: list[Row] = []
            ended: list[RunEnd] = []
            if step in due:
                shared = {"evaluation": evaluations, "step": step, "epoch": seen / samples, "learning_rate": rate}
                rows = [shared | row for row in evaluate(members, data)]
                evaluations += 1
                elapsed = clock.spent()
                for member, row in zip(members, rows, strict=True):
                    row |= timing(member.spent_before + elapsed, seen, device)
                leaving = [member for member in members if step == total or member.diverged]
                members = [member for member in members if member not in leaving]
                ended = [member.end(data.subset_hash, elapsed, evaluations) for member in leaving]
            save = partial(dump_members, members, step, seen, evaluations, clock)
            yield Progress(rows, ended, step / total, save)
            if not members:
                return
            clock.resume_training()


def batches_after(step: int, data: ImageData, per_epoch: int, epochs: int) -> Generator[tuple[Tensor, Tensor]]:
    """The training batches that are left after `step` steps, to the end of the last epoch."""
    first, taken = divmod(step, per_epoch)
    for epoch in range(first, epochs):
        yield from data.epoch(epoch, skip_batches=taken if epoch == first else 0)


def dump_members(members: Sequence[Member], step: int, seen: int, evaluations: int, clock: Clock) -> dict[str, bytes]:
    """The checkpoint of each member, by run id."""
    assert all(member.step == step for member in members), "training has gone on: these are no longer there to be saved"
    elapsed = clock.spent()
    return {member.run.run_id: dump_checkpoint(member.checkpoint(seen, evaluations, elapsed)) for member in members}


class Member:
    """One run inside a pack: its model, optimiser and labels."""

    def __init__(self, run: Run, recipe: Recipe, given: GivenLabels, device: torch.device) -> None:
        facts = run.dataset.facts
        self.run, self.recipe, self.given, self.device = run, recipe, given, device
        model = build_model(run.architecture, run.width, classes=facts.classes, channels=facts.channels, seed=run.seed)
        self.model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = build_optimizer(self.model, recipe)
        self.loss_sum = torch.zeros((), device=device)
        self.loss_steps = 0
        self.step = 0
        self.spent_before = Spent()  # in the packs before this one
        self.diverged = False

    def train_step(self, inputs: Tensor, index: Tensor, rate: float) -> None:
        """One optimiser step on a shared batch with this run's labels."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with autocast(self.recipe, self.device):
            loss = functional.cross_entropy(self.model(inputs), self.given.table[index])
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.loss_sum += loss.detach()
        self.loss_steps += 1
        self.step += 1

    def mean_batch_loss(self) -> float:
        """Mean training loss since the last call."""
        mean = self.loss_sum.item() / self.loss_steps
        self.loss_sum.zero_()
        self.loss_steps = 0
        return mean

    def checkpoint(self, seen: int, evaluations: int, elapsed: Spent) -> Checkpoint:
        """The run as it is now, `elapsed` in this pack; the tensors are those in training, not copies."""
        return Checkpoint(
            run_id=self.run.run_id,
            step=self.step,
            seen=seen,
            evaluations=evaluations,
            loss_sum=self.loss_sum.item(),
            loss_steps=self.loss_steps,
            spent=self.spent_before + elapsed,
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint, which stays as it is."""
        self.model.load_state_dict(checkpoint.model)
        self.optimizer.load_state_dict(copy.deepcopy(checkpoint.optimizer))  # torch would train on its very tensors
        self.loss_sum.fill_(checkpoint.loss_sum)
        self.loss_steps = checkpoint.loss_steps
        self.step = checkpoint.step
        self.spent_before = checkpoint.spent

    def end(self, subset_hash: str, elapsed: Spent, evaluations: int) -> RunEnd:
        return RunEnd(
            run_id=self.run.run_id,
            status="diverged" if self.diverged else "done",
            mask_hash=self.given.mask_hash,
            subset_hash=subset_hash,
            noise_rate_realised=self.given.realised_rate,
            seconds=(self.spent_before + elapsed).share,
            evaluations=evaluations,
        )


def learning_rate(recipe: Recipe, step: int, per_epoch: int, total: int) -> float:
    """Rate of `step` (1-based): linear warm-up, then constant, or cosine to zero (arXiv 1608.03983, one cycle)."""
    warmup = round(recipe.warmup_epochs * per_epoch)
    if step <= warmup:
        return recipe.learning_rate * step / warmup
    if recipe.schedule == "constant":
        return recipe.learning_rate
    progress = (step - 1 - warmup) / max(1, total - warmup)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD or Adam (coupled weight decay), with batch norm and biases left out of decay where the recipe says so."""
    weights = [p for p in model.parameters() if recipe.decay_batch_norm or p.ndim > 1]
    others = [p for p in model.parameters() if not (recipe.decay_batch_norm or p.ndim > 1)]
    groups = [{"params": weights, "weight_decay": recipe.weight_decay}]
    if others:
        groups.append({"params": others, "weight_decay": 0.0})
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, lr=recipe.learning_rate, fused=True)
    return torch.optim.SGD(
        groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True
    )


def autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 autocast where the recipe asks for it: no gradient scaling is needed."""
    if recipe.precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


@torch.inference_mode()
def evaluate(members: Sequence[Member], data: ImageData) -> list[Row]:
    """One row of metrics for each member, on the train, validation and test sets, in eval mode."""
    for member in members:
        member.model.eval()
    train_set, index = data.train_set, data.train_set.index
    on_train = _predict(members, train_set, [member.given.table[index] for member in members])
    on_validation = _predict(members, data.validation_set, None)
    on_test = _predict(members, data.test_set, None)
    rows = []
    for k, member in enumerate(members):
        row: Row = {"run_id": member.run.run_id, "batch_loss": member.mean_batch_loss()}
        row |= train_metrics(on_train[k], member.given.table[index], train_set.true)
        row |= clean_metrics(on_validation[k], data.validation_set.true, "val")
        row |= clean_metrics(on_test[k], data.test_set.true, "test")
        member.diverged = has_diverged(row)
        rows.append(row)
        member.model.train()
    return rows


def _predict(members: Sequence[Member], samples: EvaluationSet, given: list[Tensor] | None) -> list[Any]:
    """Predictions of every member on one set; the set is read once for all of them."""
    parts: list[list[Any]] = [[] for _ in members]
    position = 0
    for inputs, index in samples.batches():
        span = slice(position, position + len(index))
        position += len(index)
        true = samples.true[span]
        for k, member in enumerate(members):
            with autocast(member.recipe, member.device):
                logits = member.model(inputs)
            parts[k].append(predictions(logits, true if given is None else given[k][span], true))
    return [concatenate(part) for part in parts]


def has_diverged(row: Row) -> bool:
    """Whether training broke down: a loss on the way or on the train set is no finite number."""
    return not all(math.isfinite(row[name]) for name in ("batch_loss", "train_loss_given"))


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
