"""An evaluation: every member of a pack on the train, validation and test sets, each sample once over all processes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from workers.batches import EVALUATION_BATCH
from workers.data import EvaluationSet, ImageData
from workers.group import Group
from workers.metrics import Labelled, Predictions, clean_metrics, concatenate, predictions, train_metrics
from workers.optimization import autocast
from workers.stack import Stack

Row = dict[str, Any]


@torch.inference_mode()
def evaluate(stacks: Sequence[Stack], data: ImageData) -> list[Row]:
    """One row of metrics for each member, the same in every process of a group; in eval mode, without augmentation."""
    for stack in stacks:
        stack.model.eval()
    group, index = data.placement.group, data.train_set.index
    members = [member for stack in stacks for member in stack.members]
    losses = [loss for stack in stacks for loss in stack.mean_batch_losses()]
    on_train = _on_set(stacks, data.train_set, group, on_given=True)
    on_validation = _on_set(stacks, data.validation_set, group)
    on_test = _on_set(stacks, data.test_set, group)
    beyond = _beyond_train_set(stacks, data)
    rows = []
    for k, member in enumerate(members):
        row: Row = {"run_id": member.run.run_id, "batch_loss": losses[k]}
        row |= train_metrics(Labelled(on_train[k], member.given.table[index], data.train_set.true), beyond[k])
        row |= clean_metrics(on_validation[k], data.validation_set.true, "val")
        row |= clean_metrics(on_test[k], data.test_set.true, "test")
        member.diverged = has_diverged(row)
        member.watch.add(row)
        rows.append(row)
    for stack in stacks:
        stack.model.train()
    return rows


def has_diverged(row: Mapping[str, Any]) -> bool:
    """Whether training broke down: a loss on the way or on the train set is no finite number."""
    return not all(math.isfinite(row[name]) for name in ("batch_loss", "train_loss_given"))


def _on_set(
    stacks: Sequence[Stack], samples: EvaluationSet, group: Group, *, on_given: bool = False
) -> list[Predictions]:
    """Predictions of every member on a whole set, which is read once for all of them.

    Where they are not `on_given` labels, the true labels are the given ones.
    """
    parts: list[list[Predictions]] = [[] for _ in stacks]
    position = samples.part.start
    for inputs, index in samples.batches():
        true = samples.true[position : position + len(index)]
        position += len(index)
        for stack, found in zip(stacks, parts, strict=True):
            found.append(predictions(stack.logits(inputs), stack.given(index) if on_given else true, true))
    members = []
    for stack, found in zip(stacks, parts, strict=True):
        whole = concatenate(found, samples.index.device)
        members += [_of_all(whole[k] if found else whole, group) for k in range(len(stack.members))]
    return members


def _beyond_train_set(stacks: Sequence[Stack], data: ImageData) -> list[Labelled | None]:
    """Each member on its corrupted examples outside of the train set.

    They are read once for all members, but a member's batches are made of its own, in the order of the subset, and go
    through its network alone: what it gives does not depend on which others are in the pack.
    """
    members = [member for stack in stacks for member in stack.members]
    samples = data.beyond_train_set([member.given for member in members])
    if samples is None:
        return [None for _ in members]
    networks = [stack.network_of(number) for stack in stacks for number in range(len(stack.members))]
    batches = [_Regrouped(member.given.beyond) for member in members]
    parts: list[list[Predictions]] = [[] for _ in members]
    seen: list[list[Tensor]] = [[] for _ in members]

    def take(k: int, inputs: Tensor, index: Tensor) -> None:
        seen[k].append(index)
        with autocast(data.recipe, data.device):
            logits = networks[k](inputs)
        parts[k].append(predictions(logits, members[k].given.table[index], data.true_table[index]))

    for read in samples.batches():
        for k, own in enumerate(batches):
            for inputs, index in own.add(*read):
                take(k, inputs, index)
    for k, own in enumerate(batches):
        for inputs, index in own.rest():
            take(k, inputs, index)
    group, none = data.placement.group, samples.index[:0]
    found: list[Labelled | None] = []
    for k, member in enumerate(members):
        index = group.joined(torch.cat([none, *seen[k]]))
        result = _of_all(concatenate(parts[k], none.device), group)
        found.append(Labelled(result, member.given.table[index], data.true_table[index]))
    return found


def _of_all(own: Predictions, group: Group) -> Predictions:
    """The predictions of all processes, in the order of the set."""
    return Predictions(group.joined(own.predicted), group.joined(own.loss_given), group.joined(own.loss_true))


class _Regrouped:
    """Batches of EVALUATION_BATCH of the chosen samples among those that are read. `chosen` is bool[N]."""

    def __init__(self, chosen: Tensor) -> None:
        self._chosen = chosen
        self._inputs: list[Tensor] = []
        self._index: list[Tensor] = []

    def add(self, inputs: Tensor, index: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Take in what was read; gives the batches that are full."""
        mask = self._chosen[index]
        self._inputs.append(inputs[mask])
        self._index.append(index[mask])
        if sum(map(len, self._index)) >= EVALUATION_BATCH:
            inputs, index = torch.cat(self._inputs), torch.cat(self._index)
            full = len(index) // EVALUATION_BATCH * EVALUATION_BATCH
            for start in range(0, full, EVALUATION_BATCH):
                span = slice(start, start + EVALUATION_BATCH)
                yield inputs[span], index[span]
            self._inputs, self._index = [inputs[full:]], [index[full:]]

    def rest(self) -> Iterator[tuple[Tensor, Tensor]]:
        """What is left, if anything."""
        if sum(map(len, self._index)):
            yield torch.cat(self._inputs), torch.cat(self._index)
