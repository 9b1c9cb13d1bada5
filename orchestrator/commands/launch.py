"""`bo-sweep launch`: run what is missing, then draw."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.commands.options import (
    SOME_RUNS_FAILED,
    STOPPED,
    again,
    data_option,
    default_data_folder,
    json_option,
    launch_options,
    load,
    space_options,
    storage_at,
    sweep_options,
    user_errors,
    with_gpus,
)

if TYPE_CHECKING:
    from orchestrator.launch import Outcome
    from orchestrator.launch_plan import LaunchOptions
    from orchestrator.phase_diagram import Diagram
    from orchestrator.refine.rounds import Refined
    from orchestrator.refine.target import Target
    from orchestrator.stops import Stops
    from search_spaces.spec import SearchSpace


@click.command()
@space_options
@sweep_options
@launch_options
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("--address", help="Address of a running Ray cluster; by default one is started here.")
@data_option
@click.option("--max-gpu-hours", type=click.FloatRange(min=0, min_open=True), help="Stop after so many GPU-hours.")
@click.option("--max-wall", metavar="TIME", help="Stop after this time, e.g. 90s, 30m, 1.5h, 2d.")
@click.option("--max-runs", type=click.IntRange(min=1), help="Train at most so many runs.")
@click.option("--reuse", metavar="SWEEP", multiple=True, help="Take over finished runs of another sweep. Repeatable.")
@click.option("--refine", metavar="TARGET", help="Place cells beside the grid near a level, e.g. err_last=0.2.")
@click.option("--budget", type=click.IntRange(min=1), help="With --refine: most runs beside the grid, in all launches.")
@click.option("--precision", type=float, help="With --refine: half width of the 90 % band in log p/n.  [default: 0.05]")
@click.option("--figures/--no-figures", default=True, help="Draw at the end, or leave it to bo-sweep phase.")
@click.option("--as-job", is_flag=True, help="For job systems: exit with 0 where a retry could change nothing.")
@json_option
def launch(
    space: str,
    overrides: tuple[str, ...],
    seeds: int | None,
    storage: str,
    name: str | None,
    workers: int | None,
    retry_failed: bool,
    signature: str | None,
    cells: tuple[str, ...],
    gpus_per_run: float | None,
    calibration: Path | None,
    dry_run: bool,
    address: str | None,
    data_folder: Path | None,
    max_gpu_hours: float | None,
    max_wall: str | None,
    max_runs: int | None,
    reuse: tuple[str, ...],
    refine: str | None,
    budget: int | None,
    precision: float | None,
    figures: bool,
    as_job: bool,
    as_json: bool,
) -> None:
    """Run what is missing of a search space, then draw its phase diagram.

    Resuming, retrying and growing a sweep are all "launch again". At the end of a budget (--max-...), and at the first
    Ctrl-C, nothing more is started and what runs is saved; the same command goes on from there.

    With --refine, when the grid is done, further cells go where it is in doubt on which side of the level they lie, and
    seeds where seeds are what is in doubt, until the boundary is known to --precision or --budget runs are used.

    \b
    Example:  bo-sweep launch digits-grid --seeds 5
              bo-sweep launch digits-grid --refine err_last=0.2 --budget 60
    """
    from orchestrator.budget import Budget, parse_duration
    from orchestrator.console import LOG, print_json, print_next
    from orchestrator.launch_plan import LaunchOptions, plan_launch
    from orchestrator.summaries import diagram_document, plan_document, print_diagram, print_plan
    from search_spaces.selectors import parse_selector

    with user_errors():
        overrides = with_gpus(overrides, gpus_per_run)
        parsed = load(space, overrides, seeds)
        sweep = name or parsed.name
        options = LaunchOptions(
            storage_at(storage),
            sweep,
            data_folder or default_data_folder(),
            address=address,
            workers=workers,
            retry_failed=retry_failed,
            signature=signature,
            first=tuple(map(parse_selector, cells)),
            budget=Budget(max_gpu_hours, parse_duration(max_wall) if max_wall else None, max_runs),
            reuse=reuse,
            calibration=calibration,
        )
        target = _target(refine, budget, precision, parsed)
        if dry_run and target:
            _print_preview(parsed, options, target, as_json)
            return
        if dry_run:
            made = plan_launch(parsed, options, anywhere=True)
            print_json(plan_document(made)) if as_json else print_plan(made)
            return
        go_on = again("launch", space, storage, name, overrides, seeds) + _refinement(refine, budget, precision)
        outcome, refined, diagram = _run_and_draw(parsed, options, target, go_on, figures)
        made = outcome.plan
        failed = made.count("failed")
    if as_json:
        stopped = {"stopped_by": outcome.stopped_by} if outcome.stopped_by else {}
        drawn = diagram_document(diagram) if diagram else {}
        print_json(plan_document(made) | stopped | (refined.document() if refined else {}) | drawn)
    elif diagram:
        print_diagram(diagram)
    if outcome.stopped_by:
        LOG.print(f"Stopped before the end: {outcome.stopped_by}.")
        print_next(go_on + _placement(cells, workers, address), again("status", sweep, storage))
        raise SystemExit(0 if as_job and outcome.budget_spent else STOPPED)
    print_next(
        *([f"{go_on} --retry-failed", again("status", sweep, storage) + " --failures"] if failed else []),
        again("status", sweep, storage),
        again("phase", sweep, storage) + " --metric excess_risk --format pdf",
        f"{again('launch', space, storage, name, overrides, len(parsed.seeds) + 2)}    # trains only the new seeds",
    )
    if failed and not as_job:
        raise SystemExit(SOME_RUNS_FAILED)


def _target(refine: str | None, budget: int | None, precision: float | None, space: SearchSpace) -> Target | None:
    """What to refine, if anything. Raises ValueError, also for options that go with --refine alone."""
    if refine is None:
        lonely = [name for name, value in (("--budget", budget), ("--precision", precision)) if value is not None]
        if lonely:
            raise ValueError(f"{' and '.join(lonely)}: only with --refine, for example --refine err_last=0.2")
        return None
    from orchestrator.refine.target import parse_target

    return parse_target(refine, space, budget=budget, precision=precision)


def _refinement(refine: str | None, budget: int | None, precision: float | None) -> str:
    """Options of a refinement, for the command that goes on."""
    given = (("--refine", refine), ("--budget", budget), ("--precision", precision))
    parts = [part for name, value in given if value is not None for part in (name, str(value))]
    return f" {shlex.join(parts)}" if parts else ""


def _print_preview(space: SearchSpace, options: LaunchOptions, target: Target, as_json: bool) -> None:
    """The plan with the cells that would come next."""
    from orchestrator.console import RESULTS, print_json
    from orchestrator.refine.rounds import preview
    from orchestrator.refine.texts import preview_lines, proposal_document
    from orchestrator.summaries import plan_document, print_plan

    plan, proposal = preview(space, options, target)
    if as_json:
        print_json(plan_document(plan) | (proposal_document(target, proposal) if proposal else {}))
        return
    print_plan(plan)
    RESULTS.print("\n".join(preview_lines(target, proposal)), markup=False)


def _run_and_draw(
    space: SearchSpace, options: LaunchOptions, target: Target | None, go_on: str, figures: bool
) -> tuple[Outcome, Refined | None, Diagram | None]:
    """Launch, then analyse what has finished; an interrupt that is not a request to save ends here with exit code 3."""
    from orchestrator.console import LOG, print_next
    from orchestrator.launch import launch as run_launch
    from orchestrator.phase_diagram import analyse
    from orchestrator.stops import Stops

    stops = Stops()
    try:
        with stops.caught():
            refined = _refine(space, options, target, stops) if target else None
            outcome = refined.outcome if refined else run_launch(space, options, stops)
            plan = outcome.plan
            if plan.is_complete:
                LOG.print(f"The ledger of {options.name} is complete: {len(plan.runs)} of {len(plan.runs)} runs.")
            if plan.count("failed"):
                LOG.print(f"[bold]{plan.count('failed')} runs failed[/bold]")
            if refined:
                LOG.print("\n".join(refined.lines()), markup=False)
            return outcome, refined, analyse(options.ledger) if figures and plan.count("done") else None
    except KeyboardInterrupt:
        LOG.print("\nStopped. All that was committed stays; the same command goes on from there.")
        print_next(go_on)
        raise SystemExit(STOPPED) from None


def _refine(space: SearchSpace, options: LaunchOptions, target: Target, stops: Stops) -> Refined:
    from orchestrator.refine.rounds import refine

    return refine(space, options, target, stops)


def _placement(cells: tuple[str, ...], workers: int | None, address: str | None) -> str:
    """Options that say where and in what order, for the command that goes on; budgets are for the user to set anew."""
    parts = [part for text in cells for part in ("--cells", text)]
    parts += ["--workers", str(workers)] if workers else []
    parts += ["--address", address] if address else []
    return f" {shlex.join(parts)}" if parts else ""
