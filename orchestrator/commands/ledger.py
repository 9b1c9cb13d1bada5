"""`bo-sweep verify` and `bo-sweep compact`: is it all there, and fewer files for the same rows."""

from __future__ import annotations

import click

from orchestrator.commands.options import SOME_RUNS_FAILED, again, json_option, sweep_at, sweep_options, user_errors


@click.command()
@click.argument("sweep")
@sweep_options
@json_option
def verify(sweep: str, storage: str, as_json: bool) -> None:
    """Prove coverage: every planned (run, epoch) exactly once, every file readable and as it was written.

    Safe while the sweep runs. Exits with 1 where something is wrong; runs that are still to do are not.

    \b
    Example:  bo-sweep verify digits-grid
    """
    from orchestrator.console import RESULTS, print_json, print_next
    from orchestrator.verify import verify as check

    with user_errors():
        ledger = sweep_at(storage, sweep)
        found = check(ledger)
    if as_json:
        print_json(
            {"sweep": sweep, "clean": found.is_clean, "complete": found.is_complete}
            | {"counts": found.counts, "problems": found.problems}
        )
    else:
        for problem in found.problems:
            RESULTS.print(f"[bold]wrong[/bold]  {problem}")
        counts = found.counts
        RESULTS.print(
            f"{counts['covered']} of {counts['planned']} planned runs are covered, each evaluation once "
            f"({counts['rows covered']:,} rows of {counts['rows']:,}); {counts['failed']} failed, "
            f"{counts['to do']} to do"
        )
        RESULTS.print("Clean." if found.is_clean else f"{len(found.problems)} problems.")
    if found.problems:
        print_next(again("launch", sweep, storage) + "    # moves damaged files away and trains what is lost")
        raise SystemExit(SOME_RUNS_FAILED)


@click.command()
@click.argument("sweep")
@sweep_options
@json_option
def compact(sweep: str, storage: str, as_json: bool) -> None:
    """Fold small files into few large ones; safe while the sweep runs, and at any instant it may be killed.

    \b
    Example:  bo-sweep compact digits-grid
    """
    from orchestrator.compaction import compact as fold
    from orchestrator.console import RESULTS, print_json

    with user_errors():
        report = fold(sweep_at(storage, sweep))
    if as_json:
        print_json({"sweep": sweep, "files_before": report.before, "files_after": report.after})
    else:
        RESULTS.print(f"{report.before} files became {report.after}.")
