"""`bo-sweep k8s status`: how a launch is, in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.commands.k8s.options import ConnectionChoice, connection_options
from orchestrator.commands.options import json_option, user_errors

if TYPE_CHECKING:
    from orchestrator.k8s.client.api import Api

WATCH_SECONDS = 5.0
"""A look is half a dozen requests, among them for all events of the namespace."""
ENDED = ("done", "stopped", "failed", "deleted")


@click.command()
@click.argument("sweep", required=False)
@click.option("--watch", is_flag=True, help="Go on showing it until Ctrl-C, or until the launch has ended.")
@connection_options
@json_option
def status(sweep: str | None, watch: bool, cluster: ConnectionChoice, as_json: bool) -> None:
    """Show how a launch on Kubernetes is: its state, the first cause if it is not well, and what to do.

    Without a sweep: all of the namespace, a line each.

    \b
    Example:  bo-sweep k8s status imagenet-grid --watch
    """
    from orchestrator.console import RESULTS, print_json
    from orchestrator.k8s.client.api import connect
    from orchestrator.k8s.watching.launch_status import status_view

    if watch and (as_json or sweep is None):
        raise click.UsageError("--watch shows one SWEEP to people: give its name, and leave out --json")
    with user_errors():
        api = connect(cluster.connection())
        if sweep is None:
            _list(api, cluster, as_json)
            return
        document = _read(api, sweep)
        if watch:
            document = _watch(api, sweep, document)
    if as_json:
        print_json(document)
    elif not watch:
        RESULTS.print(status_view(document))
    _print_next(document, cluster)


def _read(api: Api, sweep: str) -> dict[str, Any]:
    from orchestrator.k8s.watching.causes import explain
    from orchestrator.k8s.watching.follow import last_progress
    from orchestrator.k8s.watching.launch_status import status_document
    from orchestrator.k8s.watching.picture import look

    picture = look(api, sweep)
    return status_document(picture, explain(picture), last_progress(api, picture))


def _list(api: Api, cluster: ConnectionChoice, as_json: bool) -> None:
    from orchestrator.commands.k8s.again import k8s_again, there_again
    from orchestrator.console import LOG, RESULTS, print_json, print_next
    from orchestrator.k8s.watching.causes import explain
    from orchestrator.k8s.watching.launch_status import status_document, sweeps_table
    from orchestrator.k8s.watching.picture import brief_picture_of, sweeps_in

    documents = []
    for sweep, job in sweeps_in(api).items():
        picture = brief_picture_of(api, sweep, job)
        documents.append(status_document(picture, explain(picture)))
    if as_json:
        print_json({"namespace": api.namespace, "sweeps": documents})
        return
    if not documents:
        LOG.print(f"No sweep in the namespace {api.namespace!r} of {api.host}.", markup=False)
        print_next(there_again(cluster, "launch", "digits-grid", "--on", "k8s"))
        return
    RESULTS.print(sweeps_table(documents))
    first = next((document for document in documents if document["cause"]), documents[-1])
    print_next(k8s_again("status", first["sweep"], cluster))


def _watch(api: Api, sweep: str, document: dict[str, Any]) -> dict[str, Any]:
    """Show it over and over: in place on a terminal, elsewhere when it changes. Returns the last one."""
    from orchestrator.commands.watching import watch
    from orchestrator.console import LOG
    from orchestrator.k8s.watching.launch_status import status_view
    from orchestrator.k8s.watching.patience import Patience, patiently

    def tell(words: str) -> None:
        LOG.print(words, markup=False)

    def read() -> dict[str, Any]:
        try:
            return patiently(lambda: _read(api, sweep), tell, Patience(), again=True)
        except ValueError:  # it was there a moment ago
            gone = {"workers": document["workers"] | {"ready": 0, "pods": []}, "head": None, "submitter": None}
            words = {"headline": "Deleted; results stay.", "cause": "", "remedy": "", "details": []}
            return document | gone | words | {"state": "deleted"}

    return watch(
        document,
        read,
        status_view,
        lambda document: document["state"] in ENDED,
        seconds=WATCH_SECONDS,
        news=lambda document: [
            *(document[key] for key in ("state", "cause", "progress", "attempt")),
            document["workers"]["ready"],
        ],
    )


def _print_next(document: dict[str, Any], cluster: ConnectionChoice) -> None:
    from orchestrator.commands.k8s.again import k8s_again, there_again
    from orchestrator.commands.options import again
    from orchestrator.console import print_next

    sweep, state, storage = document["sweep"], document["state"], document["storage"]
    commands = [k8s_again("logs", sweep, cluster)] if state in ("running", "retrying", "failed", "starting") else []
    if state in ("queued", "waiting", "pulling", "starting"):
        commands.insert(0, f"{k8s_again('status', sweep, cluster)} --watch")
    if storage and "://" in storage:
        commands.append(again("status", sweep, storage))
    else:
        commands.append(there_again(cluster, "fetch", sweep, "--on", "k8s", "--to", "results"))
    print_next(*commands)
