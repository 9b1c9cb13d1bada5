"""What a ledger says at one moment, as far as it is published."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from orchestrator import paths
from orchestrator.lease import current_claim
from orchestrator.ledger import Ledger, Manifest
from orchestrator.publishing.columns import KIND, RECIPE_PREFIX, SWEEP, SWEEP_KEY, cell_words
from orchestrator.publishing.items import known, short_hash
from orchestrator.publishing.target import Target, sweep_tag

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.snapshot import Snapshot

ENDED = ("done", "diverged", "failed")
"""Statuses of runs that are published; the rows of a lost one are not there."""


@dataclass
class Reading:
    """The ledger's tables.

    Attributes:
        ends: the latest end of every run that has one, judged.
        hyperparameters: of every run that was ever launched, by run id.
    """

    ledger: Ledger
    manifest: Manifest
    snapshot: Snapshot
    ends: pl.DataFrame
    hyperparameters: Mapping[str, Mapping[str, Any]]
    _configs: dict[str, dict[str, Any]] = field(default_factory=dict)

    @cached_property
    def scores(self) -> pl.DataFrame:
        """The metrics of every run that has rows: what `score_runs` gives. Reads all rows once."""
        from orchestrator.analysis.run_metrics import summarise_runs
        from orchestrator.analysis.scores import score_runs

        count = self.manifest.space.analysis.last_evaluations
        summaries = self.snapshot.summarise(functools.partial(summarise_runs, final_evaluations=count))
        return score_runs(summaries, self.ledger.runs(), self.ends, final_evaluations=count)

    @cached_property
    def scores_by_id(self) -> Mapping[str, Mapping[str, Any]]:
        return {row["run_id"]: row for row in self.scores.iter_rows(named=True)}

    @cached_property
    def ended(self) -> Mapping[str, Mapping[str, Any]]:
        """The ends of runs that are published, by run id, the earliest first."""
        import polars as pl

        ends = self.ends.filter(pl.col("status").is_in(ENDED)).sort("attempt", "run_id")
        return {end["run_id"]: end for end in ends.iter_rows(named=True) if end["run_id"] in self.hyperparameters}

    @cached_property
    def planned(self) -> frozenset[str]:
        """Ids of the runs of the space as it was last launched."""
        from search_spaces.runs import expand

        return frozenset(run.run_id for run in expand(self.manifest.space))

    @property
    def sweep_key(self) -> str:
        return sweep_key(self.ledger.name, self.manifest)

    @property
    def unfinished(self) -> int:
        """Planned runs that have not ended."""
        return len(self.planned - self.ended.keys())

    def shared_config(self, kind: str) -> dict[str, Any]:
        """What stands in every config."""
        name, space = self.ledger.name, self.manifest.space.name
        return {KIND: kind, SWEEP: name, SWEEP_KEY: self.sweep_key, "space": space}

    def recipe_config(self, recipe: str) -> dict[str, Any]:
        """The recipe's own values, flat."""
        if recipe not in self._configs:
            values = json.loads(recipe)
            self._configs[recipe] = known({f"{RECIPE_PREFIX}{name}": value for name, value in values.items()})
        return self._configs[recipe]

    def tags(self, target: Target) -> tuple[str, ...]:
        """The sweep's name, and what the user gave."""
        return tuple(dict.fromkeys((sweep_tag(self.ledger.name), *target.tags)))


def read(ledger: Ledger) -> Reading:
    """The ledger now; rows stay on disk where they can.

    Raises:
        LedgerError, StorageError: it cannot be read, or is damaged.
    """
    from workers.schema import ROWS

    snapshot = ledger.snapshot(ROWS.names)
    hyperparameters = {row["run_id"]: row for row in ledger.runs().iter_rows(named=True)}
    return Reading(ledger, ledger.manifest(), snapshot, snapshot.judged_ends(), hyperparameters)


def sweep_key(name: str, manifest: Manifest) -> str:
    """The same wherever the ledger is copied to, another for another sweep of the same name."""
    return short_hash(name, manifest.created)[:8]


def listing(ledger: Ledger) -> tuple[Any, ...]:
    """Names of all that a reading is made of: parts never change, so the same names mean the same content."""
    folders = (paths.RUNS, paths.ROWS, paths.ENDS)
    names = [file.path for folder in folders for file in ledger.storage.list(folder)]
    return (ledger.storage.read(paths.MANIFEST), *names)


def is_launched(ledger: Ledger) -> bool:
    """Whether a launch is at work on the sweep."""
    return current_claim(ledger.storage) is not None


def cell_of(run: Mapping[str, Any]) -> str:
    """The cell of a run, in words."""
    return cell_words(run["noise_rate"], run["width"], run["samples"])
