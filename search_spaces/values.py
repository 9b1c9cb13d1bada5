"""Types of the values in a search space, and the short forms that YAML may use for them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field


def as_tuple(value: Any) -> Any:
    """Let a single number stand for a list of one."""
    return (value,) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def as_seeds(value: Any) -> Any:
    """Let `seeds: 3` stand for seeds 0, 1 and 2."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise ValueError(f"{value} seeds: must be at least 1")
        return tuple(range(value))
    return value


def as_off(value: Any) -> Any:
    """YAML 1.1 reads a bare `off` as false."""
    return "off" if value is False else value


Positive = Annotated[int, Field(ge=1)]
Counts = Annotated[tuple[Positive, ...], BeforeValidator(as_tuple), Field(min_length=1)]
Ratios = Annotated[
    tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...], BeforeValidator(as_tuple), Field(min_length=1)
]
Rate = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Rates = Annotated[tuple[Rate, ...], BeforeValidator(as_tuple), Field(min_length=1)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(as_seeds), Field(min_length=1)]
