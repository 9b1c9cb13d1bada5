"""`bo-sweep reproduce`: how a run came to be, and whether it comes out the same again."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from orchestrator.commands.options import (
    SOME_RUNS_FAILED,
    data_option,
    default_data_folder,
    json_option,
    sweep_at,
    sweep_options,
    user_errors,
)


@click.command()
@click.argument("sweep")
@click.argument("run_id")
@sweep_options
@click.option("--run", "run_again", is_flag=True, help="Train the run again, beside the sweep, and compare the rows.")
@data_option
@json_option
def reproduce(sweep: str, run_id: str, storage: str, run_again: bool, data_folder: Path | None, as_json: bool) -> None:
    """Tell how one run came to be: the exact command, versions of code and data, hashes, hardware.

    \b
    Example:  bo-sweep reproduce digits-grid 0123456789abcdef --run
    """
    from orchestrator.console import RESULTS, print_json
    from orchestrator.launch import launch as run_launch
    from orchestrator.launch_plan import LaunchOptions
    from orchestrator.ledger import Ledger
    from orchestrator.reproduce import compare, origin_of
    from orchestrator.stops import interruptible
    from orchestrator.storage import open_storage

    with user_errors():
        ledger = sweep_at(storage, sweep)
        origin = origin_of(ledger, run_id)
        document = {"run_id": origin.run.run_id, "command": origin.command, **origin.facts}
        if not as_json:
            for name, value in document.items():
                RESULTS.print(f"{name.replace('_', ' '):20} {'-' if value is None else value}", markup=False)
        if run_again:
            with tempfile.TemporaryDirectory(prefix="bo-sweep-reproduce-") as folder, interruptible():
                options = LaunchOptions(open_storage(folder), "again", data_folder or default_data_folder())
                run_launch(origin.space, options)
                found = compare(ledger, Ledger(Path(folder) / "again"), origin.run.run_id)
            document["comparison"] = {**vars(found), "identical": found.is_identical}
    if as_json:
        print_json(document)
    elif run_again:
        RESULTS.print(f"{found.rows_now} rows now, {found.rows_before} in the sweep")
        for name, difference in found.differences.items():
            RESULTS.print(f"  {name} differs by up to {difference:.3g}")
        RESULTS.print("Identical." if found.is_identical else "Not identical.")
    if run_again and not found.is_identical:
        raise SystemExit(SOME_RUNS_FAILED)
