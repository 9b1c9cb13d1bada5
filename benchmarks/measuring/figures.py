"""Figures, and the arithmetic behind them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Goal:
    """A bound that a figure's median is held against: from below, or from above."""

    value: float
    is_least: bool

    def is_met(self, median: float) -> bool:
        return median >= self.value if self.is_least else median <= self.value


@dataclass(frozen=True)
class Figure:
    """One line of the table: what was measured, once in every round."""

    what: str
    values: tuple[float, ...]
    unit: str = ""
    """"s" for seconds; empty for a ratio."""
    goal: Goal | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    """Raw values behind it, for the JSON."""

    @property
    def spread(self) -> Spread:
        return spread(self.values)


@dataclass(frozen=True)
class Spread:
    """How many values, and how far apart."""

    n: int
    minimum: float
    median: float
    maximum: float


def spread(values: Sequence[float]) -> Spread:
    """Number, smallest, median (the mean of the middle two of an even number) and largest value."""
    return Spread(len(values), min(values), statistics.median(values), max(values))


def efficiency(loop_seconds: float, slot_seconds: float) -> float:
    """Share of the slots' time that the plain loop would have needed for the same runs."""
    return loop_seconds / slot_seconds


def cost_per_run(loop_seconds: float, slot_seconds: float, runs: int) -> float:
    """Slot seconds beside the plain loop's, for each run; below zero where noise outweighs it."""
    return (slot_seconds - loop_seconds) / runs


def pair_up(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, ...]:
    """Ratios within each round."""
    return tuple(above / below for above, below in zip(numerators, denominators, strict=True))
