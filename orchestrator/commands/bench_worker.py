"""`bo-sweep bench-worker`: how fast a worker trains here, and what holds it back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.commands.options import (
    DEFAULT_STORAGE,
    INFRASTRUCTURE,
    Failure,
    again,
    complete_spaces,
    data_option,
    default_data_folder,
    json_option,
    load,
    user_errors,
)

if TYPE_CHECKING:
    from orchestrator.worker_speed import Bench


@click.command("bench-worker")
@click.argument("space", shell_complete=complete_spaces)
@click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Override a value, e.g. widths=[8] for one width."
)
@data_option
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Time of each of the four measurements in a round.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Times each is repeated.")
@json_option
def bench_worker(
    space: str, overrides: tuple[str, ...], data_folder: Path | None, seconds: float, rounds: int, as_json: bool
) -> None:
    """Measure how fast a worker loads and trains here, and say what to change.

    For each width of the space: the data stream alone, the training step alone, both together, and the forward pass of
    evaluations, in images/s. What comes out is kept in calibration.json in the data folder, where bo-sweep plan finds
    it; for a plan on another machine, copy the file and name it with --calibration. Without the data set the step alone
    is measured, on random images.

    \b
    Example:  bo-sweep bench-worker cifar10-grid --set widths=[8,64]
    """
    from orchestrator.calibration import FILE_NAME
    from orchestrator.console import LOG, RESULTS, print_json, print_next
    from orchestrator.worker_speed import bench_worker as run_bench

    folder = data_folder or default_data_folder()
    with user_errors():
        parsed = load(space, overrides, None)
        with LOG.status("starting") as line:
            benches = list(run_bench(parsed, folder, rounds=rounds, seconds=seconds, tell=line.update))
    measured = [bench for bench in benches if bench.measurement]
    problems = [bench.problem for bench in benches if bench.problem]
    if not measured:
        raise Failure("\n".join(problems), INFRASTRUCTURE)
    if as_json:
        print_json(_document(parsed.name, benches, folder / FILE_NAME))
    else:
        from orchestrator.speed_report import report

        RESULTS.print(report(parsed, measured))
    for problem in problems:
        LOG.print(f"[bold]Not measured[/bold]: {problem}")
    LOG.print(f"Kept in {folder / FILE_NAME}, for the estimates of bo-sweep plan and launch.", markup=False)
    named = f" --calibration {folder / FILE_NAME}" if folder != default_data_folder() else ""
    print_next(again("plan", space, DEFAULT_STORAGE, overrides=overrides) + named)


def _document(space: str, benches: list[Bench], kept_in: Path) -> dict[str, Any]:
    """All that was measured as JSON: speeds in images/s, which is slower, and advice."""
    widths = []
    for bench in benches:
        if bench.measurement is None or bench.advice is None:
            widths.append({"width": bench.width, "problem": bench.problem})
            continue
        widths.append(
            bench.measurement.model_dump(mode="json")
            | {"slower": bench.advice.slower, "advice": list(bench.advice.steps)}
        )
    random = all(bench.measurement is None or bench.measurement.loader is None for bench in benches)
    return {
        "space": space,
        "unit": "images/s",
        "images": "random" if random else "data set",
        "widths": widths,
        "calibration": str(kept_in),
    }
