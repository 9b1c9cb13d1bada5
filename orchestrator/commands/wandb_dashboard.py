"""`bo-sweep wandb dashboard`: workspace and report of a sweep on W&B, made in code."""

from __future__ import annotations

import click

from orchestrator.commands.options import again, json_option, sweep_at, sweep_options, user_errors, wandb_options


@click.command()
@click.argument("sweep")
@sweep_options
@wandb_options
@click.option("--dry-run", is_flag=True, help="Print what would be made, as JSON; needs no key and no network.")
@json_option
def dashboard(sweep: str, storage: str, entity: str | None, project: str | None, dry_run: bool, as_json: bool) -> None:
    """Make a sweep's workspace and report on W&B, or bring them up to date: heat maps, slices, curves, failures.

    \b
    Example:  bo-sweep wandb dashboard digits-grid --dry-run
    """
    from orchestrator.console import LOG, RESULTS, print_json, print_next
    from orchestrator.publishing.dashboard.document import dashboard_document
    from orchestrator.publishing.dashboard.plan import plan_dashboard
    from orchestrator.publishing.dashboard.saving import save_dashboard
    from orchestrator.publishing.reading import sweep_key
    from orchestrator.publishing.target import Target

    publish, this = (_again(command, sweep, storage) for command in ("publish", "dashboard"))
    with user_errors():
        target = Target.of(entity=entity, project=project)
        ledger = sweep_at(storage, sweep)
        manifest = ledger.manifest()
        planned = plan_dashboard(ledger.name, sweep_key(ledger.name, manifest), manifest.space)
        if dry_run:
            print_json(dashboard_document(planned, target))
            print_next(publish, this)
            return
        saved = save_dashboard(planned, target)
    if as_json:
        made = {name: name in saved.made for name in ("workspace", "report")}
        urls = {"workspace": saved.workspace, "report": saved.report}
        print_json({"sweep": sweep, **urls, "made": made, "doubtful_charts": list(saved.doubtful_charts)})
        return
    for name, url in (("workspace", saved.workspace), ("report", saved.report)):
        LOG.print(f"{name} {'made' if name in saved.made else 'brought up to date'}:", markup=False)
        RESULTS.print(url, markup=False)
    for words in saved.doubtful_charts:
        LOG.print(f"W&B did not make a chart, which does no harm if it has it already: {words}", markup=False)
    print_next(f"{publish} --follow", again("status", sweep, storage))


def _again(command: str, sweep: str, storage: str) -> str:
    return again(command, sweep, storage).replace("bo-sweep ", "bo-sweep wandb ", 1)
