"""Looking at a launch: reads everything about it that a cluster shows, and that we may read."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from orchestrator.k8s.client.api import Api, ClusterError, ForbiddenError, NotFoundError
from orchestrator.k8s.names import COMPONENT, INSTANCE, QUEUE, RAY_NODE_TYPE, of_product, of_sweep
from orchestrator.k8s.watching.observed import ENDED, Event, Manifest, Picture, deployment_of, labels_of, time_of


def look(api: Api, sweep: str, name: str | None = None) -> Picture:
    """Read everything about a sweep's launch: the one that goes on, else the latest, or the RayJob called `name`.

    Objects that may not be read are left out and named in `unread`; only the RayJob itself must be readable.

    Raises:
        ValueError: no such sweep in the namespace; the message names those that are there.
        ClusterError: the cluster cannot be reached, or RayJobs may not be read.
    """
    job = job_of(api, sweep, name)
    return picture_of(api, sweep, job)


def job_of(api: Api, sweep: str, name: str | None = None) -> Manifest:
    """The RayJob of a sweep's launch that goes on, else of the latest, or the one called `name`. Raises as `look`."""
    jobs = [job for job in api.list("RayJob", labels=of_sweep(sweep)) if name in (None, job["metadata"]["name"])]
    if not jobs:
        raise ValueError(_no_sweep(api, sweep if name is None else f"{sweep} (RayJob {name})", sweep))
    return max(jobs, key=lambda job: (deployment_of(job) not in ENDED, job["metadata"].get("creationTimestamp") or ""))


def sweeps_in(api: Api) -> dict[str, Manifest]:
    """Of every sweep in the namespace the RayJob that goes on, else the latest; by name."""
    found: dict[str, Manifest] = {}
    jobs = api.list("RayJob", labels=of_product())
    for job in sorted(
        jobs, key=lambda job: (deployment_of(job) not in ENDED, job["metadata"].get("creationTimestamp") or "")
    ):
        found[labels_of(job).get(INSTANCE) or job["metadata"]["name"]] = job
    return dict(sorted(found.items()))


def picture_of(api: Api, sweep: str, job: Manifest, now: datetime | None = None) -> Picture:
    """Read everything about a RayJob that has just been read."""
    name = job["metadata"]["name"]
    unread: list[str] = []

    def readable(kind: str, read: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return read()
        except ForbiddenError:
            unread.append(kind)
        except NotFoundError:
            pass  # the cluster has no such kind, as Workload without Kueue
        return otherwise

    cluster = (job.get("status") or {}).get("rayClusterName")
    pods = readable("pods", lambda: api.list("Pod", labels=of_sweep(sweep)), [])
    mine = [
        pod
        for pod in pods
        if pod["metadata"]["name"].startswith(f"{name}-") and labels_of(pod).get(COMPONENT) != "reader"
    ]
    queued = QUEUE in labels_of(job)
    used = _claims_of(job)
    return Picture(
        sweep=sweep,
        name=name,
        namespace=api.namespace,
        now=now or datetime.now(UTC),
        job=job,
        cluster=readable("rayclusters", lambda: api.get("RayCluster", cluster), None) if cluster else None,
        pods=tuple(pod for pod in mine if RAY_NODE_TYPE in labels_of(pod)),
        submitter=readable("jobs", lambda: api.get("Job", name), None),
        submitters=tuple(_by_age(pod for pod in mine if RAY_NODE_TYPE not in labels_of(pod))),
        events=readable("events", lambda: events_of(api.list("Event"), name, used), ()),
        claims=tuple(
            claim
            for claim_name in used
            if (claim := readable("claims", partial(api.get, "PersistentVolumeClaim", claim_name), None)) is not None
        ),
        workload=readable("workloads", lambda: _workload(api, job), None) if queued else None,
        unread=tuple(dict.fromkeys(unread)),
    )


def brief_picture_of(api: Api, sweep: str, job: Manifest) -> Picture:
    """As `picture_of`, but of a RayJob that is complete only what it tells itself: a namespace keeps many of them."""
    if deployment_of(job) != "Complete":
        return picture_of(api, sweep, job)
    return Picture(sweep, job["metadata"]["name"], api.namespace, datetime.now(UTC), job)


def submitters_of(api: Api, name: str) -> list[Manifest]:
    """Pods that handed a RayJob's attempts to Ray, oldest first. The operator removes those of attempts that failed."""
    return _by_age(api.list("Pod", labels=f"batch.kubernetes.io/job-name={name}"))


def events_of(events: Iterable[Manifest], name: str, claims: Iterable[str] = ()) -> tuple[Event, ...]:
    """Events about a RayJob, all that KubeRay made for it (whose names begin with its own) and claims; oldest first."""
    claimed = set(claims)
    found = []
    for event in events:
        about = event.get("involvedObject") or event.get("regarding") or {}
        kind, subject = about.get("kind", ""), about.get("name", "")
        if (
            subject == name
            or subject.startswith(f"{name}-")
            or (kind == "PersistentVolumeClaim" and subject in claimed)
        ):
            series = event.get("series") or {}
            stamps = [series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime")]
            created = event["metadata"].get("creationTimestamp")
            found.append(
                Event(
                    *(kind, subject, event.get("reason") or "", event.get("message") or event.get("note") or ""),
                    last=next((time for stamp in [*stamps, created] if (time := time_of(stamp))), datetime.now(UTC)),
                    warning=event.get("type") == "Warning",
                    count=int(series.get("count") or event.get("count") or 1),
                )
            )
    return tuple(sorted(found, key=lambda event: event.last))


def _by_age(pods: Iterable[Manifest]) -> list[Manifest]:
    return sorted(pods, key=lambda pod: (pod["metadata"].get("creationTimestamp") or "", pod["metadata"]["name"]))


def _claims_of(job: Manifest) -> list[str]:
    """Volume claims that the pods of a RayJob mount."""
    spec = (job.get("spec") or {}).get("rayClusterSpec") or {}
    groups = [spec.get("headGroupSpec") or {}, *(spec.get("workerGroupSpecs") or [])]
    volumes = [
        volume for group in groups for volume in ((group.get("template") or {}).get("spec") or {}).get("volumes") or []
    ]
    names = [(volume.get("persistentVolumeClaim") or {}).get("claimName") for volume in volumes]
    return sorted({name for name in names if name})


def _workload(api: Api, job: Manifest) -> Manifest | None:
    uid = job["metadata"].get("uid")
    owned = [
        workload
        for workload in api.list("Workload")
        if any(owner.get("uid") == uid for owner in workload["metadata"].get("ownerReferences") or [])
    ]
    return owned[-1] if owned else None


def _no_sweep(api: Api, what: str, sweep: str) -> str:
    try:
        there = list(sweeps_in(api))
    except ClusterError:
        there = []
    near = difflib.get_close_matches(sweep, there, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    known = f"there are: {', '.join(there)}." if there else "there is none."
    return (
        f"no sweep {what!r} in the namespace {api.namespace!r} of {api.host}; {known}{hint} "
        "Another place: --namespace, --context; to launch one: bo-sweep launch SPACE --on k8s"
    )
