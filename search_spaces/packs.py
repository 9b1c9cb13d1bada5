"""Packs: runs that can share one data stream, trained together by one worker. Placement, never identity."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from search_spaces.runs import Run
from search_spaces.spec import FlowRecipe


@dataclass(frozen=True, slots=True)
class Pack:
    """Runs that see the same batches: they differ in the noise on their labels and, with a shared stream, in seed."""

    runs: tuple[Run, ...]

    @property
    def pack_id(self) -> str:
        """Names the set of runs: 12 hex digits."""
        joined = ",".join(sorted(run.run_id for run in self.runs))
        return hashlib.sha256(joined.encode()).hexdigest()[:12]


def group_packs(
    runs: Iterable[Run], packing: str | int, room: Callable[[Run], float] = lambda run: math.inf
) -> list[Pack]:
    """Group runs by data stream, keeping their order.

    Args:
        runs: of one space.
        packing: "off" for one run a pack, an integer for a largest size, "auto" for as many as memory holds.
        room: how many runs like this one a worker's memory holds; bounds a pack of "auto", which has at least one.
    """
    streams: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        key = (run.dataset, run.samples, run.architecture, run.width, run.stream_seed, run.recipe, run.evaluation)
        streams.setdefault(key, []).append(run)
    packs = []
    for members in streams.values():
        largest = _largest_pack(members[0], packing, room, len(members))
        packs += [Pack(tuple(members[i : i + largest])) for i in range(0, len(members), largest)]
    return packs


def _largest_pack(run: Run, packing: str | int, room: Callable[[Run], float], wanted: int) -> int:
    if packing == "off":
        return 1
    if isinstance(packing, int):
        return packing
    if isinstance(run.recipe, FlowRecipe):
        return wanted  # the label vectors of a flow add next to nothing to its one decomposition
    return max(1, int(min(wanted, room(run))))
