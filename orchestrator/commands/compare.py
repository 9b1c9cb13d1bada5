"""`bo-sweep compare`: two sweeps on their common cells, from their ledgers alone."""

from __future__ import annotations

import click

from orchestrator.commands.options import again, json_option, sweep_at, sweep_options, user_errors


@click.command()
@click.argument("a")
@click.argument("b")
@sweep_options
@click.option("--metric", "metrics", multiple=True, help="Metric to compare; repeatable.  [default: the usual four]")
@click.option(
    "--match",
    type=click.Choice(["auto", "size", "ratio"]),
    default="auto",
    show_default=True,
    help="Which cells are the same: those of equal width and n, or those of equal p/n.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="With p/n: largest relative distance that counts as equal.",
)
@click.option("--format", "formats", default="png,svg", show_default=True, help="Of png, svg, pdf, by comma.")
@json_option
def compare(
    a: str,
    b: str,
    storage: str,
    metrics: tuple[str, ...],
    match: str,
    tolerance: float,
    formats: str,
    as_json: bool,
) -> None:
    """Compare two sweeps, B minus A, on the cells that both have.

    A and B are names under --storage, or STORAGE/NAME. Writes into the phase folder of A.

    \b
    Example:  bo-sweep compare cifar10-grid cifar10-pure --metric err_last
    """
    with user_errors():
        first, second = _place(a, storage), _place(b, storage)
        ledgers = sweep_at(*first), sweep_at(*second)
        from orchestrator.comparison import compare_sweeps
        from orchestrator.phase_diagram import HEAT_MAPS

        wanted = [part.strip() for part in formats.split(",") if part.strip()]
        found = compare_sweeps(
            *ledgers,
            metrics or HEAT_MAPS,
            match=match,  # type: ignore[arg-type]
            tolerance=tolerance,
            formats=wanted,
        )
    from orchestrator.comparison_summary import comparison_document, print_comparison
    from orchestrator.console import print_json, print_next

    if as_json:
        print_json(comparison_document(found))
        return
    print_comparison(found)
    print_next(again("phase", first[1], first[0]))


def _place(sweep: str, storage: str) -> tuple[str, str]:
    """Storage and name of a sweep: STORAGE/NAME, or a name under --storage."""
    where, separator, name = sweep.rstrip("/").rpartition("/")
    return (where or "/", name) if separator else (storage, sweep)
