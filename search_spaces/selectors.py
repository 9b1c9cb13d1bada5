"""Selectors: conditions that pick cells, as text such as "noise_rate>=0.2 ratio<10". Placement, never identity."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search_spaces.runs import Run  # the spec imports this module, and the runs import the spec

EXAMPLE = "noise_rate>=0.2 ratio<10"
RELATIVE_TOLERANCE = 1e-9
"""Of two floats that count as equal: 0.1 + 0.2 is 0.3."""

Sign = int
"""Of the difference between a run's value and a condition's: -1, 0 or 1."""

OPERATORS: dict[str, Callable[[Sign], bool]] = {
    "=": lambda sign: sign == 0,
    "!=": lambda sign: sign != 0,
    "<": lambda sign: sign < 0,
    "<=": lambda sign: sign <= 0,
    ">": lambda sign: sign > 0,
    ">=": lambda sign: sign >= 0,
}
NAMES: dict[str, Callable[[Run], Sequence[float]]] = {
    "noise_rate": lambda run: (run.noise.rate,),
    "ratio": lambda run: (run.ratio,) if run.target_ratio is None else (run.ratio, run.target_ratio),
    "width": lambda run: (run.width,),
    "samples": lambda run: (run.samples,),
    "parameters": lambda run: (run.parameters,),
    "seed": lambda run: (run.seed,),
}
"""What a condition may be about. A ratio is the realised p/n, and goes by its target too."""
ALIASES = {"noise": "noise_rate", "p/n": "ratio"}

_SPACED_OPERATOR = re.compile(r"\s*([=!<>]+)\s*")
_SEPARATOR = re.compile(r"[\s,]+")
_CONDITION = re.compile(r"([^=!<>]+)([=!<>]+)([^=!<>]+)")


@dataclass(frozen=True)
class Condition:
    """One comparison with a number."""

    name: str
    operator: str
    value: int | float

    def matches(self, run: Run) -> bool:
        return OPERATORS[self.operator](_compare(NAMES[self.name](run), self.value))

    def __str__(self) -> str:
        return f"{self.name}{self.operator}{self.value}"


@dataclass(frozen=True)
class Selector:
    """The runs for which all conditions hold."""

    conditions: tuple[Condition, ...]

    def matches(self, run: Run) -> bool:
        return all(condition.matches(run) for condition in self.conditions)

    def __str__(self) -> str:
        return " ".join(map(str, self.conditions))


def parse_selector(text: str) -> Selector:
    """Read conditions that are joined by spaces or commas.

    Raises:
        ValueError: with every problem, and what is allowed.
    """
    words = _SEPARATOR.split(_SPACED_OPERATOR.sub(r"\1", text).strip(" \t\r\n,"))
    conditions, problems = [], []
    for word in filter(None, words):
        found, wrong = _parse_condition(word)
        conditions += [found] if found else []
        problems += wrong
    if not conditions and not problems:
        problems = ["it has no condition"]
    if problems:
        raise ValueError(
            f"cells {text!r}: {'; '.join(problems)}. A condition is a name ({', '.join(NAMES)}; for short "
            f"{', '.join(ALIASES)}), an operator ({' '.join(OPERATORS)}) and a number; all must hold. "
            f"For example {EXAMPLE!r}"
        )
    return Selector(tuple(conditions))


def check_selectors(selectors: Iterable[Selector], runs: Sequence[Run]) -> None:
    """See that every selector matches some run.

    Raises:
        ValueError: with every selector that matches none, and the values that exist.
    """
    problems = []
    for selector in selectors:
        if not any(map(selector.matches, runs)):
            names = dict.fromkeys(condition.name for condition in selector.conditions)
            there_are = "; ".join(f"{name} {_values_of(name, runs)}" for name in names)
            problems.append(f"cells {str(selector)!r} match no run of this space. There are: {there_are}")
    if problems:
        raise ValueError("\n".join(problems))


def _parse_condition(word: str) -> tuple[Condition | None, list[str]]:
    """A condition, or what is wrong with it."""
    parts = _CONDITION.fullmatch(word)
    if parts is None:
        return None, [f"{word!r} is not a name, an operator and a number"]
    name, operator, number = parts.groups()
    name = ALIASES.get(name, name)
    value = _parse_number(number)
    problems = []
    if name not in NAMES:
        problems.append(f"unknown name {name!r}")
    if operator not in OPERATORS:
        problems.append(f"unknown operator {operator!r}")
    if value is None:
        problems.append(f"{number!r} is not a finite number")
    if problems or value is None:
        return None, problems
    return Condition(name, operator, value), []


def _parse_number(text: str) -> int | float | None:
    """A finite number; whole ones as int, which is exact for any seed."""
    try:
        value = float(text)
    except ValueError:
        return None
    if not math.isfinite(value):
        return None
    try:
        return int(text)
    except ValueError:
        return int(value) if value.is_integer() else value


def _compare(values: Sequence[float], wanted: float) -> Sign:
    """The sign of the difference to the first of `values`, and 0 where any of them is equal to `wanted`."""
    if any(_is_equal(value, wanted) for value in values):
        return 0
    return 1 if values[0] > wanted else -1


def _is_equal(value: float, wanted: float) -> bool:
    if isinstance(value, int) and isinstance(wanted, int):
        return value == wanted
    return math.isclose(value, wanted, rel_tol=RELATIVE_TOLERANCE)


def _values_of(name: str, runs: Sequence[Run]) -> str:
    """The distinct values of all runs, sorted; the middle of many is left out."""
    values: Mapping[float, None] = dict.fromkeys(NAMES[name](run)[0] for run in runs)
    shown = [f"{value:.6g}" if isinstance(value, float) else str(value) for value in sorted(values)]
    return ", ".join(shown if len(shown) <= 20 else [*shown[:10], "...", *shown[-10:]])
