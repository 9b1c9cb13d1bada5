"""Quotas of a namespace: which of them hold for a sweep's pods, and what these ask for together."""

from __future__ import annotations

from typing import Any

from orchestrator.k8s.names import GPU_RESOURCE
from orchestrator.k8s.profile import ClusterProfile
from orchestrator.k8s.rendering.pods import SUBMITTER_RESOURCES
from orchestrator.k8s.values import amount_of

_OUTSIDE = ("Terminating", "BestEffort", "CrossNamespacePodAffinity")
"""Scopes that our pods are never in: they have requests, no deadline of their own, and look at their own namespace."""


def applies(quota: dict[str, Any], priority_class: str | None) -> bool:
    """Whether a quota counts the pods of a sweep, by its scopes."""
    spec = quota.get("spec") or {}
    selected = (spec.get("scopeSelector") or {}).get("matchExpressions") or []
    scopes = [{"scopeName": name, "operator": "Exists"} for name in spec.get("scopes") or []]
    return all(_in_scope(each, priority_class) for each in [*scopes, *selected])


def _in_scope(wanted: dict[str, Any], priority_class: str | None) -> bool:
    if wanted.get("scopeName") != "PriorityClass":
        return wanted.get("scopeName") not in _OUTSIDE
    operator: str = wanted.get("operator") or ""
    values: list[str] = wanted.get("values") or []
    if operator in ("In", "NotIn"):
        return (priority_class in values) == (operator == "In")
    return (priority_class is not None) == (operator == "Exists")


def needs_of(profile: ClusterProfile) -> dict[str, float]:
    """What all pods of a sweep ask for, by the names that quotas use; cores, bytes, or numbers of things."""
    workers, head = profile.workers, profile.head
    pods = workers.nodes + 2.0
    needs = {"pods": pods, "count/pods": pods, f"requests.{GPU_RESOURCE}": float(workers.nodes * workers.gpus)}
    needs |= dict.fromkeys(("count/rayjobs.ray.io", "count/rayclusters.ray.io", "count/jobs.batch"), 1.0)
    fixed = {
        "cpu": (f"{workers.cpus}", f"{head.cpus}"),
        "memory": (workers.memory, head.memory),
        "ephemeral-storage": (workers.scratch, head.scratch),
    }
    for resource, (of_worker, of_head) in fixed.items():
        for kind in ("requests", "limits"):
            submitter = amount_of(SUBMITTER_RESOURCES[kind][resource])
            needs[f"{kind}.{resource}"] = workers.nodes * amount_of(of_worker) + amount_of(of_head) + submitter
        needs[resource] = needs[f"requests.{resource}"]
    return needs
