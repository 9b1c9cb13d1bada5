"""What a namespace needs once, for all sweeps: who runs them, who may launch them, who may talk to them, and where
they are kept. An administrator applies it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.k8s.names import COMPONENT, MANAGED_BY, NAME, PRODUCT, common_labels
from orchestrator.k8s.profile import ClusterProfile
from orchestrator.k8s.rendering.pods import HEAD_PORTS

ROLE = "bo-sweep-user"
RBAC = "rbac.authorization.k8s.io"
OPERATOR_LABELS = ({NAME: "kuberay-operator"}, {COMPONENT: "kuberay-operator"})
"""Of KubeRay's operator, as its chart and as its plain manifests label it; in whatever namespace it is."""
DEFAULT_ACCOUNT = "default"
"""Of every namespace; it is there already."""
LOOK = ("get", "list", "watch")
KEEP = {
    "argocd.argoproj.io/sync-options": "Delete=false,Prune=false",
    "helm.sh/resource-policy": "keep",
    "kustomize.toolkit.fluxcd.io/prune": "disabled",
}
"""Annotations of what holds results: tools that remove what is no longer rendered leave it alone."""


def setup(profile: ClusterProfile) -> tuple[dict[str, Any], ...]:
    """The manifests that all sweeps of the profile's namespace share. None of them depends on a sweep."""
    return (
        *([] if profile.service_account == DEFAULT_ACCOUNT else [service_account(profile)]),
        role(profile),
        *([role_binding(profile)] if _submitters(profile) else []),
        network_policy(profile),
        *([results_claim(profile)] if profile.results.size else []),
        *([pod_monitor(profile)] if profile.pod_monitor else []),
    )


def service_account(profile: ClusterProfile) -> dict[str, Any]:
    """The account of all pods: it may do nothing in the cluster, and its token is not mounted."""
    made = _object("v1", "ServiceAccount", profile.service_account, profile, profile.service_account_annotations)
    return made | {"automountServiceAccountToken": False}


def role(profile: ClusterProfile) -> dict[str, Any]:
    """What people need to launch sweeps, watch them and fetch results; no secrets, no nodes, no other namespace.

    The same for all profiles: rights to read what a cluster does not have are harmless.
    """
    rules = [
        _rule("ray.io", ["rayjobs"], [*LOOK, "create", "update", "patch", "delete"]),
        _rule("ray.io", ["rayclusters"], LOOK),
        _rule("", ["configmaps"], ["get", "list", "create", "patch", "delete"]),
        _rule("", ["pods", "pods/log", "events"], LOOK),
        _rule("", ["pods/portforward"], ["get", "create"]),
        _rule("batch", ["jobs"], [*LOOK, "create", "delete"]),
        # To tell what of the setup is there.
        _rule("", ["persistentvolumeclaims", "serviceaccounts"], ["get"]),
        _rule(RBAC, ["roles", "rolebindings"], ["get"]),
        _rule("networking.k8s.io", ["networkpolicies"], ["get"]),
        _rule("monitoring.coreos.com", ["podmonitors"], ["get"]),
        _rule("kueue.x-k8s.io", ["localqueues", "workloads"], LOOK),
    ]
    return _object(f"{RBAC}/v1", "Role", ROLE, profile) | {"rules": rules}


def role_binding(profile: ClusterProfile) -> dict[str, Any]:
    """Gives the role to the submitters of the profile."""
    subjects = [{"apiGroup": RBAC, "kind": kind, "name": name} for kind, name in _submitters(profile)]
    return _object(f"{RBAC}/v1", "RoleBinding", ROLE, profile) | {
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": ROLE},
        "subjects": subjects,
    }


def network_policy(profile: ClusterProfile) -> dict[str, Any]:
    """Who may talk to pods of sweeps: pods of sweeps, the KubeRay operator, and what collects metrics.

    Within a sweep Ray talks on many ports, of which some are drawn at random; between sweeps its token divides. What
    pods may reach is left open: they need storage, W&B and name servers, which lie elsewhere in every cluster.
    """
    own = {"podSelector": {"matchLabels": {NAME: PRODUCT, MANAGED_BY: PRODUCT}}}
    operator = [{"namespaceSelector": {}, "podSelector": {"matchLabels": labels}} for labels in OPERATOR_LABELS]
    ingress = [
        {"from": [own]},
        {"from": operator, "ports": [_port("dashboard")]},
        *([{"from": [{"namespaceSelector": {}}], "ports": [_port("metrics")]}] if profile.pod_monitor else []),
    ]
    return _object("networking.k8s.io/v1", "NetworkPolicy", PRODUCT, profile) | {
        "spec": {**own, "policyTypes": ["Ingress"], "ingress": ingress}
    }


def results_claim(profile: ClusterProfile) -> dict[str, Any]:
    """The claim that holds all sweeps; no command of bo-sweep deletes it."""
    results = profile.results
    assert results.claim is not None
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": results.size}},
    }
    if results.storage_class:
        spec["storageClassName"] = results.storage_class
    return _object("v1", "PersistentVolumeClaim", results.claim, profile, KEEP) | {"spec": spec}


def pod_monitor(profile: ClusterProfile) -> dict[str, Any]:
    """Has the Prometheus operator collect Ray's metrics from head and workers."""
    return _object("monitoring.coreos.com/v1", "PodMonitor", PRODUCT, profile) | {
        "spec": {
            "selector": {"matchLabels": {NAME: PRODUCT, MANAGED_BY: PRODUCT}},
            "podMetricsEndpoints": [{"port": "metrics"}],
        }
    }


def _submitters(profile: ClusterProfile) -> list[tuple[str, str]]:
    people = profile.submitters
    return [*(("User", name) for name in people.users), *(("Group", name) for name in people.groups)]


def _object(
    version: str, kind: str, name: str, profile: ClusterProfile, annotations: dict[str, str] | None = None
) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": profile.namespace,
        "labels": {**profile.labels, **common_labels()},
    }
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _rule(group: str, resources: Sequence[str], verbs: Sequence[str]) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}


def _port(name: str) -> dict[str, Any]:
    return {"protocol": "TCP", "port": HEAD_PORTS[name]}
