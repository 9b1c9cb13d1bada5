"""Processes that train one run together, and what they have to agree on. Alone, every method does nothing.

All of them hold the same model and walk through the same batches; each sees its own share of every batch, and what
must not depend on how many they are (gradients, batch norm, metrics) is put together again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

AGREE_SECONDS = 1.0
"""Between two agreements on whether to pause; each one lets the processes wait for each other."""
MOST_STEPS = 1000
WAIT = timedelta(days=30)


@dataclass(frozen=True)
class Group:
    """The processes of one worker, this one being number `rank` of `size`."""

    rank: int = 0
    size: int = 1
    control: dist.ProcessGroup | None = field(default=None, compare=False)
    """Of all of them on CPU (gloo), for what is no tensor of a model."""

    def share(self, count: int) -> slice:
        """This process's part of `count` things in a row: the parts follow each other and differ by at most one."""
        least, extra = divmod(count, self.size)
        start = self.rank * least + min(self.rank, extra)
        return slice(start, start + least + (self.rank < extra))

    def collect(self, tensor: Tensor) -> None:
        """Add a float tensor up over all processes: the sum goes to the first, in place, and the others are zeroed."""
        if self.size > 1:
            dist.all_reduce(tensor)
            if self.rank:
                tensor.zero_()

    def joined(self, part: Tensor) -> Tensor:
        """The parts of all processes, [m_rank, ...] each, one after the other, in every process."""
        if self.size == 1:
            return part
        counts = torch.zeros(self.size, dtype=torch.int64, device=part.device)
        counts[self.rank] = len(part)
        dist.all_reduce(counts)
        lengths = counts.tolist()
        padded = part.new_zeros((max(lengths), *part.shape[1:]))
        padded[: len(part)] = part
        parts = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(parts, padded)
        return torch.cat([each[:length] for each, length in zip(parts, lengths, strict=True)])

    def told(self, message: Any = None) -> Any:
        """What the first process says, in every process; the others give nothing. Pickled, and only among these."""
        if self.size == 1:
            return message
        carried = [message]
        dist.broadcast_object_list(carried, src=0, group=self.control)
        return carried[0]

    def everyones(self, value: Any) -> list[Any]:
        """What each process gives, in their order, in every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def agreed(self, wish: Callable[[], bool]) -> Callable[[], bool]:
        """The first process's `wish`, to be asked in every process after every step, with one answer for all.

        It reaches the others about once a second, so that they need not wait for each other at every step.
        """
        return wish if self.size == 1 else _Agreement(self, wish)


ALONE = Group()


def join_group() -> Group:
    """The group of all processes of torch's default process group, which must be up."""
    control = dist.new_group(backend="gloo", timeout=WAIT)  # for orders, while other workers train
    assert isinstance(control, dist.ProcessGroup)
    return Group(dist.get_rank(), dist.get_world_size(), control)


class _Agreement:
    def __init__(self, group: Group, wish: Callable[[], bool]) -> None:
        self._group, self._wish = group, wish
        self._steps = self._left = 1
        self._since = time.monotonic()

    def __call__(self) -> bool:
        self._left -= 1
        if self._left:
            return False
        seconds = max(1e-6, time.monotonic() - self._since)
        steps = min(max(1, int(self._steps * AGREE_SECONDS / seconds)), 2 * self._steps, MOST_STEPS)
        wished, self._steps = self._group.told((self._wish(), steps) if self._group.rank == 0 else None)
        self._left = self._steps
        self._since = time.monotonic()
        return bool(wished)
