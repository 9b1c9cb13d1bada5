"""What the API server accepts in a RayJob, but KubeRay's operator then refuses, or carries out otherwise than meant.

Checked before anything is submitted, since such a RayJob fails late, or holds GPUs and never submits. It is a check of
its own: it knows nothing of how we render. It holds for KubeRay 1.7 with its features as they are by default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from orchestrator.k8s.names import DNS_1035, QUEUE, label_problems, secrets_in
from orchestrator.k8s.rendering.cluster_refusals import cluster_refusals
from orchestrator.k8s.rendering.deletion_refusals import deletion_refusals
from orchestrator.k8s.rendering.entrypoint import command_problem

MOST_NAME_CHARACTERS = 47
"""KubeRay adds 6 for the RayCluster, and its pods' names and labels hold 63."""
SUBMISSION_MODES = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
MOST_WORKER_GROUPS = 7
"""With Kueue, which counts the head as an eighth."""


def refusals(rayjob: Mapping[str, Any]) -> list[str]:
    """Every reason for which a RayJob that the API server accepts would not run; each says what to change."""
    spec = rayjob.get("spec") or {}
    return [
        *_metadata(rayjob.get("metadata") or {}),
        *_submission(spec),
        *_deadlines(spec),
        *_runtime_environment(spec.get("runtimeEnvYAML") or ""),
        *_submitter(spec),
        *deletion_refusals(spec),
        *_cluster(spec, rayjob.get("metadata") or {}),
        *_kueue(spec, rayjob.get("metadata") or {}),
    ]


def _metadata(metadata: Mapping[str, Any]) -> Iterator[str]:
    name = metadata.get("name") or ""
    if metadata.get("generateName"):
        yield (
            "metadata.generateName: apply needs a name that it finds again. Give metadata.name, with the hash of the "
            "spec in it"
        )
        return
    if len(name) > MOST_NAME_CHARACTERS:
        yield f"metadata.name {name!r} has {len(name)} characters: KubeRay takes at most {MOST_NAME_CHARACTERS}"
    if not DNS_1035.fullmatch(name):
        yield (
            f"metadata.name {name!r}: it must hold only a-z, 0-9 and '-', start with a letter and not end with '-' "
            "(DNS-1035)"
        )
    yield from label_problems(metadata.get("labels") or {}, "metadata.labels")


def _submission(spec: Mapping[str, Any]) -> Iterator[str]:
    mode = spec.get("submissionMode", "K8sJobMode")
    if mode not in SUBMISSION_MODES:
        yield (
            f"submissionMode {mode!r}: KubeRay knows {', '.join(SUBMISSION_MODES)}, and with any other its pods wait "
            "and nothing is submitted"
        )
    if mode == "InteractiveMode" and (spec.get("backoffLimit") or 0) > 0:
        yield "backoffLimit cannot go with InteractiveMode: leave it out"
    if mode == "SidecarMode":
        for field in ("submitterPodTemplate", "submitterConfig"):
            if spec.get(field) is not None:
                yield f"{field} cannot go with SidecarMode: use K8sJobMode"
    if mode != "InteractiveMode" and (problem := command_problem(spec.get("entrypoint") or "")):
        command = spec.get("entrypoint")
        yield f"entrypoint {command!r} must be one simple command, as KubeRay pastes it into bash: {problem}"


def _deadlines(spec: Mapping[str, Any]) -> Iterator[str]:
    for field in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if spec.get(field) is not None and spec[field] <= 0:
            yield f"{field} {spec[field]}: must be at least 1"
    if (spec.get("backoffLimit") or 0) < 0:
        yield f"backoffLimit {spec['backoffLimit']}: must be at least 0"


def _runtime_environment(text: str) -> Iterator[str]:
    try:
        content = yaml.safe_load(text) if text else {}
    except yaml.YAMLError as error:
        yield f"runtimeEnvYAML is not valid YAML: {error}"
        return
    if not isinstance(content, dict):
        yield f"runtimeEnvYAML must be a mapping, not {type(content).__name__}"
        return
    others = sorted(str(key) for key in content if key != "env_vars")
    if others:
        yield f"runtimeEnvYAML holds {', '.join(others)}: only env_vars; packages and files belong into the image"
    variables = content.get("env_vars") or {}
    if not isinstance(variables, dict) or not all(isinstance(value, str) for value in variables.values()):
        yield "runtimeEnvYAML: env_vars must be a mapping of names to texts (quote numbers)"
    elif secrets := secrets_in(map(str, variables)):
        yield f"runtimeEnvYAML holds {', '.join(secrets)}, which all who may read the job would see: use secretKeyRef"
    if "$" in text or "`" in text:
        yield "runtimeEnvYAML holds $ or `: KubeRay puts it into double quotes of bash, which replaces them"


def _submitter(spec: Mapping[str, Any]) -> Iterator[str]:
    if ((spec.get("submitterConfig") or {}).get("backoffLimit") or 0) < 0:
        yield f"submitterConfig.backoffLimit {spec['submitterConfig']['backoffLimit']}: must be at least 0"
    template = spec.get("submitterPodTemplate")
    if template is None:
        return
    pod = template.get("spec") or {}
    containers = pod.get("containers") or []
    if not containers:
        yield "submitterPodTemplate has no container"
    elif containers[0].get("command"):
        yield "submitterPodTemplate has a command: KubeRay then does not submit the entry point. Leave it out"
    if pod.get("restartPolicy") not in ("Never", "OnFailure"):
        yield f"submitterPodTemplate.restartPolicy {pod.get('restartPolicy')!r}: a Job takes Never or OnFailure"
    yield from label_problems((template.get("metadata") or {}).get("labels") or {}, "submitterPodTemplate labels")


def _cluster(spec: Mapping[str, Any], metadata: Mapping[str, Any]) -> Iterator[str]:
    cluster, selector = spec.get("rayClusterSpec"), spec.get("clusterSelector") or {}
    if cluster is None and not selector:
        yield "give rayClusterSpec: without it (or clusterSelector) there is nothing to run on"
    if selector:
        if not selector.get("ray.io/cluster"):
            yield "clusterSelector must name a cluster, under ray.io/cluster"
        if spec.get("submissionMode") == "SidecarMode":
            yield "clusterSelector cannot go with SidecarMode: use K8sJobMode"
        if (spec.get("backoffLimit") or 0) > 0:
            yield "backoffLimit cannot go with clusterSelector: leave it out"
        if spec.get("suspend"):
            yield "suspend cannot go with clusterSelector: leave it out"
    if spec.get("suspend") and not spec.get("shutdownAfterJobFinishes"):
        yield "suspend needs shutdownAfterJobFinishes: true"
    if cluster is not None:
        sidecar = spec.get("submissionMode") == "SidecarMode"
        yield from cluster_refusals(cluster, metadata.get("annotations") or {}, sidecar=sidecar)


def _kueue(spec: Mapping[str, Any], metadata: Mapping[str, Any]) -> Iterator[str]:
    """What Kueue refuses of a RayJob in one of its queues."""
    if QUEUE not in (metadata.get("labels") or {}):
        return
    if "suspend" in spec:
        yield "suspend is Kueue's to set, and whoever applies it too is in conflict with Kueue: leave it out"
    if not spec.get("shutdownAfterJobFinishes"):
        yield "Kueue needs shutdownAfterJobFinishes: true"
    if spec.get("clusterSelector"):
        yield "Kueue cannot admit a RayJob with clusterSelector: give rayClusterSpec"
    cluster = spec.get("rayClusterSpec") or {}
    if cluster.get("enableInTreeAutoscaling"):
        yield "Kueue admits a fixed number of pods: set enableInTreeAutoscaling to false"
    groups = len(cluster.get("workerGroupSpecs") or [])
    if groups > MOST_WORKER_GROUPS:
        yield f"Kueue takes at most {MOST_WORKER_GROUPS} worker groups, not {groups}"
