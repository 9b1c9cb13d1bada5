"""Packs: every run in just one, none that mixes what may not mix, none too large; and they are no part of identity."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from search_spaces.catalog import load_space
from search_spaces.packs import group_packs
from search_spaces.runs import Run, expand
from search_spaces.spec import Recipe, SearchSpace

BY_WIDTH, BY_SAMPLES, FLOW = (load_space(name) for name in ("digits-grid", "digits-samples", "gmm-grid"))


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """Any axis, rates, seeds and packing; minibatches with and without a shared stream, and gradient flow."""
    base = draw(st.sampled_from([BY_WIDTH, BY_SAMPLES, FLOW]))
    varied: dict[str, object] = {"widths": unique(draw, 1, 64, 5), "ratios": None}
    if base is BY_SAMPLES:
        varied = {"samples": unique(draw, 10, 700, 5)}
    recipe = base.recipe
    if isinstance(recipe, Recipe):
        recipe = recipe.model_copy(update={"shared_stream": draw(st.booleans())})
    rates = tuple(each / 20 for each in unique(draw, 0, 9, 6))
    return base.model_copy(
        update=varied
        | {
            "noise": base.noise.model_copy(update={"rates": rates}),
            "seeds": unique(draw, 0, 99, 4),
            "packing": draw(st.sampled_from(["auto", "off", 1, 2, 3, 50])),
            "recipe": recipe,
        }
    )


def unique(draw: st.DrawFn, least: int, most: int, count: int) -> tuple[int, ...]:
    return tuple(draw(st.lists(st.integers(least, most), min_size=1, max_size=count, unique=True)))


def stream(run: Run) -> tuple[object, ...]:
    """All that a pack has in common."""
    shared = isinstance(run.recipe, Recipe) and run.recipe.shared_stream
    common = (run.dataset, run.samples, run.architecture, run.width, run.recipe, run.evaluation)
    return common if shared else (*common, run.seed)


def in_order(runs: Sequence[Run], among: Sequence[Run]) -> bool:
    places = [among.index(run) for run in runs]
    return places == sorted(places)


@given(spaces(), st.floats(0.1, 12), st.randoms(use_true_random=False))
def test_every_run_is_in_one_pack_in_order_and_nothing_is_mixed(
    space: SearchSpace, room: float, random: object
) -> None:
    runs = expand(space)
    missing = [run for run in runs if random.random() < 0.8]  # type: ignore[attr-defined]
    packs = group_packs(missing, space.packing, lambda run: room)
    assert sorted(run.run_id for pack in packs for run in pack.runs) == sorted(run.run_id for run in missing)
    by_stream: dict[tuple[object, ...], list[Run]] = {}
    for pack in packs:
        by_stream.setdefault(stream(pack.runs[0]), []).extend(pack.runs)
    assert in_order([members[0] for members in by_stream.values()], runs)
    assert all(in_order(members, runs) for members in by_stream.values())
    for pack in packs:
        assert pack.runs
        assert len({stream(run) for run in pack.runs}) == 1
        assert len(pack.runs) <= {"off": 1, "auto": len(runs)}.get(str(space.packing), space.packing)  # type: ignore[operator]
        if space.packing == "auto" and isinstance(space.recipe, Recipe):
            assert len(pack.runs) <= max(1, int(room))
    assert len({pack.pack_id for pack in packs}) == len(packs)


@given(spaces(), st.floats(0.1, 12))
def test_no_pack_is_smaller_than_it_has_to_be(space: SearchSpace, room: float) -> None:
    """Of the packs of one stream all but the last are full."""
    packs = group_packs(expand(space), space.packing, lambda run: room)
    by_stream: dict[tuple[object, ...], list[int]] = {}
    for pack in packs:
        by_stream.setdefault(stream(pack.runs[0]), []).append(len(pack.runs))
    for sizes in by_stream.values():
        assert set(sizes[:-1]) <= {sizes[0]}
        assert sizes[-1] <= sizes[0]
        if len(sizes) > 1 and space.packing == "auto":
            assert sizes[0] == max(1, int(room))


@given(spaces(), st.sampled_from(["auto", "off", 1, 4]), st.integers(1, 5))
def test_packing_and_room_change_no_id(space: SearchSpace, packing: str | int, room: int) -> None:
    before = [run.run_id for run in expand(space)]
    runs = expand(space.model_copy(update={"packing": packing}))
    packed = [run.run_id for pack in group_packs(runs, packing, lambda run: room) for run in pack.runs]
    assert [run.run_id for run in runs] == before
    assert sorted(packed) == sorted(before)
