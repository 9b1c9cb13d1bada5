"""A launch that is sent to a Ray cluster as a job. It goes on when this process ends."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from orchestrator.commands.launch_elsewhere import detached, end_by_ledger, exit_code, tell_unread
from orchestrator.commands.options import INFRASTRUCTURE, STOPPED, USAGE, again

if TYPE_CHECKING:
    from orchestrator.commands.launch_here import AsGiven
    from orchestrator.entry_point import LaunchRequest
    from orchestrator.ray_jobs.submission import Submitted
    from orchestrator.storage import Storage

WORDS = {"submitted": "submitted", "attached": "runs already", "complete": "complete: nothing to submit"}


def as_ray_job(
    request: LaunchRequest,
    given: AsGiven,
    address: str,
    data_folder: str | None,
    *,
    dry_run: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Submit to a Ray cluster as a job; with `wait`, show the log and end as the launch ends.

    `data_folder` is as the nodes have it. Exits with the code that tells how the launch ended.
    """
    from orchestrator.commands.jobs import command
    from orchestrator.console import LOG, RESULTS, print_json, print_next
    from orchestrator.ray_jobs.parcel import pack
    from orchestrator.ray_jobs.submission import launch_as_ray_job
    from orchestrator.stops import interruptible

    data = ("--data", data_folder) if data_folder else ()
    go_on = f"{given.again()} {shlex.join([*data, '--address', address, *request.options_to_go_on()])}"
    if dry_run:
        parcel = pack(request, given.storage, data_folder)
        document = {"job": parcel.job_id, "sweep": parcel.sweep, "entrypoint": parcel.entrypoint}
        print_json(document) if as_json else RESULTS.print(parcel.entrypoint, markup=False)
        print_next(go_on)
        return
    try:
        with interruptible():
            submitted = launch_as_ray_job(
                request,
                address,
                storage=given.storage,
                data_folder=data_folder,
                ledger_complete=lambda: _complete_in_reach(request, given.storage),
            )
    except KeyboardInterrupt:
        LOG.print("\nStopped; it may have been submitted just before.")
        print_next(command("list", None, address), go_on)
        raise SystemExit(STOPPED) from None
    if as_json:
        print_json({"job": submitted.job_id, "sweep": submitted.sweep, "state": submitted.state})
    else:
        RESULTS.print(f"{submitted.job_id or submitted.sweep}: {WORDS[submitted.state]}", markup=False)
    if submitted.job_id is None:
        print_next(again("phase", request.sweep, given.storage))
    elif wait:
        _follow(submitted, request, given, address, go_on)
    else:
        print_next(*(command(name, request.sweep, address) for name in ("status", "logs")))


def _follow(submitted: Submitted, request: LaunchRequest, given: AsGiven, address: str, go_on: str) -> None:
    """Show the log, and exit as the launch ends."""
    from orchestrator.commands.jobs import command
    from orchestrator.console import LOG, print_next
    from orchestrator.ray_jobs.jobs import wait_for_job
    from orchestrator.ray_jobs.logs import follow_logs

    assert submitted.job_id is not None
    status, logs = (command(name, request.sweep, address) for name in ("status", "logs"))
    piece = ""
    with detached(submitted.job_id, status, logs):
        for piece in follow_logs(submitted.cluster, submitted.job_id):
            LOG.print(piece, end="", markup=False)
        LOG.print(end="" if piece.endswith("\n") or not piece else "\n")
        job = wait_for_job(submitted.cluster, submitted.job_id)
    if job.state != "done":
        LOG.print(job.sentence(), markup=False)
        if job.remedy:
            LOG.print(f"Remedy: {job.remedy}.", markup=False)
        print_next(status, go_on)
        own_word = job.exit_code in (USAGE, STOPPED, INFRASTRUCTURE)  # else it crashed or was killed
        raise SystemExit(STOPPED if job.state == "stopped" else job.exit_code if own_word else INFRASTRUCTURE)
    code = _exit_code_in_reach(request, given.storage)
    phase = again("phase", request.sweep, given.storage)
    end_by_ledger(submitted.job_id, code, request, look=phase, go_on=go_on)


def _in_reach(storage: str) -> Storage | None:
    """The storage of a cluster's nodes, where this machine has it too."""
    from orchestrator.storage import open_storage

    opened = open_storage(storage)
    local = opened.local_path()
    return None if local is not None and not local.exists() else opened


def _complete_in_reach(request: LaunchRequest, storage: str) -> bool | None:
    from orchestrator.remaining import ledger_complete
    from orchestrator.storage import StorageError

    opened = _in_reach(storage)
    try:
        return None if opened is None else ledger_complete(request, opened)
    except StorageError:
        return None


def _exit_code_in_reach(request: LaunchRequest, storage: str) -> int:
    """What the launch itself would have ended with; 0, with a word why, where its ledger cannot be read from here."""
    from orchestrator.ledger import Ledger
    from orchestrator.storage import StorageError

    opened, reason = _in_reach(storage), f"{storage} on this machine does not have the sweep"
    try:
        if opened and Ledger(opened.child(request.sweep)).exists():
            return exit_code(request, opened)
    except StorageError as error:
        reason = str(error)
    tell_unread(reason)
    return 0
