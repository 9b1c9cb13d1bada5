"""The order of packs: a whole diagram early, refined as it goes, and what is wanted first, first."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.launch_plan import LaunchOptions, plan_launch
from orchestrator.storage import open_storage
from search_spaces.catalog import load_space
from search_spaces.order import bisection_levels, levels_of, order_packs
from search_spaces.packs import Pack, group_packs
from search_spaces.runs import Run, expand
from search_spaces.selectors import parse_selector
from search_spaces.spec import Priority, SearchSpace
from tests.test_plan import LAPTOP, ledger_of, plan

BASE = load_space("digits-grid")


def space_of(widths: Sequence[int], rates: Sequence[float], seeds: Sequence[int]) -> SearchSpace:
    noise = BASE.noise.model_copy(update={"rates": tuple(rates)})
    return BASE.model_copy(update={"widths": tuple(widths), "noise": noise, "seeds": tuple(seeds)})


def unique(values: st.SearchStrategy[int], most: int) -> st.SearchStrategy[list[int]]:
    return st.lists(values, min_size=1, max_size=most, unique=True)


spaces = st.builds(
    space_of,
    unique(st.integers(1, 64), 9),
    unique(st.integers(0, 9), 5).map(lambda tenths: [each / 10 for each in tenths]),
    unique(st.integers(0, 99), 3),
)
packings = st.sampled_from(["auto", "off", 2])
shuffles = st.integers(0, 99).map(random.Random)


def by_width(pack: Pack) -> float:
    """Stands for the seconds that a pack takes."""
    return float(len(pack.runs) * pack.runs[0].width)


def levels(runs: Sequence[Run]) -> dict[str, int]:
    columns, rates = levels_of(run.ratio for run in runs), levels_of(run.noise.rate for run in runs)
    return {run.run_id: max(columns[run.ratio], rates[run.noise.rate]) for run in runs}


def test_levels_by_hand() -> None:
    assert [bisection_levels(count) for count in range(6)] == [
        [],
        [0],
        [0, 0],
        [0, 1, 0],
        [0, 1, 2, 0],
        [0, 2, 1, 2, 0],
    ]
    assert bisection_levels(9) == [0, 3, 2, 3, 1, 3, 2, 3, 0]
    assert levels_of([8.0, 2.0, 8.0, 4.0]) == {2.0: 0, 4.0: 1, 8.0: 0}


@given(st.integers(1, 300))
def test_every_level_covers_the_row_evenly(count: int) -> None:
    found = bisection_levels(count)
    assert len(found) == count
    for level in range(max(found) + 1):
        covered = [index for index, each in enumerate(found) if each <= level]
        assert covered[0] == 0
        assert covered[-1] == count - 1
        distance = (count - 1) / 2**level
        between = {high - low for low, high in itertools.pairwise(covered)}
        assert between <= {max(1, math.floor(distance)), max(1, math.ceil(distance))}


@given(spaces, packings, shuffles)
def test_every_pack_once_whatever_the_order_that_they_come_in(
    space: SearchSpace, packing: str | int, shuffle: random.Random
) -> None:
    runs = expand(space)
    packs = group_packs(runs, packing)
    ordered = order_packs(packs, runs, seconds=by_width)
    assert sorted(pack.pack_id for pack in ordered) == sorted(pack.pack_id for pack in packs)
    shuffle.shuffle(packs)
    assert order_packs(packs, runs, seconds=by_width) == ordered
    widths, rates = list(space.widths or ()), list(space.noise.rates)
    shuffle.shuffle(widths)
    shuffle.shuffle(rates)
    assert order_packs(packs, expand(space_of(widths, rates, space.seeds)), seconds=by_width) == ordered


@given(spaces, packings)
def test_seed_by_seed_then_coarse_before_fine_then_the_longest(space: SearchSpace, packing: str | int) -> None:
    runs = expand(space)
    ordered = order_packs(group_packs(runs, packing), runs, seconds=by_width)
    level = levels(runs)
    places = [
        (
            space.seeds.index(pack.runs[0].seed),
            min(level[run.run_id] for run in pack.runs),
            -by_width(pack),
        )
        for pack in ordered
    ]
    assert places == sorted(places)


@given(spaces)
def test_the_ends_of_a_seed_come_first_and_its_packs_refine_the_grid(space: SearchSpace) -> None:
    runs = expand(space)
    ordered = order_packs(group_packs(runs, "auto"), runs, seconds=by_width)
    widths = sorted(space.widths or ())
    for rank, seed in enumerate(space.seeds):
        of_seed = [pack.runs[0].width for pack in ordered[rank * len(widths) : (rank + 1) * len(widths)]]
        assert {pack.runs[0].seed for pack in ordered[rank * len(widths) : (rank + 1) * len(widths)]} == {seed}
        assert of_seed[: min(2, len(widths))] == list(dict.fromkeys([widths[-1], widths[0]]))
        found = bisection_levels(len(widths))
        assert [found[widths.index(width)] for width in of_seed] == sorted(found)


def test_single_runs_start_at_the_corners_of_the_grid() -> None:
    runs = expand(space_of([2, 4, 8, 16, 32], [0.0, 0.1, 0.2], [0]))
    ordered = order_packs(group_packs(runs, "off"), runs, seconds=by_width)
    cells = [(pack.runs[0].width, pack.runs[0].noise.rate) for pack in ordered]
    assert cells[:4] == [(32, 0.0), (32, 0.2), (2, 0.0), (2, 0.2)]
    assert set(cells[4:9]) == {(8, 0.0), (8, 0.1), (8, 0.2), (2, 0.1), (32, 0.1)}


def test_what_is_left_of_a_grid_goes_on_as_the_whole_began() -> None:
    """The levels are those of the grid, not of what is missing; so are the ranks of the seeds."""
    runs = expand(space_of([2, 4, 8, 16, 32], [0.0, 0.2], [5, 3]))
    whole = order_packs(group_packs(runs, "auto"), runs, seconds=by_width)
    assert [pack.runs[0].seed for pack in whole] == [5] * 5 + [3] * 5
    assert order_packs(whole[7:] + whole[1:4], runs, seconds=by_width) == whole[1:4] + whole[7:]


@given(spaces, packings, st.integers(-3, 3), st.integers(-3, 3))
def test_priorities_come_before_seeds_and_the_largest_counts(
    space: SearchSpace, packing: str | int, of_wide: int, of_noisy: int
) -> None:
    runs = expand(space)
    priorities = [Priority(cells="width>=8", priority=of_wide), Priority(cells="noise_rate>0.3", priority=of_noisy)]
    ordered = order_packs(group_packs(runs, packing), runs, priorities=priorities, seconds=by_width)

    def priority(run: Run) -> int:
        given_to_it = [of_wide] * (run.width >= 8) + [of_noisy] * (run.noise.rate > 0.3)
        return max(given_to_it, default=0)

    places = [
        (
            -max(map(priority, pack.runs)),
            space.seeds.index(pack.runs[0].seed),
            min(levels(runs)[r.run_id] for r in pack.runs),
        )
        for pack in ordered
    ]
    assert places == sorted(places)


def test_named_cells_come_before_every_priority_in_the_order_given() -> None:
    runs = expand(space_of([2, 4, 8], [0.0, 0.2], [0, 1]))
    first = [parse_selector("width=4 seed=1"), parse_selector("seed=1")]
    priorities = [Priority(cells="width=2", priority=10**9)]
    ordered = order_packs(group_packs(runs, "auto"), runs, first=first, priorities=priorities, seconds=by_width)
    seen = [(pack.runs[0].seed, pack.runs[0].width) for pack in ordered]
    assert seen == [(1, 4), (1, 2), (1, 8), (0, 2), (0, 8), (0, 4)]


def test_priorities_change_no_id() -> None:
    plain = expand(BASE)
    urgent = load_space("digits-grid", ["priorities=[{cells: width=8, priority: 1}]"])
    assert urgent.priorities
    assert [run.run_id for run in expand(urgent)] == [run.run_id for run in plain]


def test_a_plan_is_in_this_order_and_priorities_may_change_from_launch_to_launch(tmp_path: Path) -> None:
    ledger_of(tmp_path)
    urgent = "priorities=[{cells: width=12, priority: 1}]"
    assert [pack.runs[0].width for pack in plan(tmp_path).packs[:3]] == [32, 2, 8]
    assert [pack.runs[0].width for pack in plan(tmp_path, urgent).packs[:4]] == [12, 12, 12, 32]
    first = (parse_selector("seed=2"),)
    options = LaunchOptions(open_storage(tmp_path), "sweep", tmp_path, first=first)
    made = plan_launch(load_space("digits-grid", [urgent]), options, LAPTOP)
    assert [(pack.runs[0].seed, pack.runs[0].width) for pack in made.packs[:4]] == [(2, 12), (2, 32), (2, 2), (2, 8)]
