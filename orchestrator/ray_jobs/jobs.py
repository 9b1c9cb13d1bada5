"""Ray jobs of sweeps as a cluster tells of them: which there are, how they stand, and their end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from orchestrator.console import duration
from orchestrator.ray_jobs.connection import RayCluster
from orchestrator.ray_jobs.trouble import RayJobError, UnknownJobError

State = Literal["waiting", "running", "done", "failed", "stopped"]
STATES: dict[str, State] = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "SUCCEEDED": "done",
    "FAILED": "failed",
    "STOPPED": "stopped",
}
OURS = "bo-sweep"
"""The key in the metadata of jobs that tells them from those of other tools, which may have sweeps too."""
LOOK_SECONDS = 1.0
PATIENCE_SECONDS = 600.0
"""How long a cluster that answered before may be out of reach."""
REMEDIES = {
    "needs Python": "start Ray on the cluster's nodes with such a Python, or use an image that has one",
    **dict.fromkeys(
        ("No module named 'ray'", "python: not found", "python: command not found"),
        "`python` on the PATH of Ray's processes on the head has to be the one that Ray runs with",
    ),
    "No module named": "the cluster's nodes need the packages that bo-sweep needs: pip install bo-sweep there, or use "
    "an image that has them",
    "is being launched by": "wait for the end of that launch, or stop it first",
}
"""What to do, by a piece of a failed job's message; the first that fits."""


@dataclass(frozen=True)
class SweepJob:
    """A Ray job that carries out a sweep.

    Attributes:
        job_id: its submission id.
        space: name of its search space.
        sweep: name of the sweep.
        storage: of the sweep, as the nodes see it.
        state: "waiting" for a place on the head and for its environment.
        message: Ray's words about it, with the last lines of its log where it failed.
        started: in seconds since the epoch; `ended` likewise, None before the end.
        exit_code: of the launch, where it came to its end.
        entrypoint: the command.
        metadata: as submitted.
    """

    job_id: str
    space: str
    sweep: str
    storage: str
    state: State
    message: str
    started: float | None
    ended: float | None
    exit_code: int | None
    entrypoint: str
    metadata: dict[str, str]

    @property
    def is_over(self) -> bool:
        return self.state in ("done", "failed", "stopped")

    @property
    def seconds(self) -> float:
        """From its start until its end, or until now."""
        return max(0.0, (self.ended or time.time()) - self.started) if self.started else 0.0

    @property
    def remedy(self) -> str | None:
        """What to do about a failure, where it is a known one."""
        if self.state != "failed":
            return None
        return next((remedy for piece, remedy in REMEDIES.items() if piece in self.message), None)

    def sentence(self) -> str:
        """How it stands, in plain words."""
        lasted = duration(self.seconds)
        words = {
            "waiting": f"waiting to start for {lasted}: {_first_line(self.message)}",
            "running": f"running for {lasted}",
            "done": f"done after {lasted}",
            "failed": f"failed after {lasted}" + (f" with exit code {self.exit_code}" if self.exit_code else ""),
            "stopped": f"stopped after {lasted}; what was saved stays",
        }
        return f"{self.sweep} ({self.job_id}): {words[self.state]}"

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "job": self.job_id,
            "space": self.space,
            "sweep": self.sweep,
            "storage": self.storage,
            "state": self.state,
            "seconds": self.seconds,
            "started": _iso(self.started),
            "ended": _iso(self.ended),
            "exit_code": self.exit_code,
            "message": self.message,
            "remedy": self.remedy,
            "entrypoint": self.entrypoint,
        }


def sweep_jobs(cluster: RayCluster, sweep: str | None = None) -> list[SweepJob]:
    """The jobs of sweeps, or of one, that the cluster remembers, oldest first. Raises RayJobError."""
    found = [_sweep_job(details) for details in cluster.ask("list_jobs") if OURS in (details.metadata or {})]
    found = [job for job in found if sweep in (None, job.sweep)]
    return sorted(found, key=lambda job: (job.started or 0.0, len(job.job_id), job.job_id))


def find_job(cluster: RayCluster, sweep: str) -> SweepJob:
    """The job of a sweep that is not over, else the newest; or the one whose id is given.

    Two can be sent at the same time; then one of them ends at once, as the other has the sweep.

    Raises:
        ValueError: no such sweep has a job on this cluster; names those that have one.
        RayJobError: the cluster cannot be asked.
    """
    jobs = sweep_jobs(cluster)
    named = [job for job in jobs if sweep in (job.sweep, job.job_id)]
    if named:
        return max(reversed(named), key=lambda job: not job.is_over)
    known = ", ".join(sorted({job.sweep for job in jobs})) or "none"
    raise ValueError(
        f"no job of a sweep {sweep!r} on the cluster at {cluster.address}; sweeps with jobs there: {known}. A head "
        "that was started anew has forgotten its jobs: bo-sweep status shows what a sweep's storage holds"
    )


def job_status(cluster: RayCluster, job_id: str) -> SweepJob:
    """How one job stands. Raises UnknownJobError, RayJobError."""
    return _sweep_job(cluster.ask("get_job_info", job_id))


def stop_job(cluster: RayCluster, job_id: str) -> bool:
    """Ask a job to save what is in training and to end; returns at once. False where it had ended before.

    It has `JOB_STOP_SECONDS` to do so. Raises UnknownJobError, RayJobError.
    """
    return not job_status(cluster, job_id).is_over and bool(cluster.ask("stop_job", job_id))


def wait_for_job(
    cluster: RayCluster,
    job_id: str,
    on_change: Callable[[SweepJob], None] | None = None,
    patience: float = PATIENCE_SECONDS,
) -> SweepJob:
    """Wait until a job has ended; returns its end.

    Args:
        on_change: called at first and whenever its state changes.
        patience: seconds for which the cluster may be out of reach.

    Raises:
        UnknownJobError: the cluster has forgotten it.
        RayJobError: the cluster was out of reach for too long; the job may go on.
    """
    state, answered = None, time.monotonic()
    while True:
        try:
            job = job_status(cluster, job_id)
            answered = time.monotonic()
        except UnknownJobError:
            raise
        except RayJobError:
            if time.monotonic() - answered > patience:
                raise
        else:
            if on_change and job.state != state:
                on_change(job)
            state = job.state
            if job.is_over:
                return job
        time.sleep(LOOK_SECONDS)


def _sweep_job(details: Any) -> SweepJob:
    metadata = dict(details.metadata or {})
    return SweepJob(
        job_id=str(details.submission_id),
        space=metadata.get("space", "?"),
        sweep=metadata.get("sweep", "?"),
        storage=metadata.get("storage", "?"),
        state=STATES[str(getattr(details.status, "value", details.status))],
        message=details.message or "",
        started=details.start_time / 1000 if details.start_time else None,
        ended=details.end_time / 1000 if details.end_time else None,
        exit_code=details.driver_exit_code,
        entrypoint=details.entrypoint,
        metadata=metadata,
    )


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0] or "no reason given"


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
