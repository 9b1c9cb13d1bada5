"""Steps of training as CUDA graphs: a narrow network spends its time on launching kernels, which a graph does at once.

A graph holds a whole step on one batch: the forward pass, the losses, the backward pass, the optimiser. It runs the
kernels that a step without it runs, so that it gives the same, bit for bit, as long as the learning rate is a float32
(`single`): a graph reads it from memory, where the optimiser's kernels take no other.

Only what is the same in every step can be in a graph. Batches that are short or come in parts are trained on without
one, by the same weights and the same state of the optimiser; so are the first few, which let torch and its libraries
make all that they make only once. Recording computes nothing, so that nothing has to be put back after it.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from search_spaces.recipe import Recipe
from search_spaces.runs import Run
from workers.batches import MicroBatch
from workers.placement import Placement

WARM_UP_STEPS = 3
"""Before the recording, as torch's documentation has it; they are steps like any others."""

Work = Callable[[MicroBatch], None]


def graphed_step(run: Run, device: torch.device, placement: Placement) -> GraphedStep | None:
    """For a stack of runs like this one; None where its steps cannot be graphs or are not to be.

    The loss scaling of fp16 decides on the CPU whether a step is taken; processes of a group wait for each other; and
    a batch in parts is no single piece of work.
    """
    recipe = run.recipe
    assert isinstance(recipe, Recipe)
    in_parts = recipe.micro_batch is not None and recipe.micro_batch < recipe.batch_size
    if not placement.cuda_graphs or device.type != "cuda":
        return None
    if recipe.precision == "fp16" or placement.group.size > 1 or in_parts:
        return None
    return GraphedStep(device, min(recipe.batch_size, run.samples))


def single(rate: float) -> float:
    """The float32 next to a learning rate."""
    return float(np.float32(rate))


class GraphedStep:
    """What a stack asks before every step: it takes full batches over, and trains on them once the rate is known.

    It does not hold on to the stack, so that a graph is freed with it and at no other time.

    Args:
        device: a CUDA device.
        samples: of a full batch.
    """

    def __init__(self, device: torch.device, samples: int) -> None:
        self._device, self._samples = device, samples
        self._taken: MicroBatch | None = None
        self.replays = 0
        """Steps so far that were a graph."""
        self.forget()

    def forget(self) -> None:
        """Network and optimiser have got other tensors than those that were recorded."""
        self._warmed_up = 0
        self._recorded: _Recorded | None = None

    def takes(self, batch: MicroBatch) -> bool:
        """Whether `step` will train on this micro-batch, which then must stay as it is until that."""
        alone = batch.ends_step and len(batch.index) == batch.samples and batch.weight == 1.0 / batch.samples
        if not alone or batch.samples != self._samples or self._device in _FAILED:
            return False
        self._taken = batch
        return True

    def step(self, rate: float, optimizer: Any, work: Work) -> bool:
        """Train on the batch that was taken; whether there was one.

        Args:
            rate: the learning rate, a float32; that of the optimiser's groups too.
            optimizer: of the stack, with torch's interface.
            work: the whole step on a batch, with the rate of the optimiser's groups; leaves no gradients.
        """
        batch, self._taken = self._taken, None
        if batch is None:
            return False
        if self._warmed_up < WARM_UP_STEPS:
            self._warmed_up += 1
            with _aside(self._device):
                work(batch)
            return True
        if self._recorded is None and self._device not in _FAILED:
            self._recorded = _try_to_record(batch, self._device, optimizer, work)
        if self._recorded is None or not self._recorded.fits(batch):
            work(batch)
        else:
            self._recorded.replay(batch, rate)
            self.replays += 1
        return True


@dataclass(eq=False)
class _Arena:
    """What all graphs on a device have in common: they run one after another on the stream of their caller, and nothing
    in it has to outlast a step. So however many they are, they take the memory of the largest.

    There is one as long as there is a graph: torch does not allow for a pool to be used again that none holds any more.
    """

    device: torch.device
    pool: Any = field(default_factory=lambda: torch.cuda.graph_pool_handle())
    batches: list[MicroBatch] = field(default_factory=list)

    def batch_like(self, batch: MicroBatch) -> MicroBatch:
        """The batch that is filled before a step and read in it."""
        for own in self.batches:
            if _same_kind(own, batch):
                return own
        inputs, index = torch.empty_like(batch.inputs), torch.empty_like(batch.index)
        own = MicroBatch(inputs.copy_(batch.inputs), index.copy_(batch.index), batch.samples, batch.weight, True)
        self.batches.append(own)
        return own


_ARENAS: WeakValueDictionary[torch.device, _Arena] = WeakValueDictionary()
_FAILED: set[torch.device] = set()
"""Devices on which recording failed: what fails once would fail for the next network too."""


@dataclass(frozen=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    batch: MicroBatch
    rate: Tensor
    arena: _Arena

    def fits(self, batch: MicroBatch) -> bool:
        return _same_kind(self.batch, batch)

    def replay(self, batch: MicroBatch, rate: float) -> None:
        self.batch.inputs.copy_(batch.inputs, non_blocking=True)
        self.batch.index.copy_(batch.index, non_blocking=True)
        self.rate.fill_(rate)
        self.graph.replay()


def _same_kind(one: MicroBatch, other: MicroBatch) -> bool:
    """Whether they differ in their values at most."""
    return (one.inputs.shape, one.inputs.dtype, one.weight) == (other.inputs.shape, other.inputs.dtype, other.weight)


def _try_to_record(batch: MicroBatch, device: torch.device, optimizer: Any, work: Work) -> _Recorded | None:
    """The step as a graph, which has not run yet; None, and a warning, where it cannot be one."""
    arena = _ARENAS.get(device) or _ARENAS.setdefault(device, _Arena(device))
    own, rate = arena.batch_like(batch), torch.zeros((), dtype=torch.float32, device=device)
    try:
        with _rate_in_memory(optimizer, rate):
            return _Recorded(_record(arena, lambda: work(own)), own, rate, arena)
    except RuntimeError as error:
        _FAILED.add(device)
        logging.getLogger(__name__).warning(
            "training goes on without CUDA graphs, more slowly: recording a step on %s failed (%s)", device, error
        )
        optimizer.zero_grad()  # the gradients that were begun are memory that nothing has been written to
        return None


def _record(arena: _Arena, work: Callable[[], None]) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    side = _side_stream(arena.device)
    before = torch.cuda.current_stream(arena.device)
    try:
        # other threads bring batches to the device meanwhile, which "global" would not allow
        with torch.cuda.graph(graph, pool=arena.pool, stream=side, capture_error_mode="thread_local"):
            work()
    finally:
        torch.cuda.set_stream(before)  # not every torch does, where the recording fails at its end
    return graph


@contextmanager
def _rate_in_memory(optimizer: Any, rate: Tensor) -> Iterator[None]:
    """Let the optimiser read its rate from memory, and Adam know that it is recorded. Its state never says so."""
    names = ("lr", "capturable")
    before = [{name: group[name] for name in names if name in group} for group in optimizer.param_groups]
    try:
        for group in optimizer.param_groups:
            group["lr"] = rate
            if "capturable" in group:
                group["capturable"] = True
        yield
    finally:
        for group, kept in zip(optimizer.param_groups, before, strict=True):
            group.update(kept)


@contextmanager
def _aside(device: torch.device) -> Iterator[None]:
    """On the stream that is recorded on, between what the caller's stream did before and will do after."""
    side, current = _side_stream(device), torch.cuda.current_stream(device)
    side.wait_stream(current)
    with torch.cuda.stream(side):
        yield
    current.wait_stream(side)


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for the whole process: libraries keep memory for each stream."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
