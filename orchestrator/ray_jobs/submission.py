"""Sending a sweep to a Ray cluster. Launch means reconcile: what runs already is joined, what is complete is left."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator.entry_point import LaunchRequest
from orchestrator.ray_jobs.connection import RayCluster, connect
from orchestrator.ray_jobs.jobs import SweepJob, job_status, sweep_jobs
from orchestrator.ray_jobs.parcel import Parcel, pack
from orchestrator.ray_jobs.trouble import RayJobError


@dataclass(frozen=True)
class Submitted:
    """What came of a submission.

    Attributes:
        cluster: connected, for following the job.
        sweep: name of the sweep.
        job_id: of the Ray job; None where nothing was submitted.
        state: "submitted"; "attached" where the same is running already; "complete" where the ledger lacks nothing.
        attempt: 1 for the first job of this very sweep and code on this cluster, and so on; 0 without a job.
    """

    cluster: RayCluster
    sweep: str
    job_id: str | None
    state: Literal["submitted", "attached", "complete"]
    attempt: int = 1


def launch_as_ray_job(
    request: LaunchRequest,
    address: str,
    *,
    storage: str,
    data_folder: str | None = None,
    ledger_complete: Callable[[], bool | None] = lambda: None,
) -> Submitted:
    """Send a launch to the cluster at `address` as a job, which goes on when this process ends.

    Args:
        request: what to launch.
        address: http://head:8265, https://... or ray://head:10001.
        storage: of sweeps, as the nodes see it: s3://, gs:// or an absolute path that they share.
        data_folder: absolute, as the nodes see it; None for their default.
        ledger_complete: whether the sweep lacks nothing; None where that cannot be read from here.

    Raises:
        ValueError: what nodes could not find, or no job API installed here.
        RayJobError: the cluster cannot be reached, refuses, or runs another job of this sweep.
    """
    parcel = pack(request, storage, data_folder)
    return submit_job(parcel, connect(address), ledger_complete)


def submit_job(
    parcel: Parcel, cluster: RayCluster, ledger_complete: Callable[[], bool | None] = lambda: None
) -> Submitted:
    """Submit a parcel, unless the same is running or nothing is left to do.

    A job that has ended never runs again, and Ray advises against giving its id to another: the next one has the
    number of its attempt in its id.

    Raises:
        RayJobError: the cluster cannot be reached, refuses, or runs another job of this sweep.
    """
    jobs = sweep_jobs(cluster, parcel.sweep)
    same = [job for job in jobs if job.metadata.get("digest") == parcel.digest]
    running = [job for job in jobs if not job.is_over]
    for job in running:
        if job not in same:
            raise RayJobError(_other_job(job, parcel, cluster.address))
    if running:
        return Submitted(cluster, parcel.sweep, running[-1].job_id, "attached", len(same))
    if ledger_complete():
        return Submitted(cluster, parcel.sweep, None, "complete", attempt=0)
    attempt = max((_attempt_of(job, parcel) for job in same), default=0) + 1
    with tempfile.TemporaryDirectory(prefix="bo-sweep-job-") as folder:
        environment = parcel.runtime_environment(Path(folder))
        while True:
            job_id = parcel.job_id if attempt == 1 else f"{parcel.job_id}-{attempt}"
            try:
                cluster.ask(
                    "submit_job",
                    entrypoint=parcel.entrypoint,
                    submission_id=job_id,
                    runtime_env=environment,
                    metadata=parcel.metadata,
                )
            except RayJobError as error:
                if "already exists" not in str(error):
                    raise
                if not job_status(cluster, job_id).is_over:  # somebody else has just submitted the same
                    return Submitted(cluster, parcel.sweep, job_id, "attached", attempt)
                attempt += 1
            else:
                return Submitted(cluster, parcel.sweep, job_id, "submitted", attempt)


def _attempt_of(job: SweepJob, parcel: Parcel) -> int:
    number = job.job_id.removeprefix(f"{parcel.job_id}-")
    return int(number) if number.isdecimal() else 1


def _other_job(job: SweepJob, parcel: Parcel, address: str) -> str:
    names = {"space-digest": "search space", "code-digest": "code of bo-sweep"}
    differing = [name for key, name in names.items() if job.metadata.get(key) != parcel.parts[key]]
    if job.entrypoint != parcel.entrypoint:
        differing.append("options")
    return (
        f"another job of sweep {parcel.sweep} is {job.state}: {job.job_id}, which differs in its "
        f"{' and '.join(differing) or 'version'}. Two launches of one sweep exclude each other: wait for its end, stop "
        f"it (bo-sweep jobs stop {parcel.sweep} --address {address}; nothing saved is lost), or give this one a --name "
        "of its own"
    )
