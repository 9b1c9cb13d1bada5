"""Selectors: what a condition means, and what is said of one that means nothing."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.catalog import SpaceError, load_space
from search_spaces.runs import Run, expand
from search_spaces.selectors import NAMES, OPERATORS, Condition, Selector, check_selectors, parse_selector

RUNS = expand(load_space("digits-grid"))
BY_TARGET = expand(load_space("digits-grid", ["widths=null", "ratios=[2.75, 10, 155]", "seeds=2"]))
PLAIN: dict[str, Callable[[float, float], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

names = st.sampled_from(sorted(NAMES))
numbers = st.one_of(st.integers(-(10**30), 10**30), st.floats(allow_nan=False, allow_infinity=False))


def chosen(text: str, runs: list[Run] = RUNS) -> list[Run]:
    selector = parse_selector(text)
    return [run for run in runs if selector.matches(run)]


@pytest.mark.parametrize("text", ["noise_rate>=0.2 width<8", "noise >= 2e-1,width < 8", " width<8.0 ,  noise>=0.2, "])
def test_all_conditions_must_hold_and_are_joined_by_spaces_or_commas(text: str) -> None:
    assert chosen(text) == [run for run in RUNS if run.noise.rate >= 0.2 and run.width < 8]
    assert str(parse_selector(text)) in ("noise_rate>=0.2 width<8", "width<8 noise_rate>=0.2")


@given(st.sampled_from(["width", "samples", "parameters", "seed"]), st.sampled_from(sorted(PLAIN)), st.integers(0, 600))
def test_operators_on_whole_numbers_are_pythons(name: str, symbol: str, value: int) -> None:
    condition = Condition(name, symbol, value)
    assert [condition.matches(run) for run in RUNS] == [PLAIN[symbol](getattr(run, name), value) for run in RUNS]


@given(st.sampled_from(sorted(PLAIN)), st.sampled_from(["noise", "p/n"]), st.floats(0, 1))
def test_operators_on_fractions_are_pythons_where_nothing_is_close(symbol: str, alias: str, value: float) -> None:
    selector = parse_selector(f"{alias}{symbol}{value!r}")
    for run in RUNS:
        number = run.noise.rate if alias == "noise" else run.ratio
        if number == value or not math.isclose(number, value, rel_tol=1e-6):
            assert selector.matches(run) == PLAIN[symbol](number, value)


@given(names, numbers)
def test_operators_that_exclude_each_other_share_the_runs_out(name: str, value: float) -> None:
    matched = {
        symbol: {run for run in BY_TARGET if Condition(name, symbol, value).matches(run)} for symbol in OPERATORS
    }
    for some, others in (("=", "!="), ("<", ">="), (">", "<=")):
        assert matched[some].isdisjoint(matched[others])
        assert matched[some] | matched[others] == set(BY_TARGET)


def test_fractions_are_equal_up_to_rounding() -> None:
    runs = expand(load_space("digits-grid", ["noise.rates=[0, 0.3]", "seeds=1"]))
    rounded = chosen(f"noise_rate={0.1 + 0.2!r}", runs)
    assert [run.noise.rate for run in rounded] == [0.3] * 7
    assert chosen(f"noise_rate<{0.1 + 0.2!r}", runs) == [run for run in runs if run.noise.rate == 0]
    assert not chosen("noise_rate=0.30001", runs)


def test_a_ratio_goes_by_the_realised_value_and_by_its_target() -> None:
    assert {run.width for run in chosen("ratio=10", BY_TARGET)} == {8}  # realised: 10.244
    assert {run.width for run in chosen("ratio=10.244", BY_TARGET)} == {8}
    assert {run.width for run in chosen("ratio<=10", BY_TARGET)} == {4, 8}
    assert {run.width for run in chosen("ratio>10", BY_TARGET)} == {32}
    assert {run.width for run in chosen("ratio>10.1", BY_TARGET)} == {8, 32}


def test_large_seeds_are_exact() -> None:
    large = 2**60
    runs = expand(load_space("digits-grid", [f"seeds=[{large}, {large + 1}]", "noise.rates=0", "widths=2"]))
    assert [run.seed for run in chosen(f"seed={large + 1}", runs)] == [large + 1]


@given(st.lists(st.builds(Condition, names, st.sampled_from(sorted(OPERATORS)), numbers), min_size=1, max_size=4))
def test_the_text_of_a_selector_reads_back_as_the_same(conditions: list[Condition]) -> None:
    selector = Selector(tuple(conditions))
    again = parse_selector(str(selector))
    assert again == selector
    assert str(parse_selector(str(again))) == str(again)


def test_all_problems_are_told_at_once_with_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="cells") as caught:
        parse_selector("widht=8 seed==0, ratio<ten samples noise_rate=nan width<=1<2")
    message = str(caught.value)
    for part in ("unknown name 'widht'", "unknown operator '=='", "'ten' is not a finite number", "'nan' is not"):
        assert part in message
    for part in ("'samples' is not a name, an operator and a number", "'width<=1<2' is not", *NAMES, *OPERATORS):
        assert part in message
    assert "For example 'noise_rate>=0.2 ratio<10'" in message


@pytest.mark.parametrize("text", ["", "  , ", "=3", "width=", "width=1e999", "=", "9" * 5000, f"seed={'9' * 5000}"])
def test_what_is_no_selector_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="For example"):
        parse_selector(text)


def test_a_selector_that_matches_nothing_is_refused_with_the_values_that_exist() -> None:
    right = parse_selector("width=8")
    check_selectors([right], RUNS)
    wrong = [right, parse_selector("width=9 noise_rate>0.1"), parse_selector("seed=3")]
    with pytest.raises(ValueError, match="no run") as caught:
        check_selectors(wrong, RUNS)
    first, second = str(caught.value).splitlines()
    assert "'width=9 noise_rate>0.1'" in first
    assert "width 2, 4, 6, 8, 12, 16, 32; noise_rate 0, 0.2, 0.4" in first
    assert second.endswith("There are: seed 0, 1, 2")
    many = expand(load_space("digits-grid", ["seeds=100"]))
    with pytest.raises(ValueError, match=r"seed 0, 1, .*, 9, \.\.\., 90, .*, 99$"):
        check_selectors([parse_selector("seed=100")], many)


def test_priorities_of_a_space_are_checked_when_it_is_read_and_kept_in_canonical_form() -> None:
    space = load_space("digits-grid", ["priorities=[{cells: 'noise >= 0.2, p/n<1e1', priority: 3}]"])
    assert [(entry.cells, entry.priority) for entry in space.priorities] == [("noise_rate>=0.2 ratio<10", 3)]
    with pytest.raises(SpaceError, match=r"(?s)priorities\.0\.cells.*unknown name 'widht'"):
        load_space("digits-grid", ["priorities=[{cells: widht=8, priority: 3}]"])
    with pytest.raises(SpaceError, match=r"priorities\.0\.priority"):
        load_space("digits-grid", ["priorities=[{cells: width=8}]"])
