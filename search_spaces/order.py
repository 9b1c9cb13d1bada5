"""The order in which packs run: one seed of every cell first, coarse before fine, then the next seed.

So a sweep that is stopped early has a whole diagram at a low resolution or with few seeds, not a corner of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from search_spaces.packs import Pack
from search_spaces.runs import Run
from search_spaces.selectors import Selector, parse_selector
from search_spaces.spec import Priority

DEFAULT_PRIORITY = 0
"""Of runs that no priority of the space is about."""


def order_packs(
    packs: Sequence[Pack],
    runs: Sequence[Run],
    *,
    first: Sequence[Selector] = (),
    priorities: Sequence[Priority] = (),
    seconds: Callable[[Pack], float],
) -> list[Pack]:
    """Sort `packs`: what is `first`, by priority, by seed, coarse before fine, and the longest of these first.

    A pack goes by the most urgent of its runs: they train together, so a selector of noise rates alone brings the
    other rates of its packs along, and the first of several seeds in a pack the others.

    Args:
        packs: what is left to do of `runs`; their order does not matter.
        runs: all of the grid. They say which seed comes first and what the grid is, so that a grid that is half done
            goes on as it began. Packs without a run of the grid come after the others.
        first: cells that run before all others, in this order.
        priorities: of the space. The largest that matches a run counts.
        seconds: expected seconds of a pack.
    """
    seed_ranks = {seed: rank for rank, seed in enumerate(dict.fromkeys(run.seed for run in runs))}
    column_levels = levels_of(run.ratio for run in runs)
    rate_levels = levels_of(run.noise.rate for run in runs)
    ranked = [(parse_selector(entry.cells), entry.priority) for entry in priorities]

    def rank_in_first(run: Run) -> int:
        return next((rank for rank, selector in enumerate(first) if selector.matches(run)), len(first))

    def priority(run: Run) -> int:
        return max((value for selector, value in ranked if selector.matches(run)), default=DEFAULT_PRIORITY)

    beside = len(runs)  # more than any level, and than any rank of a seed

    def level(run: Run) -> int:
        return max(column_levels.get(run.ratio, beside), rate_levels.get(run.noise.rate, beside))

    def seed_rank(run: Run) -> int:
        return seed_ranks.get(run.seed, beside) if level(run) < beside else beside

    def key(pack: Pack) -> tuple[object, ...]:
        return (
            min(map(rank_in_first, pack.runs)),
            -max(map(priority, pack.runs)),
            min(map(seed_rank, pack.runs)),
            min(map(level, pack.runs)),
            -seconds(pack),
            min((run.ratio, run.noise.rate, run.run_id) for run in pack.runs),  # whatever the order they came in
        )

    return sorted(packs, key=key)


def levels_of(values: Iterable[float]) -> dict[float, int]:
    """The level of each distinct value, by its rank among them."""
    distinct = sorted(set(values))
    return dict(zip(distinct, bisection_levels(len(distinct)), strict=True))


def bisection_levels(count: int) -> list[int]:
    """The level of each of `count` points in a row: 0 at both ends, 1 in the middle, 2 at the quarters, and so on.

    The points up to any level cover the row evenly: their distances differ by one at most.
    """
    levels = [0] * count
    gaps = [(0, count - 1)]
    level = 0
    while gaps:
        level += 1
        halves = []
        for low, high in gaps:
            if high - low > 1:
                middle = (low + high) // 2
                levels[middle] = level
                halves += [(low, middle), (middle, high)]
        gaps = halves
    return levels
