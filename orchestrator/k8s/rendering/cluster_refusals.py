"""What KubeRay refuses in the Ray cluster of a RayJob, though the API server accepts it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.k8s.names import label_problems

AUTH_NEEDS = (2, 52)
PRIORITY_NEEDS = (2, 56)
"""The first versions of Ray that have it."""
STARTED_WITH = ("num-cpus", "num-gpus", "memory", "resources")
"""Parameters of `ray start` that say what the field `resources` of a group says too."""
OFF_BY_DEFAULT = {
    "networkPolicy": "RayClusterNetworkPolicy",
    "tlsOptions": "RayClusterMTLS",
    "historyServerOptions": "RayClusterHistoryServer",
}
"""Fields that the operator refuses unless this feature of it is switched on."""
AUTOSCALER_VERSION = "RAY_enable_autoscaler_v2"
AUTOSCALER_COMMAND = "KUBERAY_GEN_AUTOSCALER_START_CMD"
OPERATORS_OWN = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")
"""Variables that the operator sets, but leaves alone where a pod has them: with them a cluster is open or closed."""


def cluster_refusals(
    cluster: Mapping[str, Any], annotations: Mapping[str, str], *, sidecar: bool = False
) -> Iterator[str]:
    """Problems of a `rayClusterSpec`.

    Args:
        annotations: of the RayJob, which its cluster inherits.
        sidecar: whether the submitter runs in the head's pod.
    """
    head = cluster.get("headGroupSpec") or {}
    groups = cluster.get("workerGroupSpecs") or []
    yield from _group("the head group", head)
    for group in groups:
        yield from _group(f"worker group {group.get('groupName')!r}", group)
        yield from _replicas(group, autoscaling=bool(cluster.get("enableInTreeAutoscaling")))
        yield from _only_with_autoscaler(cluster, group)
    yield from _authentication(cluster)
    yield from _fault_tolerance(cluster, annotations)
    yield from _autoscaling(cluster)
    for field, feature in OFF_BY_DEFAULT.items():
        if cluster.get(field) is not None:
            yield f"rayClusterSpec.{field} needs the feature {feature} of the operator, which is off: leave it out"
    if (cluster.get("upgradeStrategy") or {}).get("type"):
        yield "rayClusterSpec.upgradeStrategy cannot be set in a RayJob: leave it out"
    restart = _pod(head).get("restartPolicy")
    if sidecar and restart not in (None, "", "Never"):
        yield f"restartPolicy {restart!r} of the head: SidecarMode takes Never"


def _group(name: str, group: Mapping[str, Any]) -> Iterator[str]:
    if not _containers(group):
        yield f"{name} has no container"
    parameters = group.get("rayStartParams") or {}
    twice = [key for key in STARTED_WITH if parameters.get(key)]
    if twice and group.get("resources"):
        yield f"{name} has resources both in rayStartParams ({', '.join(twice)}) and in `resources`: use one"
    if "labels" in parameters:
        yield f"{name} has labels in rayStartParams: put them into its field `labels`"
    yield from label_problems(group.get("labels") or {}, f"labels of {name}")
    template = group.get("template") or {}
    yield from label_problems((template.get("metadata") or {}).get("labels") or {}, f"pod labels of {name}")
    own = sorted(OPERATORS_OWN & _variables(group).keys())
    if own:
        yield f"{name} sets {' and '.join(own)} in the place of KubeRay: leave it out, authOptions decides"


def _replicas(group: Mapping[str, Any], *, autoscaling: bool) -> Iterator[str]:
    name = f"worker group {group.get('groupName')!r}"
    least, most, wanted = (group.get(field) for field in ("minReplicas", "maxReplicas", "replicas"))
    if (least is None or most is None) and not autoscaling:
        yield f"{name} must have minReplicas and maxReplicas, where there is no autoscaling"
    for field in ("minReplicas", "maxReplicas"):
        if (group.get(field) or 0) < 0:
            yield f"{name}: {field} {group[field]} must be at least 0"
    if least is not None and most is not None:
        if least > most:
            yield f"{name}: minReplicas {least} is more than maxReplicas {most}"
        elif wanted is not None and not least <= wanted <= most:
            yield f"{name}: replicas {wanted} is not from minReplicas {least} to maxReplicas {most}: KubeRay clips it"
    if group.get("suspend"):
        yield f"{name} is suspended: no worker would ever start. Leave `suspend` out"


def _only_with_autoscaler(cluster: Mapping[str, Any], group: Mapping[str, Any]) -> Iterator[str]:
    name = f"worker group {group.get('groupName')!r}"
    idle, priority = group.get("idleTimeoutSeconds"), group.get("priority") or 0
    version = (cluster.get("autoscalerOptions") or {}).get("version")
    second = version == "v2" or _variables(cluster.get("headGroupSpec") or {}).get(AUTOSCALER_VERSION) in ("1", "true")
    if idle is not None and idle < 0:
        yield f"{name}: idleTimeoutSeconds {idle} must be at least 0"
    for field, value in (("idleTimeoutSeconds", idle is not None), ("priority", priority != 0)):
        if value and not second:
            yield f"{name}: {field} is for version 2 of the autoscaler: leave it out"
    if priority and (_version(cluster) or (0,)) < PRIORITY_NEEDS:
        yield f"{name}: priority needs Ray {'.'.join(map(str, PRIORITY_NEEDS))} or newer in rayVersion"


def _authentication(cluster: Mapping[str, Any]) -> Iterator[str]:
    options = cluster.get("authOptions") or {}
    if options.get("mode") != "token":
        yield "authOptions: {mode: token} is missing: left out means that everyone who reaches the head runs code on it"
        return
    if options.get("enableK8sTokenAuth"):
        yield "authOptions.enableK8sTokenAuth is not for RayJobs: leave it out"
    needed, given = ".".join(map(str, AUTH_NEEDS)), cluster.get("rayVersion")
    version = _version(cluster)
    if not given:
        yield f"rayVersion is missing: authentication by token needs it, and Ray {needed} or newer"
    elif version is None:
        yield f"rayVersion {given!r} is no version: write for example 2.60.0, as in the image"
    elif version < AUTH_NEEDS:
        yield f"rayVersion {given}: authentication by token needs Ray {needed} or newer"


def _fault_tolerance(cluster: Mapping[str, Any], annotations: Mapping[str, str]) -> Iterator[str]:
    head = cluster.get("headGroupSpec") or {}
    variables = _variables(head)
    if cluster.get("gcsFaultToleranceOptions") is not None or annotations.get("ray.io/ft-enabled"):
        yield (
            "fault tolerance of Ray's head does not resume training, and needs a server of its own: leave "
            "gcsFaultToleranceOptions and the annotation ray.io/ft-enabled out"
        )
    elif "RAY_REDIS_ADDRESS" in variables:
        yield "RAY_REDIS_ADDRESS in the head's environment switches on fault tolerance: leave it out"
    if "REDIS_USERNAME" in variables or (head.get("rayStartParams") or {}).get("redis-username"):
        yield "a user of Redis in the head's environment or rayStartParams: leave it out"


def _autoscaling(cluster: Mapping[str, Any]) -> Iterator[str]:
    options = cluster.get("autoscalerOptions") or {}
    head = cluster.get("headGroupSpec") or {}
    variable = _variables(head).get(AUTOSCALER_VERSION)
    if not cluster.get("enableInTreeAutoscaling"):
        if variable in ("1", "true"):
            yield f"{AUTOSCALER_VERSION}={variable} without enableInTreeAutoscaling: leave it out"
    else:
        if options.get("version") and variable is not None:
            yield f"autoscalerOptions.version and {AUTOSCALER_VERSION} are both set: leave the variable out"
        if options.get("version") == "v2":
            for group in (head, *(cluster.get("workerGroupSpecs") or [])):
                if _pod(group).get("restartPolicy") not in (None, "", "Never"):
                    yield f"restartPolicy {_pod(group)['restartPolicy']!r}: version 2 of the autoscaler takes Never"
    if (options.get("idleTimeoutSeconds") or 0) < 0:
        yield f"autoscalerOptions.idleTimeoutSeconds {options['idleTimeoutSeconds']}: must be at least 0"
    if any(one.get("name") == AUTOSCALER_COMMAND for one in options.get("env") or []):
        yield f"autoscalerOptions.env sets {AUTOSCALER_COMMAND} in the place of KubeRay: leave it out"


def _version(cluster: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The numbers of rayVersion; None where it is none."""
    numbers = re.match(r"v?([0-9]+(\.[0-9]+)+)", str(cluster.get("rayVersion") or ""))
    return tuple(map(int, numbers[1].split("."))) if numbers else None


def _pod(group: Mapping[str, Any]) -> Mapping[str, Any]:
    spec: Mapping[str, Any] = (group.get("template") or {}).get("spec") or {}
    return spec


def _containers(group: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(_pod(group).get("containers") or [])


def _variables(group: Mapping[str, Any]) -> dict[str, str | None]:
    """The environment of the container that Ray runs in; None for values that come from elsewhere."""
    return {one["name"]: one.get("value") for one in (_containers(group) or [{}])[0].get("env") or []}
