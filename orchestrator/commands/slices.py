"""`bo-sweep slices`: double descent, curves and contrasts of one sweep, from the ledger alone."""

from __future__ import annotations

import click

from orchestrator.commands.options import again, json_option, sweep_at, sweep_options, user_errors


@click.command()
@click.argument("sweep")
@sweep_options
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    help="Of model, sample, epoch, width-epoch, emc, contrast, learning, overfit; repeatable.  [default: all it can]",
)
@click.option("--format", "formats", default="png,svg", show_default=True, help="Of png, svg, pdf, by comma.")
@json_option
def slices(sweep: str, storage: str, kinds: tuple[str, ...], formats: str, as_json: bool) -> None:
    """Draw slices of a sweep: double descent, learning and overfit curves, contrasts.

    \b
    Example:  bo-sweep slices digits-grid --kind model --kind contrast --format pdf
    """
    with user_errors():
        ledger = sweep_at(storage, sweep)
        ledger.manifest()  # before anything heavy is imported
        from orchestrator.slices.draw import draw_slices

        wanted = [part.strip() for part in formats.split(",") if part.strip()]
        drawn = draw_slices(ledger, kinds, formats=wanted)
    from orchestrator.console import print_json, print_next
    from orchestrator.slices.summary import print_slices, slices_document

    if as_json:
        print_json(slices_document(drawn))
        return
    print_slices(drawn)
    print_next(again("phase", sweep, storage))
