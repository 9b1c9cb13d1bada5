"""The proposer as a searcher of Ray Tune: every trial is one run of the space, its config the point and the seed.

With `tune.Tuner` it hands out the grid of the space first and then batch after batch, each when the one before it has
ended. `bo-sweep launch --refine` drives the same object by hand: it asks for a batch, trains it as ordinary runs
(rounds.py) and tells what the ledger says.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from orchestrator.refine.proposer import Key, Proposal, propose
from orchestrator.refine.target import Target
from search_spaces.catalog import validate_space
from search_spaces.runs import expand, with_cells
from search_spaces.spec import SearchSpace

CONFIG = ("noise_rate", "width", "samples", "seed")
"""Keys of a trial's config."""


class LevelSetSearcher(Searcher):  # type: ignore[misc]
    """Suggests the runs that find where `target.metric` crosses `target.level`.

    What it suggests depends on the space, on the target and on the outcomes that it was told, but not on their order.
    A trial reports the metric under its name at its end; one that fails or reports no finite number is not tried again.

    Args:
        space: with the cells beside its grid that were placed before, if any.
        target: what to find, and for how many runs.
    """

    def __init__(self, space: SearchSpace, target: Target) -> None:
        super().__init__(metric=target.metric, mode="min")  # Tune asks for a mode; a level set has none
        self.space, self.target = space, target
        self.proposal: Proposal | None = None
        """The latest one."""
        self._outcomes: dict[Key, float | None] = {}
        self._in_training: dict[str, Key] = {}
        self._waiting = self._find_waiting()

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """The space is given already: Tune may bring nothing but the same metric."""
        return metric in (None, self.target.metric) and not config

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The config of the next run; None while a batch is in training; `Searcher.FINISHED` after the last one.

        Raises:
            ValueError: the whole grid has ended and fewer than four cells have the metric.
        """
        if not self._waiting:
            if self._in_training:
                return None
            self.proposal = propose(self.space, self._outcomes, self.target)
            self.space = with_cells(self.space, self.proposal.cells)
            self._waiting = self._find_waiting()
            if not self._waiting:
                return str(Searcher.FINISHED)
        key = self._in_training[trial_id] = self._waiting.popleft()
        return dict(zip(CONFIG, key, strict=True))

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Take in the end of a run; without a result, or with `error`, it counts as failed."""
        key = self._in_training.pop(trial_id, None)
        if key is not None:
            value = None if error or result is None else result.get(self.target.metric)
            self._outcomes[key] = float(value) if value is not None and math.isfinite(value) else None

    def tell(self, outcomes: Mapping[Key, float | None]) -> None:
        """Replace all outcomes by these, such as a whole ledger's."""
        self._outcomes = dict(outcomes)
        self._waiting = self._find_waiting()

    def save(self, checkpoint_path: str) -> None:
        """Write the state as JSON, runs in training too: Tune starts their trials again by itself."""
        state = {
            "space": self.space.model_dump(mode="json"),
            "outcomes": [[*key, value] for key, value in sorted(self._outcomes.items())],
            "in_training": [[trial_id, *key] for trial_id, key in self._in_training.items()],
        }
        Path(checkpoint_path).write_text(json.dumps(state), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Go on from what `save` wrote."""
        state = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))
        self.space = validate_space(state["space"], checkpoint_path)
        self._outcomes = {_key(row): row[4] for row in state["outcomes"]}
        self._in_training = {row[0]: _key(row[1:]) for row in state["in_training"]}
        self._waiting = self._find_waiting()

    def _find_waiting(self) -> deque[Key]:
        """Planned runs that have neither ended nor begun, in the order of the space."""
        begun = set(self._in_training.values())
        keys = ((*run.cell, run.seed) for run in expand(self.space))
        return deque(key for key in keys if key not in self._outcomes and key not in begun)


def _key(row: list[Any]) -> Key:
    rate, width, samples, seed = row[:4]
    return float(rate), int(width), int(samples), int(seed)
