"""`bo-sweep fetch`: a sweep's ledger and figures into a folder of this machine."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from orchestrator.commands.k8s.options import ConnectionChoice, connection_of, connection_options
from orchestrator.commands.options import STOPPED, again, json_option, storage_at, sweep_options, user_errors

if TYPE_CHECKING:
    from orchestrator.k8s.profile import ClusterProfile
    from orchestrator.stage_progress import StageProgress
    from orchestrator.storage import Storage


@click.command()
@click.argument("sweep")
@click.option("--to", metavar="DIR", required=True, help="Folder of this machine that gets a folder of the sweep.")
@sweep_options
@click.option("--on", type=click.Choice(["k8s"]), help="Fetch from the results of a Kubernetes profile instead.")
@connection_options
@click.option("--checkpoints", is_flag=True, help="Also the state of unfinished runs, to train on here.")
@json_option
@click.pass_context
def fetch(
    context: click.Context,
    sweep: str,
    to: str,
    storage: str,
    on: str | None,
    cluster: ConnectionChoice,
    checkpoints: bool,
    as_json: bool,
) -> None:
    """Copy a sweep's ledger and figures into a local folder, also while it is being launched.

    Every other command reads the copy with --storage DIR. Only what is not there yet is read, so that the same command
    brings a copy up to date, and completes one that was cut short. Results in a claim of a cluster are read through a
    pod that is made for it and removed again.

    \b
    Example:  bo-sweep fetch digits-grid --to results --storage s3://bucket/sweeps
              bo-sweep fetch imagenet-grid --to results --on k8s --profile prod
    """
    from orchestrator.console import LOG, RESULTS, print_json, print_next
    from orchestrator.fetch import fetch as fetch_sweep
    from orchestrator.lease import current_claim
    from orchestrator.ledger import open_ledger

    on_cluster = on == "k8s" or cluster != ConnectionChoice()
    if on_cluster and context.get_parameter_source("storage") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--storage names a place, and so does the profile of --on k8s: give one of the two")
    with _told() as progress:
        target = _target(to, sweep)
        with _cluster_results(cluster) if on_cluster else _named_storage(storage) as root:
            source = open_ledger(root, sweep).storage
            fetched = fetch_sweep(source, target, checkpoints=checkpoints, on_progress=progress)
            live = current_claim(source) is not None
    if as_json:
        document = {"sweep": sweep, "from": source.url, "to": target.location(""), "live": live}
        print_json(document | vars(fetched))
    else:
        RESULTS.print(target.location(""), markup=False)
    LOG.print(
        f"{fetched.files} files fetched ({fetched.bytes / 1e6:,.1f} MB), {fetched.unchanged} were here already, "
        f"{fetched.removed} removed that are no longer there."
    )
    if live:
        LOG.print("It is still being launched: the same command brings what comes later.")
    print_next(again("phase", sweep, to), again("status", sweep, to), again("report", sweep, to))


def _target(to: str, sweep: str) -> Storage:
    """The sweep's folder here. Raises ValueError, StorageError before anything is begun elsewhere."""
    from orchestrator.fetch_target import told_here
    from orchestrator.paths import check_sweep_name

    check_sweep_name(sweep)
    target = storage_at(to).child(sweep)
    if target.local_path() is None:
        raise ValueError(f"--to {to}: must be a folder of this machine")
    with told_here():
        target.check_writable()
    return target


@contextmanager
def _named_storage(url: str) -> Iterator[Storage]:
    yield storage_at(url)


@contextmanager
def _cluster_results(cluster: ConnectionChoice) -> Iterator[Storage]:
    from orchestrator.console import LOG
    from orchestrator.k8s.client.api import connect
    from orchestrator.k8s.fetching.results import open_results

    profile = _profile(cluster)
    api = connect(connection_of(profile, cluster.kubeconfig)) if profile.results.claim else None
    with open_results(api, profile, tell=lambda words: LOG.print(words, markup=False)) as storage:
        yield storage


def _profile(cluster: ConnectionChoice) -> ClusterProfile:
    from orchestrator.k8s.profiles import load_profile

    return cluster.load() or load_profile()  # which tells how to write one


@contextmanager
def _told() -> Iterator[StageProgress]:
    """Show progress on a terminal while the block runs, and turn what goes wrong into a message and an exit code."""
    from orchestrator.console import LOG, print_next
    from orchestrator.stage_progress import StageProgress
    from orchestrator.stops import interruptible

    try:
        with interruptible(), user_errors(), StageProgress() as progress:
            yield progress
    except KeyboardInterrupt:
        LOG.print("\nStopped. What has come stays; the same command goes on from there.")
        print_next(shlex.join(["bo-sweep", *sys.argv[1:]]))
        raise SystemExit(STOPPED) from None
