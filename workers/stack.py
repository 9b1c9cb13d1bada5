"""Networks of one shape in training as one: the engine of a pack.

A pack is a list of stacks, which are trained one after another on every batch. By the engine "sequential" each holds
one network; by "fused" it holds several in a single one of grouped convolutions (resnet.py), with one optimiser over
all of them. What a run gives is bitwise the same whichever runs are beside it, and however many; the two engines differ
from each other by rounding, since they take other kernels.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from search_spaces.architectures import final_resolution
from search_spaces.recipe import Recipe
from search_spaces.runs import Run
from workers.batch_norm import synchronise_batch_norm
from workers.batches import EVALUATION_BATCH, MicroBatch, micro_batches
from workers.checkpoint import Checkpoint, Engine, Spent
from workers.cuda_graph import graphed_step, single
from workers.flat_optimizer import FlatOptimizer
from workers.member import Member
from workers.optimization import autocast, build_optimizer, gradient_scaler
from workers.placement import Placement
from workers.resnet import ResNet, build_model, empty_model
from workers.stacking import part_of, stacked

LEAST_FUSED = 2
"""A lone convolution takes other kernels than a grouped one."""
CACHED_BYTES = 2**18
"""Of each model, what the first feature maps of an evaluation batch may take on a CPU: several models then go through
its caches. Not less for fewer models, so that the batches are the same for any number of them."""
CHANNELS_AT_ONCE = 8
"""Channels that the CPU's batch norm treats at once (float32); it rounds the last ones otherwise, if they are fewer."""


class Stack:
    """One network, or several in one.

    Args:
        members: runs of one pack; with the engine "sequential" only one.
        engine: what trains them.
        device: that the network is on.
        placement: how it is trained; in a group, each process holds the same stack.
    """

    def __init__(self, members: Sequence[Member], engine: Engine, device: torch.device, placement: Placement) -> None:
        assert engine == "fused" or len(members) == 1, "by the engine sequential, a stack holds one network"
        recipe = members[0].run.recipe
        assert isinstance(recipe, Recipe)
        self.members, self.engine, self.recipe, self.device = list(members), engine, recipe, device
        self.placement, self.group = placement, placement.group
        self.models = 1 if engine == "sequential" else count_models(members[0].run, len(members), device)
        self.model = _new_networks([member.run for member in self._filled(self.members)], device)
        synchronise_batch_norm(self.model, self.group, device)
        own = build_optimizer if engine == "sequential" else FlatOptimizer
        self.optimizer: Any = own(self.model, self.recipe)
        self.scaler = gradient_scaler(self.recipe, device)
        self.graphed = graphed_step(members[0].run, device, placement)
        self.network = _for_training(self.model, device, placement)
        """Gives the logits in training; `model` is the bare one behind it."""
        self._evaluated = self.model if self.models == 1 else self._without_twins()
        """The same parameters without those of needless twins: in eval mode, kernels treat all models alike."""
        self.tables = torch.stack([member.given.table for member in self._filled(self.members)])
        """Given labels, int64[models, N], by original index."""
        self.loss_sums = torch.zeros(self.models, device=device)
        self.loss_steps = 0
        self.step = 0

    def accumulate(self, batch: MicroBatch) -> None:
        """Add the gradients of a micro-batch with each run's labels, and its part of the batch's mean losses.

        Where the step is a graph, this is left to `update`: the batch has to stay as it is until then.
        """
        if self.graphed is None or not self.graphed.takes(batch):
            self._accumulate(batch)

    def _accumulate(self, batch: MicroBatch) -> None:
        alone = isinstance(self.network, DistributedDataParallel) and not batch.ends_step
        with self.network.no_sync() if alone else nullcontext():  # type: ignore[operator]
            with autocast(self.recipe, self.device):
                logits = self.network(batch.inputs)
                losses = _losses(logits, self.tables[:, batch.index]) * batch.weight
            # a group averages gradients, where here they add up; and each model has a gradient of its own loss only
            self.scaler.scale(losses.sum() * self.group.size).backward()  # type: ignore[no-untyped-call]
        self.loss_sums += losses.detach()

    def update(self, rate: float) -> None:
        """Take an optimiser step with what was accumulated."""
        if self.device.type == "cuda":
            rate = single(rate)  # with graphs and without
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self.graphed is None or not self.graphed.step(rate, self.optimizer, self._train):
            self._take_step()
        self.loss_steps += 1
        self.step += 1

    def _train(self, batch: MicroBatch) -> None:
        """On a whole batch."""
        self._accumulate(batch)
        self._take_step()

    def _take_step(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()

    def settle(self) -> None:
        """Bring what is spread over the group together in its first process, before it is read or saved."""
        self.group.collect(self.loss_sums)

    def mean_batch_losses(self) -> list[float]:
        """Mean training loss of each member since the last call, in every process of the group."""
        means: list[float] = self.group.told([loss / self.loss_steps for loss in self._loss_sums()])
        self.loss_sums.zero_()
        self.loss_steps = 0
        return means

    def logits(self, inputs: Tensor) -> Tensor:
        """Of every member in eval mode, float[members, batch, classes]."""
        with autocast(self.recipe, self.device):
            if self.models == 1:
                return self.model(inputs)[None]  # type: ignore[no-any-return]
            parts = torch.split(inputs, _evaluated_at_once(self.members[0].run, self.device))  # type: ignore[no-untyped-call]
            return torch.cat([self._evaluated(part) for part in parts], dim=1)[: len(self.members)]

    def given(self, index: Tensor) -> Tensor:
        """Given labels of every member, int64[members, batch], at original indices."""
        return self.tables[: len(self.members), index]

    def network_of(self, number: int) -> ResNet:
        """The network of one member by itself, in eval mode: for inputs that its neighbours do not see."""
        if self.models == 1:
            return self.model
        network = empty_like(self.members[number].run, models=1, device=self.device)
        network.load_state_dict(part_of(self.model.state_dict(), number, self.models))
        return network.eval()

    def without(self, leaving: Sequence[Member]) -> Stack | None:
        """The stack of those that stay; None where none does. To be called when nothing is accumulated."""
        stay = [number for number, member in enumerate(self.members) if member not in leaving]
        if len(stay) == len(self.members):
            return self
        if not stay:
            return None
        rest = Stack([self.members[number] for number in stay], self.engine, self.device, self.placement)
        rest._load([self._state_of(number) for number in stay])
        rest.loss_sums[: len(stay)] = self.loss_sums[stay]
        rest.loss_steps, rest.step = self.loss_steps, self.step
        return rest

    def checkpoints(self, seen: int, evaluations: int, elapsed: Spent) -> dict[str, Checkpoint]:
        """Each run as it is now, `elapsed` in this pack, by id; a lone network's tensors are those in training."""
        states = [self._state_of(number) for number in range(len(self.members))]
        return {
            member.run.run_id: Checkpoint(
                run_id=member.run.run_id,
                step=self.step,
                seen=seen,
                evaluations=evaluations,
                loss_sum=loss_sum,
                loss_steps=self.loss_steps,
                watched=member.watch.seen,
                spent=member.spent_before + elapsed,
                model=state["model"],
                optimizer=state["optimizer"],
                scaler=self.scaler.state_dict(),
                engine=self.engine,
            )
            for member, state, loss_sum in zip(self.members, states, self._loss_sums(), strict=True)
        }

    def restore(self, checkpoints: Mapping[str, Checkpoint]) -> None:
        """Go on from checkpoints of all members, at one step; they stay as they are."""
        found = [checkpoints[member.run.run_id] for member in self.members]
        self._load([{"model": each.model, "optimizer": each.optimizer} for each in found])
        for number, (member, checkpoint) in enumerate(zip(self.members, found, strict=True)):
            member.watch.seen = list(checkpoint.watched)
            member.spent_before = checkpoint.spent
            self.loss_sums[number] = checkpoint.loss_sum if self.group.rank == 0 else 0.0
        if found[0].scaler:
            self.scaler.load_state_dict(found[0].scaler)
        self.loss_steps, self.step = found[0].loss_steps, found[0].step

    def _loss_sums(self) -> list[float]:
        sums: list[float] = self.loss_sums[: len(self.members)].tolist()
        return sums

    def _state_of(self, number: int) -> dict[str, Any]:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        return state if self.models == 1 else part_of(state, number, self.models)  # type: ignore[no-any-return]

    def _filled(self, members: Sequence[Any]) -> list[Any]:
        """Of each network: of the members, then of the last one's twins, for which nobody asks."""
        return [*members, *[members[-1]] * (self.models - len(members))]

    def _without_twins(self) -> ResNet:
        count = max(LEAST_FUSED, len(self.members))
        network = empty_like(self.members[0].run, models=count, device=self.device).eval()
        for own, whole in ((network.parameters(), self.model.parameters()), (network.buffers(), self.model.buffers())):
            for part, tensor in zip(own, whole, strict=True):
                part.data = tensor.data[: len(tensor) // self.models * count] if tensor.ndim else tensor.data
        return network

    def _load(self, states: Sequence[dict[str, Any]]) -> None:
        """Take the members' states over."""
        whole = copy.deepcopy(states[0]) if self.models == 1 else stacked(self._filled(states))
        self.model.load_state_dict(whole["model"])
        if self.graphed is not None:
            self.graphed.forget()
        self.optimizer.load_state_dict(whole["optimizer"])  # torch would train on the very tensors of another's


def stacks_of(members: Sequence[Member], engine: Engine, device: torch.device, placement: Placement) -> list[Stack]:
    """The members of a pack in stacks: as few as hold them by `placement.fused`, and of about one size."""
    if engine == "sequential":
        return [Stack([member], engine, device, placement) for member in members]
    assert placement.fused is not None, "how many is to be chosen first (fusion.py)"
    stacks, start = [], 0
    for size in stack_sizes(len(members), placement.fused):
        stacks.append(Stack(members[start : start + size], engine, device, placement))
        start += size
    return stacks


def stack_sizes(members: int, most: int) -> list[int]:
    """How many networks are fused in each stack: at most `most`, or one more where else one would be left alone."""
    count = -(-members // most)
    if members // count < LEAST_FUSED:
        count = max(1, members // LEAST_FUSED)
    return [members // count + (number < members % count) for number in range(count)]


def count_models(run: Run, members: int, device: torch.device) -> int:
    """Networks that a fused one for so many members holds: a few more on a CPU, so that kernels treat all alike."""
    models = max(LEAST_FUSED, members)
    while device.type == "cpu" and models * run.width % CHANNELS_AT_ONCE:
        models += 1
    return models


def can_fuse(run: Run, placement: Placement) -> bool:
    """Whether the engine "fused" trains such runs: not in fp16, where runs would share one loss scale; not over several
    processes, which average the gradients of one network; and not where images shrink to a single pixel, or a batch is
    a single sample, for which kernels take tensors to be in either memory order."""
    recipe = run.recipe
    assert isinstance(recipe, Recipe)
    pixels = final_resolution(run.architecture, run.dataset.input_resolution)
    batches = micro_batches(run.samples, recipe.batch_size, recipe.micro_batch or recipe.batch_size)
    fewest = min(span.last - span.first for span in batches)
    return recipe.precision != "fp16" and placement.group.size == 1 and pixels > 1 and fewest > 1


def _evaluated_at_once(run: Run, device: torch.device) -> int:
    """Samples that go through a fused network in eval mode at once."""
    if device.type == "cuda":
        return EVALUATION_BATCH
    sample_bytes = 4 * run.width * run.dataset.input_resolution**2
    return min(EVALUATION_BATCH, max(64, CACHED_BYTES // sample_bytes))


def empty_like(run: Run, *, models: int, device: torch.device) -> ResNet:
    """A network for one or several models in the shape of a run's, to be filled; on the device, in channels_last."""
    facts = run.dataset.described
    network = empty_model(run.architecture, run.width, classes=facts.classes, channels=facts.channels, models=models)
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _new_networks(runs: Sequence[Run], device: torch.device) -> ResNet:
    """Freshly initialised, each as if it was alone."""
    facts = runs[0].dataset.described
    fresh = [
        build_model(run.architecture, run.width, classes=facts.classes, channels=facts.channels, seed=run.seed)
        for run in runs
    ]
    if len(fresh) == 1:
        return fresh[0].to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
    network = empty_like(runs[0], models=len(runs), device=device)
    network.load_state_dict(stacked([each.state_dict() for each in fresh]))
    return network


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each model, summed over the batch: float[models] from labels int64[models, batch]."""
    if logits.ndim == 2:
        return functional.cross_entropy(logits, labels[0], reduction="sum")[None]
    losses = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return losses.view(labels.shape).sum(dim=1)


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
