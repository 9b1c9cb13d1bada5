"""What one look at a cluster shows of a launch, as values: the job, its Ray cluster, pods, events, claims, queue."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from orchestrator.k8s.names import RAY_CLUSTER, RAY_NODE_TYPE

Manifest = dict[str, Any]
ENDED = ("Complete", "Failed", "ValidationFailed")
"""Values of status.jobDeploymentStatus after which a RayJob does nothing any more."""


@dataclass(frozen=True)
class Event:
    """One event, of whichever of the two APIs: `last` is when it was seen last."""

    kind: str
    name: str
    reason: str
    message: str
    last: datetime
    warning: bool = True
    count: int = 1


@dataclass(frozen=True)
class Picture:
    """What a cluster shows of a RayJob.

    Attributes:
        now: when it was taken, by our clock.
        job: the RayJob; None where it is gone and only events tell of it.
        cluster: the RayCluster of the present attempt.
        pods: of head and workers, of the present attempt and of earlier ones that are still there.
        submitters: pods of the submitter's Job.
        submitter: that Job.
        events: of all these objects, of those that are gone too (a cluster keeps events for an hour), oldest first.
        claims: volume claims that the pods use.
        workload: what Kueue makes of the job; None without Kueue.
        unread: what we may not read, by kind.
    """

    sweep: str
    name: str
    namespace: str
    now: datetime
    job: Manifest | None = None
    cluster: Manifest | None = None
    pods: tuple[Manifest, ...] = ()
    submitter: Manifest | None = None
    submitters: tuple[Manifest, ...] = ()
    events: tuple[Event, ...] = ()
    claims: tuple[Manifest, ...] = ()
    workload: Manifest | None = None
    unread: tuple[str, ...] = field(default=())

    @property
    def status(self) -> Manifest:
        """Status of the RayJob, empty where there is none."""
        return (self.job or {}).get("status") or {}

    @property
    def spec(self) -> Manifest:
        return (self.job or {}).get("spec") or {}

    @property
    def deployment(self) -> str:
        """status.jobDeploymentStatus: "" is new."""
        return str(self.status.get("jobDeploymentStatus") or "")

    @property
    def has_ended(self) -> bool:
        """Whether nothing will change by itself any more."""
        return self.job is None or self.deployment in ENDED

    @property
    def attempt(self) -> int:
        """Number of the present (or last) attempt, from 1."""
        failed = int(self.status.get("failed") or 0)
        return max(1, failed if self.deployment in ENDED and self.deployment != "Complete" else failed + 1)

    @property
    def attempts(self) -> int:
        """How many there may be."""
        return int(self.spec.get("backoffLimit") or 0) + 1

    def of_type(self, node_type: str) -> list[Manifest]:
        """Pods of the present attempt's cluster that are "head" or "worker"."""
        current = self.status.get("rayClusterName")
        return [
            pod
            for pod in self.pods
            if labels_of(pod).get(RAY_NODE_TYPE) == node_type
            and (not current or labels_of(pod).get(RAY_CLUSTER) == current)
        ]

    @property
    def wanted_workers(self) -> int:
        groups = (self.spec.get("rayClusterSpec") or {}).get("workerGroupSpecs") or []
        return sum(int(group.get("replicas") or 0) for group in groups)


def time_of(stamp: str | None) -> datetime | None:
    """A time as Kubernetes writes it (RFC 3339, with or without fractions), or None."""
    return datetime.fromisoformat(stamp) if stamp else None


def labels_of(thing: Manifest) -> dict[str, str]:
    return thing["metadata"].get("labels") or {}


def deployment_of(job: Manifest) -> str:
    """status.jobDeploymentStatus of a RayJob; "" is new."""
    return str((job.get("status") or {}).get("jobDeploymentStatus") or "")
