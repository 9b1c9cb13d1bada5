"""`bo-sweep jobs`: sweeps that a Ray cluster carries out as jobs, sent there by `bo-sweep launch --address http://...`."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

import click

from orchestrator.commands.options import again, json_option, user_errors

if TYPE_CHECKING:
    from orchestrator.ray_jobs.jobs import SweepJob

address_option = click.option(
    "--address",
    required=True,
    envvar=["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"],
    help="The cluster's dashboard, http://head:8265, or its Ray Client server, ray://head:10001.  [default: "
    "$RAY_API_SERVER_ADDRESS, $RAY_ADDRESS]",
)


@click.group()
def jobs() -> None:
    """Watch and stop sweeps that a Ray cluster runs.

    \b
    Example:  bo-sweep jobs status digits-grid --address http://head:8265
    """


@jobs.command("list")
@address_option
@json_option
def list_command(address: str, as_json: bool) -> None:
    """List the jobs of sweeps that the cluster remembers, oldest first.

    \b
    Example:  bo-sweep jobs list --address http://head:8265
    """
    from orchestrator.console import RESULTS, print_json, print_next
    from orchestrator.ray_jobs.connection import connect
    from orchestrator.ray_jobs.jobs import sweep_jobs

    with user_errors():
        found = sweep_jobs(connect(address))
    if as_json:
        print_json({"jobs": [job.document() for job in found]})
    else:
        for job in found:
            RESULTS.print(job.sentence(), markup=False)
        if not found:
            RESULTS.print("No job of a sweep.")
    print_next(
        command("status", found[-1].sweep, address)
        if found
        else f"bo-sweep launch digits-grid --storage s3://bucket/sweeps --address {shlex.quote(address)}"
    )


@jobs.command()
@click.argument("sweep")
@address_option
@json_option
def status(sweep: str, address: str, as_json: bool) -> None:
    """Tell how the newest job of a sweep stands: waiting, running, done, failed (with the cause) or stopped.

    \b
    Example:  bo-sweep jobs status digits-grid --address http://head:8265
    """
    from orchestrator.console import RESULTS, print_json
    from orchestrator.ray_jobs.connection import connect
    from orchestrator.ray_jobs.jobs import find_job
    from orchestrator.ray_jobs.logs import last_line

    with user_errors():
        cluster = connect(address)
        job = find_job(cluster, sweep)
        latest = last_line(cluster, job.job_id) if job.state == "running" else None
    if as_json:
        print_json(job.document() | {"latest": latest})
    else:
        RESULTS.print(job.sentence(), markup=False)
        RESULTS.print(f"  storage: {job.storage}", markup=False)
        if latest:
            RESULTS.print(f"  latest:  {latest}", markup=False)
        if job.state == "failed":
            RESULTS.print(f"  {job.message.strip()}", markup=False)
        if job.remedy:
            RESULTS.print(f"  Remedy: {job.remedy}.", markup=False)
    print_what_is_next(job, address)


@jobs.command()
@click.argument("sweep")
@address_option
@click.option("--follow/--no-follow", default=True, help="Go on until the job has ended or Ctrl-C, or end at once.")
def logs(sweep: str, address: str, follow: bool) -> None:
    """Print what the newest job of a sweep says; Ctrl-C leaves it running.

    \b
    Example:  bo-sweep jobs logs digits-grid --address http://head:8265
    """
    from orchestrator.ray_jobs.connection import connect
    from orchestrator.ray_jobs.jobs import find_job, job_status
    from orchestrator.ray_jobs.logs import follow_logs, job_log

    with user_errors():
        cluster = connect(address)
        job = find_job(cluster, sweep)
        try:
            for piece in follow_logs(cluster, job.job_id) if follow else [job_log(cluster, job.job_id)]:
                sys.stdout.write(piece)
                sys.stdout.flush()
        except KeyboardInterrupt:
            pass  # the way to leave
        except BrokenPipeError:
            sys.stderr.close()  # the reader has gone, as `| head` does; Python would complain at its end
            return
        job = job_status(cluster, job.job_id)
    print_how_it_stands(job, address)


@jobs.command()
@click.argument("sweep")
@address_option
@click.option("--wait/--no-wait", default=True, help="Wait until what runs is saved and the job has ended, or leave.")
def stop(sweep: str, address: str, wait: bool) -> None:
    """Stop the newest job of a sweep: what is in training is saved, and a later launch goes on from there.

    \b
    Example:  bo-sweep jobs stop digits-grid --address http://head:8265
    """
    from orchestrator.console import LOG
    from orchestrator.ray_jobs.connection import connect
    from orchestrator.ray_jobs.jobs import find_job, job_status, stop_job, wait_for_job

    with user_errors():
        cluster = connect(address)
        job = find_job(cluster, sweep)
        if stop_job(cluster, job.job_id):
            LOG.print("Asked to stop; what is in training is saved first.")
            try:
                job = wait_for_job(cluster, job.job_id) if wait else job_status(cluster, job.job_id)
            except KeyboardInterrupt:
                job = job_status(cluster, job.job_id)
    print_how_it_stands(job, address)


def print_how_it_stands(job: SweepJob, address: str) -> None:
    """On stderr: the state in a sentence, and the next command."""
    from orchestrator.console import LOG

    LOG.print(job.sentence(), markup=False)
    if job.remedy:
        LOG.print(f"Remedy: {job.remedy}.", markup=False)
    print_what_is_next(job, address)


def print_what_is_next(job: SweepJob, address: str) -> None:
    """The commands that make sense in a job's state."""
    from orchestrator.console import print_next

    if not job.is_over:
        print_next(command("logs", job.sweep, address), command("stop", job.sweep, address))
    elif job.state == "done":
        print_next(again("status", job.sweep, job.storage), again("phase", job.sweep, job.storage))
    else:
        print_next(
            *([f"{command('logs', job.sweep, address)} --no-follow"] if job.state == "failed" else []),
            f"{again('launch', job.space, job.storage, job.sweep if job.sweep != job.space else None)} "
            f"--address {shlex.quote(address)}    # with the same options as before: goes on from what is saved",
        )


def command(name: str, sweep: str | None, address: str) -> str:
    """The command line of `bo-sweep jobs` that addresses the same sweep, or none."""
    return shlex.join(["bo-sweep", "jobs", name, *([sweep] if sweep else []), "--address", address])
