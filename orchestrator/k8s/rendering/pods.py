"""The pods of a sweep: Ray's head, its workers, the submitter, and the reader of a results claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.k8s.names import GPU_RESOURCE, pod_labels
from orchestrator.k8s.profile import ClusterProfile
from orchestrator.k8s.rendering.mounts import (
    Mounts,
    Volumes,
    config_volume,
    data_volumes,
    home_volume,
    ray_volumes,
    results_volume,
)
from orchestrator.k8s.rendering.pod_spec import container, fixed, from_secret, pod_spec
from orchestrator.k8s.rendering.scheduling import STAY, head_scheduling, worker_scheduling
from orchestrator.ray_environment import JOB_STOP_SECONDS, NODE_ENVIRONMENT
from search_spaces.dataset_choice import DatasetChoice

HEAD_PORTS = {"gcs-server": 6379, "dashboard": 8265, "client": 10001, "metrics": 8080}
"""By the names that KubeRay looks for."""
METRICS_PORT = {"metrics": HEAD_PORTS["metrics"]}
HEAD_SHARED_MEMORY = "1Gi"
SAVE_SECONDS = 120
"""That head and workers have when they are deleted: the launch saves what runs."""
SUBMITTER_RESOURCES = {
    "requests": {"cpu": "200m", "memory": "512Mi", "ephemeral-storage": "1Gi"},
    "limits": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi"},
}
READER_RESOURCES = {
    "requests": {"cpu": "100m", "memory": "256Mi", "ephemeral-storage": "256Mi"},
    "limits": {"cpu": "1", "memory": "512Mi", "ephemeral-storage": "256Mi"},
}


def head_template(
    profile: ClusterProfile,
    sweep: str,
    dataset: DatasetChoice,
    config: str,
    mounts: Mounts,
    environment: Mapping[str, str],
) -> dict[str, Any]:
    """The pod template of Ray's head, on which the launch runs.

    Args:
        config: the name of the ConfigMap of the launch.
        environment: of the launch, beside what all pods have.
    """
    head, wandb = profile.head, profile.wandb
    key = [from_secret("WANDB_API_KEY", wandb.secret, wandb.key)] if wandb else []
    volumes = ray_volumes(shared_memory=HEAD_SHARED_MEMORY, scratch=head.scratch)
    volumes += _files(profile, dataset, head.scratch, config, mounts)
    made = container(
        profile,
        "ray-head",
        fixed({"cpu": f"{head.cpus}", "memory": head.memory, "ephemeral-storage": head.scratch}),
        volumes,
        environment={"RAY_JOB_STOP_WAIT_TIME_S": f"{JOB_STOP_SECONDS}", **_environment(profile, mounts), **environment},
        secrets=key,
        ports=HEAD_PORTS,
    )
    template = _template(profile, sweep, "head", made, volumes, head_scheduling(profile), annotations=STAY)
    # Ray, as first process, would not reap what the launch leaves behind, such as W&B's service: when a job is stopped
    # it waits for that to be gone, at most JOB_STOP_SECONDS. The first process of a shared namespace reaps.
    template["spec"]["shareProcessNamespace"] = True
    return template


def worker_template(
    profile: ClusterProfile, sweep: str, dataset: DatasetChoice, config: str, mounts: Mounts
) -> dict[str, Any]:
    """The pod template of the workers, each a whole node of Ray."""
    workers = profile.workers
    held = {"cpu": f"{workers.cpus}", "memory": workers.memory, "ephemeral-storage": workers.scratch}
    gpus = {GPU_RESOURCE: f"{workers.gpus}"} if workers.gpus else {}
    volumes = ray_volumes(shared_memory=workers.shared_memory, scratch=workers.scratch)
    volumes += _files(profile, dataset, workers.scratch, config, mounts)
    made = container(
        profile,
        "ray-worker",
        fixed(held | gpus),
        volumes,
        environment=_environment(profile, mounts),
        ports=METRICS_PORT,
    )
    return _template(profile, sweep, "worker", made, volumes, worker_scheduling(profile, sweep))


def submitter_template(profile: ClusterProfile, sweep: str, mounts: Mounts) -> dict[str, Any]:
    """The pod template of the Job that hands the entry point to Ray and follows its output.

    It has no command: KubeRay's own waits for the head, and does not submit twice where the pod starts again.
    """
    home = home_volume(mounts)
    environment = {"HOME": mounts.home}
    made = container(
        profile, "ray-job-submitter", SUBMITTER_RESOURCES, home, environment=environment, from_results=False
    )
    scheduling = head_scheduling(profile)
    return _template(profile, sweep, "submitter", made, home, scheduling, restart="Never", annotations=STAY)


def reader_pod_spec(profile: ClusterProfile, command: Sequence[str], mounts: Mounts) -> dict[str, Any]:
    """The spec of a pod that runs `command` where the results claim is mounted, read-only, at `mounts.results`.

    Raises:
        ValueError: results are in an object store, which is read without a pod.
    """
    if profile.results.claim is None:
        raise ValueError(f"results are at {profile.results.url}, not in a claim: read them there, with --storage")
    volumes = results_volume(profile, mounts, read_only=True) + home_volume(mounts)
    made = container(
        profile, "reader", READER_RESOURCES, volumes, environment={"HOME": mounts.home}, from_results=False
    )
    made["command"] = list(command)
    return pod_spec(profile, made, volumes, head_scheduling(profile), restart="Never")


def _environment(profile: ClusterProfile, mounts: Mounts) -> dict[str, str]:
    """Of head and workers; what a profile says of its own goes before."""
    endpoint = {"AWS_ENDPOINT_URL": profile.results.endpoint} if profile.results.endpoint else {}
    return {"HOME": mounts.home, **NODE_ENVIRONMENT, **endpoint, **profile.env}


def _files(profile: ClusterProfile, dataset: DatasetChoice, scratch: str, config: str, mounts: Mounts) -> Volumes:
    """What head and workers both read and write."""
    return (
        config_volume(config, mounts)
        + results_volume(profile, mounts)
        + data_volumes(profile, dataset, scratch, mounts)
        + home_volume(mounts)
    )


def _template(
    profile: ClusterProfile,
    sweep: str,
    component: str,
    only: dict[str, Any],
    volumes: Volumes,
    scheduling: dict[str, Any],
    *,
    restart: str | None = None,
    annotations: dict[str, str] | None = None,
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"labels": {**profile.labels, **pod_labels(sweep, component)}}
    if annotations:
        metadata["annotations"] = dict(annotations)
    spec = pod_spec(profile, only, volumes, scheduling, restart=restart)
    if component in ("head", "worker"):
        spec["terminationGracePeriodSeconds"] = SAVE_SECONDS
    return {"metadata": metadata, "spec": spec}
