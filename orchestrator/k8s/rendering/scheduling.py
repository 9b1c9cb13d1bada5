"""Which nodes the pods of a sweep may run on."""

from __future__ import annotations

from typing import Any

from orchestrator.k8s.names import COMPONENT, GPU_PRODUCT, GPU_RESOURCE, INSTANCE, NAME, PRODUCT
from orchestrator.k8s.profile import ClusterProfile, Toleration

GPU_TAINT = Toleration(key=GPU_RESOURCE, operator="Exists", effect="NoSchedule")
"""Tolerates what usually keeps pods without GPUs away from nodes that have some."""
GPU_PRESENT = "nvidia.com/gpu.present"
"""Node label of NVIDIA's GPU operator, "true" on nodes with GPUs."""
GPU_LABELS = (
    GPU_PRODUCT,
    "cloud.google.com/gke-accelerator",
    "k8s.amazonaws.com/accelerator",
    "karpenter.k8s.aws/instance-gpu-name",
    "kubernetes.azure.com/accelerator",
)
"""Labels that only nodes with GPUs have; those of clouds are there before a new node's GPUs are found."""
HOST = "kubernetes.io/hostname"
SPOT_LABELS = {
    "karpenter.sh/capacity-type": ["spot"],
    "eks.amazonaws.com/capacityType": ["SPOT"],
    "cloud.google.com/gke-spot": ["true"],
    "cloud.google.com/gke-preemptible": ["true"],
    "kubernetes.azure.com/scalesetpriority": ["spot"],
}
"""How the usual providers label nodes that may be taken away."""
STAY = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
"""Annotations of the head, with which the whole attempt goes, and of the submitter, of which each move counts as a
failure and too many end the attempt: autoscalers must not move them to save a node."""


def head_scheduling(profile: ClusterProfile) -> dict[str, Any]:
    """Fields of a pod that must stay, and wants no GPU: never on spot nodes, nor (unless it may) on nodes with GPUs."""
    head = profile.head
    unwanted = SPOT_LABELS | ({} if head.on_gpu_nodes else {GPU_PRESENT: ["true"]})
    expressions = [{"key": key, "operator": "NotIn", "values": values} for key, values in sorted(unwanted.items())]
    if not head.on_gpu_nodes:
        expressions += [{"key": key, "operator": "DoesNotExist"} for key in GPU_LABELS]
    required = {"nodeSelectorTerms": [{"matchExpressions": expressions}]}
    tolerations = dict.fromkeys([*([GPU_TAINT] if head.on_gpu_nodes else []), *head.tolerations])
    return _fields(
        node_selector=head.node_selector,
        affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}},
        tolerations=[_toleration(one) for one in tolerations],
    )


def worker_scheduling(profile: ClusterProfile, sweep: str) -> dict[str, Any]:
    """Fields of a worker pod: one on a node, which with GPUs is a must and without is a wish (kind has one node)."""
    workers, spot = profile.workers, profile.spot
    alike = {NAME: PRODUCT, INSTANCE: sweep, COMPONENT: "worker"}
    apart = {"labelSelector": {"matchLabels": alike}, "topologyKey": HOST}
    if workers.gpus:
        rule: dict[str, Any] = {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}
    else:
        wish = {"weight": 100, "podAffinityTerm": apart}
        rule = {"preferredDuringSchedulingIgnoredDuringExecution": [wish]}
    product = {GPU_PRODUCT: workers.gpu_product} if workers.gpu_product else {}
    gpus = [GPU_TAINT] if workers.gpus else []
    tolerations = dict.fromkeys([*gpus, *workers.tolerations, *(spot.tolerations if spot else ())])
    return _fields(
        node_selector=workers.node_selector | (spot.node_selector if spot else {}) | product,
        affinity={"podAntiAffinity": rule},
        tolerations=[_toleration(one) for one in tolerations],
    )


def selector_problems(profile: ClusterProfile) -> list[str]:
    """Node labels that are asked for with two values, which no node has."""
    workers, spot = profile.workers, profile.spot
    wanted = [
        ("workers.node_selector", workers.node_selector),
        ("spot.node_selector", spot.node_selector if spot else {}),
        ("workers.gpu_product", {GPU_PRODUCT: workers.gpu_product} if workers.gpu_product else {}),
    ]
    problems, seen = [], dict[str, tuple[str, str]]()
    for where, labels in wanted:
        for key, value in labels.items():
            earlier, other = seen.setdefault(key, (where, value))
            if other != value:
                problems.append(
                    f"{where} asks for nodes with {key}={value}, {earlier} for {key}={other}: no node has both. "
                    "Leave one out"
                )
    return problems


def _fields(
    node_selector: dict[str, str], affinity: dict[str, Any], tolerations: list[dict[str, Any]]
) -> dict[str, Any]:
    fields = {"nodeSelector": dict(node_selector), "affinity": affinity, "tolerations": tolerations}
    return {name: value for name, value in fields.items() if value}


def _toleration(toleration: Toleration) -> dict[str, Any]:
    return toleration.model_dump(exclude_none=True)
