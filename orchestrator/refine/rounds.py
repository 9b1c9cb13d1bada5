"""`launch --refine`: round after round of a searcher's batches, trained as ordinary runs of the sweep.

The ledger and the manifest hold all of it. A batch stands in the manifest before it is trained, so that after a kill
the next launch trains it to its end first, and then asks a new searcher, which from the same ledger goes on the same.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.console import LOG
from orchestrator.launch import Outcome, remember_space, session
from orchestrator.launch_plan import LaunchOptions, plan_launch
from orchestrator.phase_diagram import run_metrics
from orchestrator.refine.proposer import Key, Proposal, propose
from orchestrator.refine.target import Target
from orchestrator.refine.texts import band_text, boundary_texts, proposal_document, verdict_text
from orchestrator.stops import Stops
from search_spaces.runs import count_beside, expand, with_cells
from search_spaces.spec import SearchSpace

if TYPE_CHECKING:
    from orchestrator.ledger import Ledger
    from orchestrator.plan import Plan
    from orchestrator.refine.searcher import LevelSetSearcher


@dataclass(frozen=True)
class Refined:
    """What came of a refinement: the last training, and the last proposal; None where the grid was not finished."""

    target: Target
    outcome: Outcome
    proposal: Proposal | None

    @property
    def beside(self) -> int:
        """Runs beside the grid."""
        return count_beside(self.outcome.plan.space)

    def lines(self) -> list[str]:
        """How it stands, for people."""
        if self.proposal is None:
            return [f"The grid is not finished; cells near {self.target} are placed once it is."]
        if self.outcome.stopped_by:
            return [f"The search for {self.target} goes on with the next launch; {band_text(self.proposal)}."]
        return [verdict_text(self.target, self.proposal, self.beside), *boundary_texts(self.proposal)]

    def document(self) -> dict[str, Any]:
        """How it stands, as JSON."""
        return proposal_document(self.target, self.proposal) if self.proposal else {}


def refine(space: SearchSpace, options: LaunchOptions, target: Target, stops: Stops | None = None) -> Refined:
    """Train what is missing of the sweep, then batches of cells beside its grid until the boundary is found.

    Raises:
        ValueError: as `propose`, and all that `session` raises.
    """
    with session(space, options, stops) as opened:
        outcome = opened.reconcile(space)
        if outcome.stopped_by:
            return Refined(target, outcome, None)
        from orchestrator.refine.searcher import LevelSetSearcher

        ledger = options.ledger
        searcher = LevelSetSearcher(outcome.plan.space, target)
        searcher.tell(outcomes_in(ledger, searcher.space, target.metric))
        for number in itertools.count(1):
            batch = _ask(searcher, number)
            assert searcher.proposal
            if not batch:
                break
            remember_space(ledger, searcher.space)
            LOG.print(_round_text(number, searcher, len(batch)))
            outcome = opened.reconcile(searcher.space)
            if outcome.stopped_by:
                break
            found = outcomes_in(ledger, searcher.space, target.metric)
            for trial_id, key in batch.items():
                value = found.get(key)
                searcher.on_trial_complete(trial_id, {target.metric: value}, error=value is None)
            searcher.tell(found)  # earlier values may change too: the best clean cell may be a new one
        return Refined(target, outcome, searcher.proposal)


def outcomes_in(ledger: Ledger, space: SearchSpace, metric: str) -> dict[Key, float | None]:
    """The metric of every planned run that has ended; None where it failed, diverged, or has no such metric."""
    table, ends = run_metrics(ledger, space.analysis.last_evaluations)
    values = dict(zip(table["run_id"].to_list(), table[metric].cast(float).to_list(), strict=True))
    ended = set(ends["run_id"].to_list())
    return {(*run.cell, run.seed): values.get(run.run_id) for run in expand(space) if run.run_id in ended}


def preview(space: SearchSpace, options: LaunchOptions, target: Target) -> tuple[Plan, Proposal | None]:
    """The plan with the cells that a refinement would place next, and why; writes nothing.

    The proposal is None while runs of the sweep are missing: it depends on how they come out.

    Raises:
        ValueError: as `refine`.
    """
    plan = plan_launch(space, options, anywhere=True)
    if plan.packs:
        return plan, None
    proposal = propose(plan.space, outcomes_in(options.ledger, plan.space, target.metric), target)
    return plan_launch(with_cells(plan.space, proposal.cells), options, anywhere=True), proposal


def _ask(searcher: LevelSetSearcher, number: int) -> dict[str, Key]:
    """All runs of the next batch by trial; none at the end."""
    batch: dict[str, Key] = {}
    while True:
        trial_id = f"round-{number}-{len(batch)}"
        config = searcher.suggest(trial_id)
        if not isinstance(config, dict):
            return batch
        batch[trial_id] = (config["noise_rate"], config["width"], config["samples"], config["seed"])


def _round_text(number: int, searcher: LevelSetSearcher, runs: int) -> str:
    proposal, target = searcher.proposal, searcher.target
    assert proposal
    cells = len(proposal.cells)
    used = target.budget - proposal.runs_left + runs
    return (
        f"Round {number}: {runs} runs in {cells} cell{'s' if cells > 1 else ''} near {target}; {band_text(proposal)}; "
        f"{used} of {target.budget} runs beside the grid"
    )
