"""Where and how fast a pack is trained; nothing here changes what it gives, beyond rounding."""

from __future__ import annotations

from dataclasses import dataclass

from workers.checkpoint import Engine
from workers.group import ALONE, Group


@dataclass(frozen=True)
class Placement:
    """How a worker trains.

    Attributes:
        group: the processes that share every batch.
        decode_threads: threads that decode images for this process.
        compile: whether networks go through torch.compile.
        engine: that trains the networks of a pack (stack.py); None for the faster one, as measured (fusion.py). Runs
            that go on from a checkpoint keep the one that they began with.
        fused: networks that the engine "fused" makes one, at most; None for what is fastest.
        cuda_graphs: whether steps on a GPU are replayed as CUDA graphs (cuda_graph.py).
        usual_pack: runs that the packs of this sweep have, where nothing cuts them.
    """

    group: Group = ALONE
    decode_threads: int = 1
    compile: bool = False
    engine: Engine | None = "sequential"
    fused: int | None = None
    cuda_graphs: bool = False
    usual_pack: int = 1
