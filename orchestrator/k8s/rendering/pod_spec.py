"""Containers and pods that a careful administrator lets in: no rights, fixed resources, the level "restricted"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.k8s.profile import ClusterProfile
from orchestrator.k8s.rendering.mounts import Volumes

USER = 1000
"""Of all our containers; the image has it."""


def fixed(resources: dict[str, str]) -> dict[str, dict[str, str]]:
    """Requests that are limits too: what a pod was given, nobody takes away, and Ray counts with it."""
    return {"requests": dict(resources), "limits": dict(resources)}


def from_secret(name: str, secret: str, key: str) -> dict[str, Any]:
    """A variable whose value is in a secret."""
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def container(
    profile: ClusterProfile,
    name: str,
    resources: dict[str, dict[str, str]],
    volumes: Volumes,
    *,
    environment: dict[str, str],
    secrets: Sequence[dict[str, Any]] = (),
    ports: dict[str, int] | None = None,
    from_results: bool = True,
) -> dict[str, Any]:
    """A container; with `from_results` it has the keys of the object store that holds the sweeps."""
    secret = profile.results.secret if from_results else None
    optional = {
        "ports": [
            {"name": label, "containerPort": number, "protocol": "TCP"} for label, number in (ports or {}).items()
        ],
        "envFrom": [{"secretRef": {"name": secret}}] if secret else [],
    }
    return {
        "name": name,
        "image": profile.image,
        "imagePullPolicy": "IfNotPresent",
        **{field: value for field, value in optional.items() if value},
        # The kubelet reads $(NAME) as the value of a variable, and $$ as $.
        "env": [*({"name": key, "value": value.replace("$", "$$")} for key, value in environment.items()), *secrets],
        "resources": {kind: dict(amounts) for kind, amounts in resources.items()},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [dict(mount) for mount in volumes.mounts],
    }


def pod_spec(
    profile: ClusterProfile,
    only: dict[str, Any],
    volumes: Volumes,
    scheduling: dict[str, Any],
    *,
    restart: str | None = None,
) -> dict[str, Any]:
    """A pod of one container that holds the level "restricted" of Pod Security, but for volumes of the host."""
    optional = {
        "restartPolicy": restart,
        "priorityClassName": profile.priority_class,
        "imagePullSecrets": [{"name": name} for name in profile.image_pull_secrets],
    }
    return {
        "serviceAccountName": profile.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # or every service of the namespace puts variables into the environment
        **{field: value for field, value in optional.items() if value},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",  # or every start walks over all files of the claims
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **scheduling,
        "containers": [only],
        "volumes": [dict(volume) for volume in volumes.volumes],
    }
