"""In which words a sweep that runs differs from one that is to be submitted."""

from __future__ import annotations

import shlex
from typing import Any

import yaml

from orchestrator.k8s.names import GPU_RESOURCE
from orchestrator.k8s.rendering.space_files import SPACE_FILE

MOST_TOLD = 8

_WORDS = {
    "image": "image",
    "replicas": "nodes",
    GPU_RESOURCE: "GPUs a node",
    "cpu": "CPUs a pod",
    "memory": "memory a pod",
    "nodeSelector": "node selector",
    "priorityClassName": "priority class",
    "activeDeadlineSeconds": "active_deadline (s)",
    "preRunningDeadlineSeconds": "pre_running_deadline (s)",
    "ttlSecondsAfterFinished": "cleanup_after (s)",
    "backoffLimit": "retries",
    "rayVersion": "Ray's version",
    "claimName": "claim",
    "tolerations": "tolerations",
    "affinity": "affinity",
    "imagePullSecrets": "pull secrets",
    "envFrom": "secrets",
}


def differences(
    running: dict[str, Any], wanted: dict[str, Any], running_config: dict[str, Any] | None, config: dict[str, Any]
) -> list[str]:
    """What differs between two RayJobs and their ConfigMaps, a few words each: "image: a, now b"."""
    told: list[str] = []
    if running_config is not None:
        changed = _changed(_space(running_config), _space(config), whole=True)
        told += [f"space: {'.'.join(path)}: {_said(before)}, now {_said(after)}" for path, before, after in changed]
    # The names hold a hash of everything, so they differ in any case.
    names = {running["metadata"]["name"], wanted["metadata"]["name"]}
    for path, before, after in _changed(running.get("spec") or {}, wanted.get("spec") or {}):
        if {before, after} <= names or path[-1] in ("minReplicas", "maxReplicas"):
            continue
        if path == ("entrypoint",):
            told += _options(before or "", after or "")
            continue
        word = next((_WORDS[step] for step in reversed(path) if step in _WORDS), ".".join(path))
        told.append(f"{word}: {_said(before)}, now {_said(after)}")
    told = list(dict.fromkeys(told))  # limits and requests say the same, head and workers mostly
    rest = len(told) - MOST_TOLD
    return told[:MOST_TOLD] + ([f"and {rest} more"] if rest > 0 else [])


def _space(config: dict[str, Any]) -> dict[str, Any]:
    try:
        found = yaml.safe_load((config.get("data") or {}).get(SPACE_FILE) or "")
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _changed(
    before: Any, after: Any, path: tuple[str, ...] = (), *, whole: bool = False
) -> list[tuple[tuple[str, ...], Any, Any]]:
    """Leaves that differ: their path, the old and the new value.

    Unless both sides are `whole`, most of what only `before` has is a default that the cluster has filled in.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        gone = [key for key in before if key not in after and (whole or key in _WORDS)]
        keys = [*after, *gone]
        return [each for k in keys for each in _changed(before.get(k), after.get(k), (*path, k), whole=whole)]
    plain = all(not isinstance(item, (dict, list)) for item in after) if isinstance(after, list) else True
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after) and not plain:
        pairs = enumerate(zip(before, after, strict=True))
        return [each for n, (old, new) in pairs for each in _changed(old, new, (*path, str(n)), whole=whole)]
    return [] if before == after else [(path, _hashable(before), _hashable(after))]


def _hashable(value: Any) -> Any:
    return yaml.safe_dump(value, default_flow_style=True).strip() if isinstance(value, (dict, list)) else value


def _options(before: str, after: str) -> list[str]:
    old, new = _parsed(before), _parsed(after)
    return [
        f"{name}: {_said(old.get(name))}, now {_said(new.get(name))}"
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]


def _parsed(command: str) -> dict[str, str]:
    """Options of a command with their values; flags have "yes"."""
    try:
        parts = shlex.split(command)
    except ValueError:  # not of ours, or changed by hand
        return {"command": command}
    return {
        part: following if not following.startswith("--") else "yes"
        for part, following in zip(parts, [*parts[1:], "--"], strict=True)
        if part.startswith("--")
    }


def _said(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
