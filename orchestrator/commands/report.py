"""`bo-sweep report`: a sweep as one HTML file, or as a page that follows it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.commands.options import again, json_option, storage_at, sweep_at, sweep_options, user_errors

if TYPE_CHECKING:
    from orchestrator.report.contents import Commands


@click.command()
@click.argument("sweep")
@sweep_options
@click.option(
    "--to",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write.  [default: phase/report.html in the sweep's folder]",
)
@click.option("--live", is_flag=True, help="Serve the page instead, and let it follow the sweep until Ctrl-C.")
@click.option("--host", default="127.0.0.1", show_default=True, help="With --live: address to serve at.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="With --live: port; 0 for a free one."
)
@json_option
def report(sweep: str, storage: str, to: Path | None, live: bool, host: str, port: int, as_json: bool) -> None:
    """Put a sweep on one page: heat maps, curves, failures, origin, tables; readable without a network.

    \b
    Example:  bo-sweep report digits-grid --to digits.html
    """
    if live:
        if to is not None:
            raise click.UsageError("--live serves the page and --to writes it: give one of the two")
        _serve(sweep, storage, host, port, as_json)
        return
    from orchestrator.console import LOG, RESULTS, print_json, print_next
    from orchestrator.report.page import empty_cells, write_report

    with user_errors():
        written = write_report(sweep_at(storage, sweep), _commands(sweep, storage), to)
    missing, cells = empty_cells(written.contents), written.contents.cells.height
    if as_json:
        counts = {"total": cells, "empty": missing}
        print_json({"sweep": sweep, "file": written.location, "bytes": written.size, "cells": counts})
        return
    RESULTS.print(written.location, markup=False)
    LOG.print(f"{written.size / 1e6:.1f} MB; opens in any browser, with no network and no other file.")
    if missing:
        LOG.print(f"{missing} of {cells} cells have no finished run yet; they are hatched.")
    print_next(again("status", sweep, storage), f"{again('report', sweep, storage)} --live")


def _serve(sweep: str, storage: str, host: str, port: int, as_json: bool) -> None:
    from orchestrator.console import LOG, RESULTS, print_json, print_next
    from orchestrator.ledger import Ledger
    from orchestrator.report.server import ReportServer
    from orchestrator.stops import interruptible

    with user_errors(), interruptible():
        ledger = Ledger(storage_at(storage).child(sweep))
        try:
            with ReportServer(ledger, _commands(sweep, storage), host, port) as server:
                if as_json:
                    print_json({"sweep": sweep, "url": server.url})
                else:
                    RESULTS.print(server.url, markup=False)
                LOG.print("The page follows the sweep. Ctrl-C ends it; the sweep goes on.")
                server.serve_forever()
        except KeyboardInterrupt:
            pass  # the way to end it
    print_next(again("status", sweep, storage), again("report", sweep, storage))


def _commands(sweep: str, storage: str) -> Commands:
    from orchestrator.report.contents import Commands

    return Commands(*(again(command, sweep, storage) for command in ("reproduce", "logs", "launch")))
