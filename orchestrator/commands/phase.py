"""`bo-sweep phase`: tables and figures from the ledger alone."""

from __future__ import annotations

import click

from orchestrator.commands.options import again, json_option, sweep_at, sweep_options, user_errors


@click.command()
@click.argument("sweep")
@sweep_options
@click.option("--metric", "metrics", multiple=True, help="Metric to draw; repeatable.  [default: the usual four]")
@click.option(
    "--boundary",
    "boundaries",
    multiple=True,
    metavar="METRIC[=LEVEL]",
    help="Draw where a metric crosses a level, such as gap_err=0.02; repeatable.  [default: the space's own]",
)
@click.option("--format", "formats", default="png,svg", show_default=True, help="Of png, svg, pdf, by comma.")
@json_option
def phase(
    sweep: str, storage: str, metrics: tuple[str, ...], boundaries: tuple[str, ...], formats: str, as_json: bool
) -> None:
    """Analyse a sweep and draw its phase diagram, from the ledger alone.

    \b
    Example:  bo-sweep phase digits-grid --metric noise_cost --boundary noise_cost=0.05 --format pdf
    """
    from orchestrator.console import print_json, print_next
    from orchestrator.phase_diagram import HEAT_MAPS, analyse
    from orchestrator.summaries import diagram_document, print_diagram

    with user_errors():
        wanted = [part.strip() for part in formats.split(",") if part.strip()]
        ledger = sweep_at(storage, sweep)
        diagram = analyse(ledger, metrics=metrics or HEAT_MAPS, boundaries=boundaries, formats=wanted)
    if as_json:
        print_json(diagram_document(diagram))
        return
    print_diagram(diagram, metrics=metrics)
    print_next(again("status", sweep, storage))
