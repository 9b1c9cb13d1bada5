"""The early stop of a recipe: whether a run interpolates and nothing changes any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from search_spaces.recipe import EarlyStop

ROUNDING = 1e-9
"""Errors are shares of samples: differences between them are rounded."""


@dataclass
class Watch:
    """What the last evaluations of a run said of it; without a rule it never stops."""

    rule: EarlyStop | None
    seen: list[tuple[float, float]] = field(default_factory=list)
    """Train error on given labels and validation error of the last evaluations, oldest first; part of checkpoints."""

    def add(self, row: Mapping[str, Any]) -> None:
        """Take in the row of an evaluation."""
        if self.rule is not None:
            self.seen.append((row["train_error_given"], row["val_error"]))
            del self.seen[: -self.rule.evaluations]

    @property
    def says_stop(self) -> bool:
        """Whether the rule holds over as many evaluations as it asks for."""
        if self.rule is None or len(self.seen) < self.rule.evaluations:
            return False
        train, validation = zip(*self.seen, strict=True)
        interpolates = max(train) <= self.rule.train_error
        return bool(interpolates and max(validation) - min(validation) <= self.rule.tolerance + ROUNDING)
