"""`bo-sweep k8s stop` and `bo-sweep k8s delete`: ending launches."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from orchestrator.commands.k8s.options import ConnectionChoice, connection_options
from orchestrator.commands.options import STOPPED, json_option, user_errors

if TYPE_CHECKING:
    from orchestrator.k8s.client.api import Api


@click.command()
@click.argument("sweep")
@connection_options
@json_option
def stop(sweep: str, cluster: ConnectionChoice, as_json: bool) -> None:
    """Stop a launch on Kubernetes: what runs is saved where that can be done; launching again goes on from there.

    \b
    Example:  bo-sweep k8s stop imagenet-grid
    """
    from orchestrator.commands.k8s.again import k8s_again, there_again
    from orchestrator.console import LOG, print_json, print_next
    from orchestrator.k8s.client.api import connect
    from orchestrator.k8s.watching.stop import stop as stop_launch

    with user_errors():
        stopped = stop_launch(connect(cluster.connection()), sweep)
    if as_json:
        print_json({"sweep": sweep, **vars(stopped)})
    words = {
        "asked": f"Ray was asked to stop {stopped.name}: it saves what runs, leaves, and its pods follow.",
        "deleted": (
            f"{stopped.name} was deleted, since Ray could not be asked to stop it ({stopped.why}). "
            "What was trained since the last checkpoints is trained again."
        ),
        "ended": f"{stopped.name} has ended already.",
    }
    LOG.print(words[stopped.way], markup=False)
    watch = f"{k8s_again('status', sweep, cluster)} --watch"
    go_on = there_again(cluster, "launch", "SPACE", "--on", "k8s")
    print_next(*([watch] if stopped.way == "asked" else []), f"{go_on}    # goes on from storage")


@click.command()
@click.argument("sweep")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connection_options
@json_option
def delete(sweep: str, yes: bool, cluster: ConnectionChoice, as_json: bool) -> None:
    """Delete the launches of a sweep from Kubernetes, with their pods; never results.

    \b
    Example:  bo-sweep k8s delete imagenet-grid --yes
    """
    from orchestrator.commands.k8s.again import there_again
    from orchestrator.console import LOG, print_json, print_next
    from orchestrator.k8s.client.api import connect
    from orchestrator.k8s.watching.stop import delete as delete_sweep

    with user_errors():
        api = connect(cluster.connection())
        if not yes:
            if not sys.stdin.isatty():
                raise ValueError("delete asks before it deletes, and there is no terminal to ask on: give --yes")
            running = "" if _has_ended(api, sweep) else ", which has not ended,"
            if not _confirmed(f"Delete {sweep}{running} in {api.namespace} of {api.host}? Results stay."):
                LOG.print("Nothing was deleted.")
                raise SystemExit(STOPPED)
        deleted = delete_sweep(api, sweep)
    if as_json:
        print_json({"sweep": sweep, "deleted": deleted})
    LOG.print(f"Deleted {', '.join(deleted)}. Results stay where they are.", markup=False)
    fetch = there_again(cluster, "fetch", sweep, "--on", "k8s", "--to", "fetched")
    print_next(fetch, f"{there_again(cluster, 'launch', 'SPACE', '--on', 'k8s')}    # goes on from storage")


def _has_ended(api: Api, sweep: str) -> bool:
    """Whether a launch has ended, or only what a killed one has left is there. Raises ValueError for no such sweep."""
    from orchestrator.k8s.watching.observed import ENDED, deployment_of
    from orchestrator.k8s.watching.picture import job_of
    from orchestrator.k8s.watching.stop import left_over

    try:
        return deployment_of(job_of(api, sweep)) in ENDED
    except ValueError:
        if left_over(api, sweep):
            return True
        raise


def _confirmed(question: str) -> bool:
    try:
        return click.confirm(question, err=True)
    except click.Abort:  # Ctrl-C
        click.echo(err=True)
        return False
