"""What training is fed with: labels, and batches in micro-batches. Knows nothing of where they come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

EVALUATION_BATCH = 512
"""Samples that are read at once in an evaluation, and that go through a network alone at once."""


@dataclass(frozen=True)
class GivenLabels:
    """The labels that one run trains on, and what was done to them.

    Attributes:
        table: int64[N] on the device, by original index.
        beyond: bool[N] on the device, the corrupted examples outside of the part of the train set that every
            evaluation goes through; these are evaluated too (none where it is the whole train set).
    """

    table: Tensor
    beyond: Tensor
    mask_hash: str
    realised_rate: float


@dataclass(frozen=True)
class MicroBatch:
    """What goes through a network at once.

    Attributes:
        inputs, index: this process's share: float32 [b, ...] and original indices int64 [b], on the device.
        samples: of the shares of all processes.
        weight: one over the samples of the whole batch.
        ends_step: whether the batch is complete with it.
    """

    inputs: Tensor
    index: Tensor
    samples: int
    weight: float
    ends_step: bool


@dataclass(frozen=True)
class Span:
    """A micro-batch as positions `first` up to `last` in the order of an epoch."""

    first: int
    last: int
    weight: float
    ends_step: bool


def micro_batches(samples: int, batch: int, micro: int, skip_steps: int = 0) -> Iterator[Span]:
    """An epoch of `samples` in batches, and these in micro-batches; the last of each may be short."""
    for start in range(skip_steps * batch, samples, batch):
        stop = min(start + batch, samples)
        for first in range(start, stop, micro):
            last = min(first + micro, stop)
            yield Span(first, last, 1.0 / (stop - start), last == stop)
