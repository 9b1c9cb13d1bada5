"""One run inside a pack: its network, optimiser and labels, and how far it is."""

from __future__ import annotations

import copy
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from search_spaces.recipe import Recipe
from search_spaces.runs import Run
from workers.batch_norm import synchronise_batch_norm
from workers.batches import GivenLabels, MicroBatch
from workers.checkpoint import Checkpoint, Spent
from workers.early_stop import Watch
from workers.optimization import autocast, build_optimizer, gradient_scaler
from workers.placement import Placement
from workers.resnet import ResNet, build_model


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


class Member:
    """A run in training.

    Args:
        given: its labels.
        device: that its network is on.
        placement: how it is trained; in a group, each process holds the same member.
    """

    def __init__(
        self, run: Run, recipe: Recipe, given: GivenLabels, device: torch.device, placement: Placement
    ) -> None:
        self.run, self.recipe, self.given, self.device, self.group = run, recipe, given, device, placement.group
        self.model = new_network(run, device)
        synchronise_batch_norm(self.model, self.group, device)
        self.optimizer = build_optimizer(self.model, recipe)
        self.scaler = gradient_scaler(recipe, device)
        self.network = _for_training(self.model, device, placement)
        """Gives the logits in training; `model` is the bare one behind it."""
        self.watch = Watch(recipe.early_stop)
        self.loss_sum = torch.zeros((), device=device)
        self.loss_steps = 0
        self.step = 0
        self.spent_before = Spent()  # in the packs before this one
        self.diverged = False

    def accumulate(self, batch: MicroBatch) -> None:
        """Add the gradient of a micro-batch with this run's labels, and its part of the batch's mean loss."""
        alone = isinstance(self.network, DistributedDataParallel) and not batch.ends_step
        with self.network.no_sync() if alone else nullcontext():  # type: ignore[operator]
            with autocast(self.recipe, self.device):
                logits = self.network(batch.inputs)
                loss = functional.cross_entropy(logits, self.given.table[batch.index], reduction="sum") * batch.weight
            self.scaler.scale(loss * self.group.size).backward()  # type: ignore[no-untyped-call]  # a group averages gradients; here they add up
        self.loss_sum += loss.detach()

    def update(self, rate: float) -> None:
        """Take an optimiser step with what was accumulated."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.loss_steps += 1
        self.step += 1

    def settle(self) -> None:
        """Bring what is spread over the group together in its first process, before it is read or saved."""
        self.group.collect(self.loss_sum)

    def mean_batch_loss(self) -> float:
        """Mean training loss since the last call, in every process of the group."""
        mean = float(self.group.told(self.loss_sum.item() / self.loss_steps))
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
            watched=self.watch.seen,
            spent=self.spent_before + elapsed,
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint, which stays as it is."""
        self.model.load_state_dict(checkpoint.model)
        self.optimizer.load_state_dict(copy.deepcopy(checkpoint.optimizer))  # torch would train on its very tensors
        if checkpoint.scaler:
            self.scaler.load_state_dict(checkpoint.scaler)
        self.watch.seen = list(checkpoint.watched)
        self.loss_sum.fill_(checkpoint.loss_sum if self.group.rank == 0 else 0.0)
        self.loss_steps = checkpoint.loss_steps
        self.step = checkpoint.step
        self.spent_before = checkpoint.spent

    def end(self, subset_hash: str, elapsed: Spent, evaluations: int) -> RunEnd:
        """How it ended, after its last evaluation."""
        return RunEnd(
            run_id=self.run.run_id,
            status="diverged" if self.diverged else "done",
            mask_hash=self.given.mask_hash,
            subset_hash=subset_hash,
            noise_rate_realised=self.given.realised_rate,
            seconds=(self.spent_before + elapsed).share,
            evaluations=evaluations,
        )


def new_network(run: Run, device: torch.device) -> ResNet:
    """The freshly initialised network of a run, on the device and in channels_last."""
    facts = run.dataset.described
    model = build_model(run.architecture, run.width, classes=facts.classes, channels=facts.channels, seed=run.seed)
    return model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _for_training(model: ResNet, device: torch.device, placement: Placement) -> nn.Module:
    network: Any = torch.compile(model) if placement.compile else model
    if placement.group.size == 1:
        return network  # type: ignore[no-any-return]
    with warnings.catch_warnings(
        action="ignore", category=FutureWarning
    ):  # its successor is not in every torch that is supported
        return DistributedDataParallel(
            network,
            device_ids=[device] if device.type == "cuda" else None,
            broadcast_buffers=False,  # batch norm keeps the same statistics everywhere
            gradient_as_bucket_view=True,
        )
