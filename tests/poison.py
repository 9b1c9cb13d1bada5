"""Let a run break down on purpose."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from search_spaces.runs import Run
from workers.batches import MicroBatch
from workers.stack import Stack


def poison(monkeypatch: pytest.MonkeyPatch, when: Callable[[Run, int], bool]) -> None:
    """Fill a run's first weights with NaN before a step is taken, `when(run, steps taken)` says so."""
    plain_step = Stack.accumulate

    def poisoned(self: Stack, batch: MicroBatch) -> None:
        weight = next(self.model.parameters())
        size = len(weight) // self.models
        for number, member in enumerate(self.members):
            if when(member.run, self.step):
                with torch.no_grad():
                    weight[number * size : (number + 1) * size] = math.nan
        plain_step(self, batch)

    monkeypatch.setattr(Stack, "accumulate", poisoned)
