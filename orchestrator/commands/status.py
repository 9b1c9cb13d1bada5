"""`bo-sweep status` and `bo-sweep logs`: how far a sweep is, and what its runs said."""

from __future__ import annotations

from typing import Any

import click

from orchestrator.commands import watching
from orchestrator.commands.options import again, json_option, sweep_at, sweep_options, user_errors

WATCH_SECONDS = 2.0


@click.command()
@click.argument("sweep")
@sweep_options
@click.option("--watch", is_flag=True, help="Go on showing it until Ctrl-C, or until nothing runs any more.")
@click.option("--failures", is_flag=True, help="Only what failed: by signature, with a sample log of each.")
@click.option("--gpu-hour-price", type=click.FloatRange(min=0), help="Price of a GPU-hour, to tell the cost so far.")
@json_option
def status(sweep: str, storage: str, watch: bool, failures: bool, gpu_hour_price: float | None, as_json: bool) -> None:
    """Show how far a sweep is: runs by status, what is running, time left, speed, cost, failures by cause.

    \b
    Example:  bo-sweep status digits-grid --watch
    """
    from orchestrator.console import RESULTS, print_json, print_next
    from orchestrator.status import failure_view, status_document, status_view

    if watch and as_json:
        raise click.UsageError("--watch is for people: leave it or --json out")
    with user_errors():
        ledger = sweep_at(storage, sweep)
        document = status_document(ledger, gpu_hour_price)
        if watch:
            document = watching.watch(
                document,
                lambda: status_document(ledger, gpu_hour_price),
                status_view,
                lambda document: document["live"] is None,
                seconds=WATCH_SECONDS,
            )
            if not RESULTS.is_terminal:
                return
    if as_json:
        print_json({"failures": document["failures"]} if failures else document)
        return
    if failures:
        for failure in document["failures"]:
            RESULTS.print(failure_view(failure | {"sample_lines": None}))
            RESULTS.print(f"  all of it: {again('logs', sweep, storage)} --run {failure['sample_run']}", markup=False)
        if not document["failures"]:
            RESULTS.print("Nothing failed.")
    elif not watch:
        RESULTS.print(status_view(document))
    _print_next(document, sweep, storage, print_next)


def _print_next(document: dict[str, Any], sweep: str, storage: str, print_next: Any) -> None:
    runs = document["runs"]
    launch_again = again("launch", document["space"], storage, sweep if sweep != document["space"] else None)
    commands = []
    if document["live"]:
        commands.append(f"{again('status', sweep, storage)} --watch")
    elif runs["waiting"] or runs["lost"]:
        commands.append(launch_again)
    if runs["failed"]:
        commands.append(f"{again('status', sweep, storage)} --failures")
        commands += [] if document["live"] else [f"{launch_again} --retry-failed"]
    print_next(*(commands or [again("phase", sweep, storage)]))


@click.command()
@click.argument("sweep")
@sweep_options
@click.option("--run", "run_id", help="Only of this run (its id, or the first characters of it).")
@click.option("--level", type=click.Choice(["info", "warning", "error"]), default="info", help="This and above.")
@json_option
def logs(sweep: str, storage: str, run_id: str | None, level: str, as_json: bool) -> None:
    """Show what happened to runs: starts, checkpoints, ends, warnings, errors with their last lines.

    \b
    Example:  bo-sweep logs digits-grid --level warning
    """
    from orchestrator.console import RESULTS, print_json
    from orchestrator.run_logs import events_of

    with user_errors():
        events = events_of(sweep_at(storage, sweep), run_id, level)
    if as_json:
        print_json({"events": events})
        return
    for event in events:
        who = event["run_id"] or event["worker"]
        line = f"{event['time'][:19].replace('T', ' ')}  {who}  {event['level']:7}  {event['event']}"
        RESULTS.print(f"{line}  {event['message']}".rstrip(), markup=False)
