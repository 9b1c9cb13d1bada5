"""Where and how fast a pack is trained; nothing here changes what it gives, beyond rounding."""

from __future__ import annotations

from dataclasses import dataclass

from workers.group import ALONE, Group


@dataclass(frozen=True)
class Placement:
    """How a worker trains.

    Attributes:
        group: the processes that share every batch.
        decode_threads: threads that decode images for this process.
        compile: whether networks go through torch.compile.
    """

    group: Group = ALONE
    decode_threads: int = 1
    compile: bool = False
