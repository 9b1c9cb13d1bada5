"""Balance: how much of a pack to give to a worker that has nothing, so that near the end none idles beside a full one.

A pack is worth more whole, since its runs share a stream, so it is cut only where it would outlast all other work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from search_spaces.packs import Pack
from search_spaces.recipe import FlowRecipe
from search_spaces.runs import Run

ROUNDING = 1e-9
"""Of sums of work, relative; a pack that is just its share stays whole."""


def fair_share(queued: float, busy: Sequence[float], workers: int) -> float:
    """Work to give to an idle worker so that all of them could end at one time, if work could be cut anywhere.

    What is queued fills up the workers that have least, as water does: it is at least `queued / workers`, and more
    where others are busy for longer.

    Args:
        queued: work that no worker has; seconds, as all work here.
        busy: what each worker that has some still has to do.
        workers: how many there are, or will be; at least one of them has nothing.
    """
    assert workers > len(busy), "the worker that asks has nothing"
    loads = [0.0] * (workers - len(busy)) + sorted(max(0.0, each) for each in busy)
    level = total = queued
    for count, load in enumerate(loads):
        if count and load >= level:
            break
        total += load
        level = total / (count + 1)
    return level


def cut(pack: Pack, share: float, work: Callable[[Run], float]) -> tuple[Pack, Pack | None]:
    """The first runs of a pack, whose work is nearest to `share`, and the others; at least one, and maybe all.

    Exact gradient flow stays whole: its runs share the decomposition, which is nearly all their work.

    Args:
        pack: at least one run.
        share: of one worker.
        work: of a run.
    """
    if isinstance(pack.runs[0].recipe, FlowRecipe):
        return pack, None
    taken, end = 0.0, 0
    for run in pack.runs:
        of_run = work(run)
        if end and taken + of_run / 2 > share * (1 + ROUNDING):
            break
        taken += of_run
        end += 1
    return (Pack(pack.runs[:end]), Pack(pack.runs[end:])) if end < len(pack.runs) else (pack, None)
