"""The RayJob of a sweep: a Ray cluster of its own, the launch as its entry point, and when all of it goes away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.k8s.profile import ClusterProfile
from orchestrator.k8s.rendering.mounts import Mounts
from orchestrator.k8s.rendering.pods import head_template, submitter_template, worker_template
from orchestrator.k8s.values import seconds_of
from search_spaces.dataset_choice import DatasetChoice

API_VERSION = "ray.io/v1"
GROUP = "workers"
SUBMITTER_RETRIES = 3
"""Of the submitter's pod; it does not submit twice."""
HEAD_OBJECT_STORE_BYTES = 256 * 2**20
RUNTIME_ENVIRONMENT = 'env_vars:\n  PYTHONUNBUFFERED: "1"\n'
"""Only variables, and no secrets: it is readable in the RayJob. Packages are those of the image."""


def rayjob_spec(
    profile: ClusterProfile,
    sweep: str,
    dataset: DatasetChoice,
    *,
    entry_point: str,
    config: str,
    mounts: Mounts,
    environment: Mapping[str, str],
) -> dict[str, Any]:
    """The spec of a RayJob that runs `entry_point`, with more `environment`, where the ConfigMap `config` is mounted.

    A failed attempt is followed by a new cluster, up to `profile.retries` times: the entry point goes on from storage.
    `suspend` is left out, since it is Kueue's; `deletionStrategy` too, which Kueue does not accept.
    """
    return {
        "entrypoint": entry_point,
        "runtimeEnvYAML": RUNTIME_ENVIRONMENT,
        "submissionMode": "K8sJobMode",
        "backoffLimit": profile.retries,
        "activeDeadlineSeconds": seconds_of(profile.active_deadline),
        "preRunningDeadlineSeconds": seconds_of(profile.pre_running_deadline),
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": seconds_of(profile.cleanup_after),
        "submitterConfig": {"backoffLimit": SUBMITTER_RETRIES},
        "submitterPodTemplate": submitter_template(profile, sweep, mounts),
        "rayClusterSpec": _cluster(profile, sweep, dataset, config, mounts, environment),
    }


def _cluster(
    profile: ClusterProfile,
    sweep: str,
    dataset: DatasetChoice,
    config: str,
    mounts: Mounts,
    environment: Mapping[str, str],
) -> dict[str, Any]:
    """One head without work, and as many workers as there are nodes: no autoscaling, the grid is what it is."""
    workers = profile.workers
    return {
        "rayVersion": profile.ray_version,
        "authOptions": {"mode": "token"},  # left out means off
        "enableInTreeAutoscaling": False,
        "headGroupSpec": {
            "rayStartParams": {
                "dashboard-host": "0.0.0.0",
                "num-cpus": "0",
                "num-gpus": "0",
                "object-store-memory": f"{HEAD_OBJECT_STORE_BYTES}",
            },
            "template": head_template(profile, sweep, dataset, config, mounts, environment),
        },
        "workerGroupSpecs": [
            {
                "groupName": GROUP,
                "replicas": workers.nodes,
                "minReplicas": workers.nodes,
                "maxReplicas": workers.nodes,
                "rayStartParams": {"object-store-memory": f"{round(workers.object_store_gb * 1e9)}"},
                "template": worker_template(profile, sweep, dataset, config, mounts),
            }
        ],
    }
