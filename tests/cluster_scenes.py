"""Scenes of a sweep on a cluster: the objects that KubeRay, the scheduler, kubelets and Kueue would leave there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.k8s.names import INSTANCE, NAME, PRODUCT, QUEUE, sweep_labels
from orchestrator.k8s.watching.observed import Event, Picture
from orchestrator.k8s.watching.picture import events_of

SWEEP, JOB, CLUSTER = "digits-grid", "digits-grid-0a1b2c3d", "digits-grid-0a1b2c3d-x7k2p"
HEAD, WORKERS, SUBMITTER = (
    f"{CLUSTER}-head-5gt8z",
    (f"{CLUSTER}-workers-worker-aa1", f"{CLUSTER}-workers-worker-bb2"),
    f"{JOB}-q9m4w",
)
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
Item = dict[str, Any]


def stamp(seconds_ago: float, now: datetime = NOW) -> str:
    """A time in the past as Kubernetes writes it."""
    return (now - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


def rayjob(
    deployment: str = "Initializing", job: str = "", *, queue: str = "", age: float = 300, **status: Any
) -> Item:
    """The RayJob with a status as the operator writes it; `status` adds to it or replaces."""
    labels = sweep_labels(SWEEP) | ({QUEUE: queue} if queue else {})
    full: Item = {"jobDeploymentStatus": deployment, "jobStatus": job, "failed": 0, "succeeded": 0}
    if deployment not in ("", "ValidationFailed"):
        full |= {"rayClusterName": CLUSTER, "jobId": f"{JOB}-m2c4d", "startTime": stamp(age)}
    claim = {"name": "results", "persistentVolumeClaim": {"claimName": "results"}}
    template = {"spec": {"containers": [{"name": "ray", "image": IMAGE}], "volumes": [claim]}}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": JOB, "labels": labels, "uid": "uid-of-job", "creationTimestamp": stamp(age)},
        "spec": {
            "backoffLimit": 2,
            "activeDeadlineSeconds": 604800,
            "preRunningDeadlineSeconds": 7200,
            "suspend": False,
            "rayClusterSpec": {
                "headGroupSpec": {"rayStartParams": {}, "template": template},
                "workerGroupSpecs": [
                    {"groupName": "workers", "replicas": 2, "rayStartParams": {}, "template": template}
                ],
            },
        },
        "status": {key: value for key, value in (full | status).items() if value is not None},
    }


IMAGE = "registry.example.org/bo-sweep@sha256:" + 64 * "0"


def pod(name: str = HEAD, phase: str = "Running", *, age: float = 200, cluster: str = CLUSTER, **status: Any) -> Item:
    """A pod of the head, of a worker or of the submitter, by its name; ready where it runs and nothing else is said."""
    role = "head" if "-head-" in name else "worker" if "-worker-" in name else "submitter"
    labels = {NAME: PRODUCT, INSTANCE: SWEEP}
    labels |= (
        {"job-name": JOB, "batch.kubernetes.io/job-name": JOB}
        if role == "submitter"
        else {"ray.io/cluster": cluster, "ray.io/node-type": role}
    )
    container = {"submitter": "ray-job-submitter"}.get(role, f"ray-{role}")
    conditions = [{"type": "PodScheduled", "status": "True"}]
    conditions += [{"type": "Ready", "status": "True" if phase == "Running" else "False"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels, "creationTimestamp": stamp(age)},
        "spec": {
            "nodeName": "node-1",
            "containers": [
                {
                    "name": container,
                    "image": IMAGE,
                    "resources": {"limits": {"memory": "16Gi"}},
                    "env": [{"name": "RAY_JOB_SUBMISSION_ID", "value": f"{JOB}-m2c4d"}] if role == "submitter" else [],
                }
            ],
        },
        "status": {"phase": phase, "conditions": conditions, "containerStatuses": []} | status,
    }


def unscheduled(name: str, message: str) -> Item:
    """A pod that the scheduler has found no node for."""
    refused = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return pod(name, "Pending", conditions=[refused])


def container(name: str = "ray-worker", *, last: Item | None = None, image: str = IMAGE, **state: Item) -> list[Item]:
    """One container's status, its state and its last state."""
    return [{"name": name, "image": image, "state": state, "lastState": {"terminated": last} if last else {}}]


def event(reason: str, message: str, about: str = HEAD, kind: str = "Pod", *, ago: float = 60, count: int = 1) -> Item:
    """An event of the old API, as kubelets and the scheduler write them."""
    normal = (
        reason in ("Scheduled", "Pulling", "Pulled", "Started", "Created", "TriggeredScaleUp") or "Created" in reason
    )
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{about}.{reason}.{int(ago)}", "creationTimestamp": stamp(ago)},
        "involvedObject": {"kind": kind, "name": about},
        "reason": reason,
        "message": message,
        "type": "Normal" if normal else "Warning",
        "count": count,
        "firstTimestamp": stamp(ago),
        "lastTimestamp": stamp(ago),
    }


def picture(job: Item | None, *pods: Item, events: tuple[Item, ...] = (), **more: Any) -> Picture:
    """What one look would show of them, at NOW."""
    submitters = tuple(pod for pod in pods if "job-name" in pod["metadata"]["labels"])
    told: tuple[Event, ...] = events_of(events, JOB, ["results"])
    of_ray = tuple(pod for pod in pods if pod not in submitters)
    return Picture(SWEEP, JOB, "default", NOW, job, pods=of_ray, submitters=submitters, events=told, **more)
