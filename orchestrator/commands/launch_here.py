"""A launch that this process carries out, on this machine or as the driver on a Ray cluster."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.commands.options import SOME_RUNS_FAILED, STOPPED, again, default_data_folder, storage_at

if TYPE_CHECKING:
    from orchestrator.entry_point import LaunchRequest
    from orchestrator.launch import Outcome
    from orchestrator.launch_plan import LaunchOptions
    from orchestrator.phase_diagram import Diagram
    from orchestrator.publishing.background import BackgroundPublisher
    from orchestrator.refine.rounds import Refined
    from orchestrator.refine.target import Target
    from orchestrator.stops import Stops

JOB_PUBLISHING_SECONDS = 1800.0
"""How long a job waits at its end for W&B: when it has ended, its machine goes."""


@dataclass(frozen=True)
class AsGiven:
    """The words of the command line that say which sweep is meant."""

    space: str
    overrides: tuple[str, ...]
    seeds: int | None
    name: str | None
    storage: str

    def again(self, command: str = "launch", seeds: int | None = None) -> str:
        """The command line that addresses the same space and sweep."""
        return again(command, self.space, self.storage, self.name, self.overrides, seeds or self.seeds)


@dataclass(frozen=True)
class Placement:
    """Where data, measured speeds and a Ray cluster are."""

    data_folder: Path | None
    calibration: Path | None
    address: str | None


class Publishing:
    """W&B beside a launch: a process of its own, started once the sweep is there."""

    def __init__(self, options: LaunchOptions, storage: str) -> None:
        self._ledger, self._storage = options.ledger, storage
        self._publisher: BackgroundPublisher | None = None

    def start(self) -> None:
        """Start it, once; where that fails, say so: a launch does not fail for W&B."""
        from orchestrator.console import LOG
        from orchestrator.publishing.background import start_publisher
        from orchestrator.storage import StorageError

        try:
            self._publisher = self._publisher or start_publisher(self._ledger, self._storage)
        except StorageError as error:
            LOG.print(f"Nothing is published to W&B beside the launch: {error}", markup=False)

    def finish(self, as_job: bool) -> None:
        """Wait for what is still to be published, and pass on what the publisher said; Ctrl-C ends the waiting."""
        from orchestrator.console import LOG
        from orchestrator.publishing.background import FINISH_SECONDS

        if self._publisher is None:
            return
        try:
            lines = self._publisher.finish(JOB_PUBLISHING_SECONDS if as_job else FINISH_SECONDS)
        except KeyboardInterrupt:
            lines = self._publisher.finish(seconds=0.0)
        for line in lines:
            LOG.print(line, markup=False)


def run(
    request: LaunchRequest, given: AsGiven, placement: Placement, *, dry_run: bool, as_job: bool, as_json: bool
) -> None:
    """Launch, draw, tell what came out and what comes next; exits with the code that tells how it ended."""
    from orchestrator.console import LOG, print_json, print_next
    from orchestrator.launch_plan import plan_launch
    from orchestrator.summaries import diagram_document, plan_document, print_diagram, print_plan

    options = replace(_options(request, given, placement), patient=as_job)
    target = _target(request)
    if dry_run and target:
        _print_preview(request, options, target, as_json)
        return
    if dry_run:
        made = plan_launch(request.space, options, anywhere=True)
        print_json(plan_document(made)) if as_json else print_plan(made)
        return
    go_on = given.again() + _refinement(request)
    outcome, refined, diagram = _run_and_draw(request, given, options, target, go_on, as_job)
    made = outcome.plan
    failed = made.count("failed")
    if as_json:
        stopped = {"stopped_by": outcome.stopped_by} if outcome.stopped_by else {}
        drawn = diagram_document(diagram) if diagram else {}
        print_json(plan_document(made) | stopped | (refined.document() if refined else {}) | drawn)
    elif diagram:
        print_diagram(diagram)
    status = again("status", request.sweep, given.storage)
    if outcome.stopped_by:
        LOG.print(f"Stopped before the end: {outcome.stopped_by}.")
        if not as_job:
            print_next(go_on + _placement(request, placement.address), status)
        raise SystemExit(0 if as_job and outcome.budget_spent else STOPPED)
    if as_job:
        return  # who submitted it is told there how to go on
    print_next(
        *([f"{go_on} --retry-failed", f"{status} --failures"] if failed else []),
        status,
        again("phase", request.sweep, given.storage) + " --metric excess_risk --format pdf",
        f"{given.again(seeds=len(request.space.seeds) + 2)}    # trains only the new seeds",
    )
    if failed:
        raise SystemExit(SOME_RUNS_FAILED)


def _options(request: LaunchRequest, given: AsGiven, placement: Placement) -> LaunchOptions:
    from orchestrator.budget import Budget, parse_duration
    from orchestrator.launch_plan import LaunchOptions
    from search_spaces.selectors import parse_selector

    max_seconds = parse_duration(request.max_wall) if request.max_wall else None
    return LaunchOptions(
        storage_at(given.storage),
        request.sweep,
        placement.data_folder or default_data_folder(),
        address=placement.address,
        workers=request.workers,
        retry_failed=request.retry_failed,
        signature=request.signature,
        first=tuple(map(parse_selector, request.cells)),
        budget=Budget(request.max_gpu_hours, max_seconds, request.max_runs),
        reuse=request.reuse,
        calibration=placement.calibration,
    )


def _target(request: LaunchRequest) -> Target | None:
    """What to refine, if anything. Raises ValueError, also for options that go with --refine alone."""
    if request.refine is None:
        alone = (("--budget", request.budget), ("--precision", request.precision))
        lonely = [name for name, value in alone if value is not None]
        if lonely:
            raise ValueError(f"{' and '.join(lonely)}: only with --refine, for example --refine err_last=0.2")
        return None
    from orchestrator.refine.target import parse_target

    return parse_target(request.refine, request.space, budget=request.budget, precision=request.precision)


def _refinement(request: LaunchRequest) -> str:
    """Options of a refinement, for the command that goes on."""
    given = (("--refine", request.refine), ("--budget", request.budget), ("--precision", request.precision))
    parts = [part for name, value in given if value is not None for part in (name, str(value))]
    return f" {shlex.join(parts)}" if parts else ""


def _print_preview(request: LaunchRequest, options: LaunchOptions, target: Target, as_json: bool) -> None:
    """The plan with the cells that would come next."""
    from orchestrator.console import RESULTS, print_json
    from orchestrator.refine.rounds import preview
    from orchestrator.refine.texts import preview_lines, proposal_document
    from orchestrator.summaries import plan_document, print_plan

    plan, proposal = preview(request.space, options, target)
    if as_json:
        print_json(plan_document(plan) | (proposal_document(target, proposal) if proposal else {}))
        return
    print_plan(plan)
    RESULTS.print("\n".join(preview_lines(target, proposal)), markup=False)


def _run_and_draw(
    request: LaunchRequest, given: AsGiven, options: LaunchOptions, target: Target | None, go_on: str, as_job: bool
) -> tuple[Outcome, Refined | None, Diagram | None]:
    """Launch, then analyse what has finished; an interrupt that is not a request to save ends here with exit code 3."""
    from orchestrator.console import LOG, print_next
    from orchestrator.launch import launch
    from orchestrator.phase_diagram import analyse
    from orchestrator.stops import Stops

    stops = Stops()
    publishing = Publishing(options, given.storage)
    if request.wandb:
        options = replace(options, on_recorded=publishing.start)
    try:
        with stops.caught():
            refined = _refine(request, options, target, stops) if target else None
            outcome = refined.outcome if refined else launch(request.space, options, stops)
            plan = outcome.plan
            if plan.is_complete:
                LOG.print(f"The ledger of {options.name} is complete: {len(plan.runs)} of {len(plan.runs)} runs.")
            if plan.count("failed"):
                LOG.print(f"[bold]{plan.count('failed')} runs failed[/bold]")
            if refined:
                LOG.print("\n".join(refined.lines()), markup=False)
            drawn = analyse(options.ledger) if request.figures and plan.count("done") else None
            if request.wandb:
                publishing.start()  # a complete sweep was not launched
                publishing.finish(as_job)
            return outcome, refined, drawn
    except KeyboardInterrupt:
        LOG.print("\nStopped. All that was committed stays; the same command goes on from there.")
        print_next(go_on)
        raise SystemExit(STOPPED) from None


def _refine(request: LaunchRequest, options: LaunchOptions, target: Target, stops: Stops) -> Refined:
    from orchestrator.refine.rounds import refine

    return refine(request.space, options, target, stops)


def _placement(request: LaunchRequest, address: str | None) -> str:
    """Options that say where and in what order, for the command that goes on; budgets are for the user to set anew."""
    parts = [part for text in request.cells for part in ("--cells", text)]
    parts += ["--workers", str(request.workers)] if request.workers else []
    parts += ["--address", address] if address else []
    return f" {shlex.join(parts)}" if parts else ""
