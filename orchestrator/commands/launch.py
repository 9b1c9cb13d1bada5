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
    from orchestrator.launch import LaunchOptions, Outcome
    from orchestrator.phase_diagram import Diagram
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
@click.option("--figures/--no-figures", default=True, help="Draw at the end, or leave it to bo-sweep phase.")
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
    figures: bool,
    as_json: bool,
) -> None:
    """Run what is missing of a search space, then draw its phase diagram.

    Resuming, retrying and growing a sweep are all "launch again". At the end of a budget (--max-...), and at the first
    Ctrl-C, nothing more is started and what runs is saved; the same command goes on from there.

    \b
    Example:  bo-sweep launch digits-grid --seeds 5
    """
    from orchestrator.budget import Budget, parse_duration
    from orchestrator.console import LOG, print_json, print_next
    from orchestrator.launch import LaunchOptions, plan_launch
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
        if dry_run:
            made = plan_launch(parsed, options, anywhere=True)
            print_json(plan_document(made)) if as_json else print_plan(made)
            return
        go_on = again("launch", space, storage, name, overrides, seeds)
        outcome, diagram = _run_and_draw(parsed, options, go_on, figures)
        made = outcome.plan
        failed = made.count("failed")
    if as_json:
        stopped = {"stopped_by": outcome.stopped_by} if outcome.stopped_by else {}
        print_json(plan_document(made) | stopped | (diagram_document(diagram) if diagram else {}))
    elif diagram:
        print_diagram(diagram)
    if outcome.stopped_by:
        LOG.print(f"Stopped before the end: {outcome.stopped_by}.")
        print_next(go_on + _placement(cells, workers, address), again("status", sweep, storage))
        raise SystemExit(STOPPED)
    print_next(
        *([f"{go_on} --retry-failed", again("status", sweep, storage) + " --failures"] if failed else []),
        again("status", sweep, storage),
        again("phase", sweep, storage) + " --metric excess_risk --format pdf",
        f"{again('launch', space, storage, name, overrides, len(parsed.seeds) + 2)}    # trains only the new seeds",
    )
    if failed:
        raise SystemExit(SOME_RUNS_FAILED)


def _run_and_draw(
    space: SearchSpace, options: LaunchOptions, go_on: str, figures: bool
) -> tuple[Outcome, Diagram | None]:
    """Launch, then analyse what has finished; an interrupt that is not a request to save ends here with exit code 3."""
    from orchestrator.console import LOG, print_next
    from orchestrator.launch import launch as run_launch
    from orchestrator.phase_diagram import analyse
    from orchestrator.stops import Stops

    stops = Stops()
    try:
        with stops.caught():
            outcome = run_launch(space, options, stops)
            plan = outcome.plan
            if plan.is_complete:
                LOG.print(f"The ledger of {options.name} is complete: {len(plan.runs)} of {len(plan.runs)} runs.")
            if plan.count("failed"):
                LOG.print(f"[bold]{plan.count('failed')} runs failed[/bold]")
            return outcome, analyse(options.ledger) if figures and plan.count("done") else None
    except KeyboardInterrupt:
        LOG.print("\nStopped. All that was committed stays; the same command goes on from there.")
        print_next(go_on)
        raise SystemExit(STOPPED) from None


def _placement(cells: tuple[str, ...], workers: int | None, address: str | None) -> str:
    """Options that say where and in what order, for the command that goes on; budgets are for the user to set anew."""
    parts = [part for text in cells for part in ("--cells", text)]
    parts += ["--workers", str(workers)] if workers else []
    parts += ["--address", address] if address else []
    return f" {shlex.join(parts)}" if parts else ""
