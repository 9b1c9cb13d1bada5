"""A launch that is submitted to Kubernetes. It goes on when this process ends."""

from __future__ import annotations

import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from orchestrator.commands.options import INFRASTRUCTURE, SOME_RUNS_FAILED, STOPPED

if TYPE_CHECKING:
    from orchestrator.commands.k8s.options import ClusterChoice
    from orchestrator.commands.launch_here import AsGiven
    from orchestrator.entry_point import LaunchRequest
    from orchestrator.k8s.client.api import Api
    from orchestrator.k8s.launch import ClusterLaunch
    from orchestrator.k8s.profile import ClusterProfile
    from orchestrator.storage import Storage

LAST_LINES_SECONDS = 15.0
"""After the end of a launch, for what it wrote last to arrive."""


def on_kubernetes(
    request: LaunchRequest,
    given: AsGiven,
    cluster: ClusterChoice,
    kubeconfig: Path | None,
    dry_run: str | None,
    *,
    wait: bool,
    as_json: bool,
) -> None:
    """Submit to Kubernetes; with `wait`, show the log and end as the launch ends."""
    from orchestrator.commands.k8s.options import connection_of
    from orchestrator.console import LOG, RESULTS, print_json, print_next
    from orchestrator.k8s.launch import launch_on_kubernetes

    profile = cluster.load()
    launched = launch_on_kubernetes(
        request,
        profile,
        connection_of(profile, kubeconfig),
        dry_run=cast(Literal["client", "server"] | None, dry_run),
        ledger_complete=lambda api: None if dry_run else _complete(request, api, profile),
    )
    for note in launched.notes:
        LOG.print(f"Note: {note}", markup=False)
    same = [part for option in cluster.given for part in option] + (
        ["--kubeconfig", str(kubeconfig)] if kubeconfig else []
    )
    go_on = shlex.join([*shlex.split(given.again()), "--on", "k8s", *same])
    if dry_run == "client" and not as_json:
        sys.stdout.write(launched.manifests.yaml())
        print_next(f"{go_on} --dry-run=server    # what the cluster says to it", go_on)
        return
    if as_json:
        print_json(_document(launched))
    elif launched.submitted:
        RESULTS.print(f"{launched.submitted.name}: {_words(launched.submitted.state, dry_run)}", markup=False)
    reach = _reach(cluster, kubeconfig)
    if dry_run or launched.submitted is None:
        print_next(go_on)
        return
    fetch = f"bo-sweep fetch {shlex.quote(request.sweep)} --on k8s --to fetched{reach}"
    if launched.submitted.state == "complete":
        print_next(fetch)
        return
    status, logs = (f"bo-sweep k8s {command} {shlex.quote(request.sweep)}{reach}" for command in ("status", "logs"))
    if not wait:
        print_next(status, logs, fetch)
        return
    assert launched.api is not None
    with detached(launched.submitted.name, status, logs):
        state, reason = _follow_on_kubernetes(launched.api, launched.submitted.name, request.sweep)
    if state != "succeeded":
        LOG.print(f"{launched.submitted.name} {state}{f': {reason}' if reason else ''}", markup=False)
        print_next(status, go_on)
        raise SystemExit(STOPPED if state in ("stopped", "deleted") else INFRASTRUCTURE)
    with _results(launched.api, profile) as storage:
        code = exit_code(request, storage)
    print_next(fetch, *([go_on] if code == STOPPED else []), *([f"{go_on} --retry-failed"] if code == 1 else []))
    raise SystemExit(code)


@contextmanager
def detached(name: str, *commands: str) -> Iterator[None]:
    """Ctrl-C ends the watching, not what is watched."""
    from orchestrator.console import LOG, print_next

    try:
        yield
    except KeyboardInterrupt:
        LOG.print(f"\nDetached: {name} goes on.", markup=False)
        print_next(*commands)
        raise SystemExit(0) from None


def _follow_on_kubernetes(api: Api, name: str, sweep: str) -> tuple[str, str]:
    """Show what the launch writes until its RayJob has ended; how it ended, and KubeRay's reason."""
    from orchestrator.console import LOG
    from orchestrator.k8s.client.errors import ClusterError
    from orchestrator.k8s.submitting.waiting import state_in_words, wait
    from orchestrator.k8s.watching.follow import launch_lines
    from orchestrator.k8s.watching.picture import job_of

    def show() -> None:
        try:
            for line in launch_lines(api, job_of(api, sweep)):
                LOG.print(line, markup=False)
        except (ClusterError, ValueError) as error:
            LOG.print(f"Note: its output cannot be shown: {error}", markup=False)

    showing = threading.Thread(target=show, name="log", daemon=True)
    showing.start()
    end = wait(api, name, lambda rayjob: LOG.print(f"{name}: {state_in_words(rayjob)}", markup=False))
    showing.join(LAST_LINES_SECONDS)
    return end.state, f"{end.reason} {end.message}".strip()


def _complete(request: LaunchRequest, api: Api, profile: ClusterProfile) -> bool | None:
    """Whether the ledger has all runs; None, with a word why, where it cannot be read from here."""
    from orchestrator.console import LOG
    from orchestrator.remaining import ledger_complete
    from orchestrator.storage import StorageError

    if request.retry_failed:
        return False
    claim = profile.results.claim
    try:
        if claim and api.get("PersistentVolumeClaim", claim) is None:
            return False  # it is made with this launch
        with _results(api, profile) as storage:
            return ledger_complete(request, storage)
    except (ConnectionError, StorageError) as error:
        LOG.print(f"Note: the ledger cannot be read from here ({error}); the launch will look itself", markup=False)
        return None


def _results(api: Api, profile: ClusterProfile) -> Any:
    from orchestrator.console import LOG
    from orchestrator.k8s.fetching.results import open_results

    return open_results(api, profile, tell=lambda words: LOG.print(words, markup=False))


def exit_code(request: LaunchRequest, storage: Storage) -> int:
    """The exit code that the launch itself would have had here, by its ledger."""
    from orchestrator.remaining import plan_in

    plan = plan_in(request, storage)
    if plan is None or plan.count("new"):
        return STOPPED
    return SOME_RUNS_FAILED if plan.count("failed") else 0


def _document(launched: ClusterLaunch) -> dict[str, Any]:
    submitted = launched.submitted
    return {
        "name": launched.manifests.name,
        "namespace": launched.manifests.namespace,
        "sweep": launched.manifests.sweep,
        "state": submitted.state if submitted else "rendered",
        "notes": list(launched.notes),
        "manifests": list(launched.manifests.all),
    }


def _words(state: str, dry_run: str | None) -> str:
    words = {
        "created": "submitted",
        "replaced": "submitted anew, to go on from storage",
        "attached": "runs already",
        "complete": "complete: nothing to submit",
    }
    return f"the cluster would accept it ({words[state]})" if dry_run else words[state]


def _reach(cluster: ClusterChoice, kubeconfig: Path | None) -> str:
    """The options by which other commands reach the same cluster."""
    parts = [
        part
        for name, value in cluster.given
        if name in ("--profile", "--context", "--namespace")
        for part in (name, value)
    ]
    parts += ["--kubeconfig", str(kubeconfig)] if kubeconfig else []
    return f" {shlex.join(parts)}" if parts else ""
