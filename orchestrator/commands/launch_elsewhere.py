"""A launch that is submitted to Kubernetes. It goes on when this process ends."""

from __future__ import annotations

import re
import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, cast

from orchestrator.commands.options import DEFAULT_STORAGE, INFRASTRUCTURE, SOME_RUNS_FAILED, STOPPED, USAGE

if TYPE_CHECKING:
    from orchestrator.commands.k8s.options import ClusterChoice
    from orchestrator.commands.launch_here import AsGiven
    from orchestrator.entry_point import LaunchRequest
    from orchestrator.k8s.client.api import Api
    from orchestrator.k8s.launch import ClusterLaunch
    from orchestrator.k8s.profile import ClusterProfile
    from orchestrator.k8s.submitting.waiting import End
    from orchestrator.storage import Storage

LAST_LINES_SECONDS = 15.0
"""After the end of a launch, for what it wrote last to arrive."""


@dataclass(frozen=True)
class Commands:
    """What to do next: the same launch again, one that goes on (without its budgets), and what looks at it."""

    same: str
    go_on: str
    status: str
    stop: str
    logs: str
    fetch: str


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
    from orchestrator.console import LOG, RESULTS, print_json, print_next
    from orchestrator.stops import interruptible

    profile = cluster.load()
    commands = _commands(request, given, cluster, kubeconfig)
    with interruptible():
        launched = _launched(request, profile, kubeconfig, dry_run, commands)
        for note in launched.notes:
            LOG.print(f"Note: {note}", markup=False)
        submitted = launched.submitted
        if as_json:
            print_json(_document(launched))
        elif submitted is None:
            sys.stdout.write(launched.manifests.yaml())
        else:
            RESULTS.print(f"{submitted.name}: {_words(submitted.state, dry_run)}", markup=False)
        if submitted is None:
            print_next(f"{commands.same} --dry-run=server    # what the cluster says to it", commands.same)
        elif dry_run:
            print_next(commands.same)
        elif submitted.state == "complete":
            print_next(commands.fetch)
        elif wait:
            _follow(launched, request, profile, commands)
        else:
            print_next(commands.status, commands.logs, commands.fetch)


def _commands(request: LaunchRequest, given: AsGiven, cluster: ClusterChoice, kubeconfig: Path | None) -> Commands:
    file = ["--kubeconfig", str(kubeconfig)] if kubeconfig else []
    chosen = [part for option in cluster.given for part in option]
    # Storage is the profile's: what this machine's environment names has no part in it.
    launch = [*shlex.split(replace(given, storage=DEFAULT_STORAGE).again()), "--on", "k8s", *chosen, *file]
    launch += request.options_to_go_on()
    places = ("--profile", "--context", "--namespace")
    reach = [part for name, value in cluster.given if name in places for part in (name, value)] + file
    status, stop, logs = (
        shlex.join(["bo-sweep", "k8s", name, request.sweep, *reach]) for name in ("status", "stop", "logs")
    )
    return Commands(
        same=shlex.join([*launch, *_budgets(request)]),
        go_on=shlex.join(launch),
        status=status,
        stop=stop,
        logs=logs,
        fetch=shlex.join(["bo-sweep", "fetch", request.sweep, "--on", "k8s", "--to", "fetched", *reach]),
    )


def _budgets(request: LaunchRequest) -> list[str]:
    values = {
        "--max-gpu-hours": request.max_gpu_hours,
        "--max-wall": request.max_wall,
        "--max-runs": request.max_runs,
    }
    return [part for name, value in values.items() if value is not None for part in (name, str(value))]


def _launched(
    request: LaunchRequest, profile: ClusterProfile, kubeconfig: Path | None, dry_run: str | None, commands: Commands
) -> ClusterLaunch:
    """Submit it; Ctrl-C meanwhile ends with a word about what is in the cluster."""
    from orchestrator.commands.k8s.options import connection_of
    from orchestrator.console import LOG, print_next
    from orchestrator.k8s.launch import launch_on_kubernetes
    from orchestrator.k8s.submitting.submission import OtherJobError

    try:
        return launch_on_kubernetes(
            request,
            profile,
            connection_of(profile, kubeconfig),
            dry_run=cast(Literal["client", "server"] | None, dry_run),
            ledger_complete=lambda api: None if dry_run else _complete(request, api, profile),
            tell=lambda words: LOG.print(words, markup=False),
        )
    except OtherJobError as error:
        # The library does not know by which options the cluster was reached; without them it might stop another's.
        plain = f"bo-sweep k8s stop {request.sweep}"
        raise OtherJobError(str(error).replace(plain, commands.stop)) from error
    except KeyboardInterrupt as interrupted:
        LOG.print(f"\nStopped: {str(interrupted) or 'nothing was submitted'}.", markup=False)
        print_next(commands.same)
        raise SystemExit(STOPPED) from None


@contextmanager
def detached(name: str, *commands: str) -> Iterator[None]:
    """Ctrl-C ends the watching, not what is watched, which has not come to its end: a script must not go on."""
    from orchestrator.console import LOG, print_next

    try:
        yield
    except KeyboardInterrupt:
        LOG.print(f"\nDetached: {name} goes on.", markup=False)
        print_next(*commands)
        raise SystemExit(STOPPED) from None


def _follow(launched: ClusterLaunch, request: LaunchRequest, profile: ClusterProfile, commands: Commands) -> None:
    """Show what the launch writes until it has ended, and exit as it did."""
    from orchestrator.console import LOG, print_next
    from orchestrator.k8s.client.errors import ClusterError, NotFoundError

    assert launched.api is not None
    name = launched.manifests.name
    with detached(name, commands.status, commands.logs):
        try:
            end = _end_of(launched.api, name, request.sweep)
        except NotFoundError:
            raise
        except ClusterError as error:
            raise ClusterError(f"{error}\n{name} itself goes on: {commands.status}", code=error.code) from error
    if end.state != "succeeded":
        # KubeRay adds the end of the log, which has been shown.
        told = f"{end.reason} {end.message.partition(', last available logs')[0]}".strip()
        LOG.print(f"{name} {end.state}{f': {told}' if told else ''}", markup=False)
        print_next(commands.status, commands.go_on)
        raise SystemExit(STOPPED if end.state in ("stopped", "deleted") else _code_in(end.message))
    code = _code_by_ledger(launched.api, request, profile)
    end_by_ledger(name, code, request, look=commands.fetch, go_on=commands.go_on)


def end_by_ledger(name: str, code: int, request: LaunchRequest, *, look: str, go_on: str) -> NoReturn:
    """Say what is left to do after a launch that succeeded, and exit with the code that its ledger gives."""
    from orchestrator.console import LOG, print_next

    retry = go_on if request.retry_failed else f"{go_on} --retry-failed"
    left = {STOPPED: ("not all runs are done", go_on), SOME_RUNS_FAILED: ("some runs failed", retry)}
    words, *after = left.get(code, ("",))
    if words:
        LOG.print(f"{name} succeeded, but {words}.", markup=False)
    print_next(look, *after)
    raise SystemExit(code)


def tell_unread(reason: str) -> None:
    """Why the end of a launch that succeeded says nothing about its runs."""
    from orchestrator.console import LOG

    LOG.print(
        "Note: the launch is done; whether runs failed is not known here, as the ledger cannot be read from here "
        f"({reason})",
        markup=False,
    )


def _end_of(api: Api, name: str, sweep: str) -> End:
    """Show what the launch writes until its RayJob has ended; how it ended."""
    from orchestrator.console import LOG
    from orchestrator.k8s.client.errors import ClusterError
    from orchestrator.k8s.submitting.waiting import state_in_words, wait
    from orchestrator.k8s.watching.follow import launch_lines
    from orchestrator.k8s.watching.picture import job_of

    def show() -> None:
        try:
            for line in launch_lines(api, job_of(api, sweep, name)):
                LOG.print(line, markup=False)
        except (ClusterError, ValueError) as error:
            LOG.print(f"Note: its output cannot be shown: {error}", markup=False)

    told = ""

    def tell(rayjob: dict[str, Any]) -> None:
        nonlocal told
        if (words := state_in_words(rayjob)) != told:
            told = words
            LOG.print(f"{name}: {words}", markup=False)

    showing = threading.Thread(target=show, name="log", daemon=True)
    showing.start()
    end = wait(api, name, tell)
    showing.join(LAST_LINES_SECONDS)
    return end


def _code_in(message: str) -> int:
    """The exit code of a launch that failed, where KubeRay tells one that means something."""
    found = re.search(r"failed with exit code (\d+)", message)
    code = int(found[1]) if found else INFRASTRUCTURE
    return code if code in (SOME_RUNS_FAILED, USAGE, STOPPED) else INFRASTRUCTURE


def _code_by_ledger(api: Api, request: LaunchRequest, profile: ClusterProfile) -> int:
    """What a launch that succeeded would have ended with here; 0, with a word why, where its ledger cannot be read."""
    from orchestrator.storage import StorageError

    try:
        with _results(api, profile) as storage:
            return exit_code(request, storage)
    except (ConnectionError, StorageError) as error:
        tell_unread(str(error))
        return 0


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
    if not dry_run:
        return words[state]
    return (
        "runs already: nothing would be submitted"
        if state == "attached"
        else (f"the cluster would accept it ({words[state]})")
    )
