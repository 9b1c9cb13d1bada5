"""Whether a cluster has the nodes that a profile asks for, as far as the user may see nodes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from orchestrator.k8s.client.api import Api
from orchestrator.k8s.client.errors import ForbiddenError
from orchestrator.k8s.names import GPU_PRODUCT, GPU_RESOURCE
from orchestrator.k8s.profile import ClusterProfile
from orchestrator.k8s.rendering.scheduling import GPU_LABELS
from orchestrator.k8s.values import amount_of


def check_nodes(api: Api, profile: ClusterProfile, mistakes: list[str], notes: list[str]) -> None:
    """Add to `mistakes` a GPU product that no node has, to `notes` that nodes are few, too small or cannot be seen."""
    workers, head = profile.workers, profile.head
    try:
        nodes = api.list("Node")
    except ForbiddenError:
        if workers.gpu_product:
            notes.append(f"you may not list nodes: whether any has {workers.gpu_product} was not checked")
        return
    if workers.gpu_product:
        told = _unknown_product(workers.gpu_product, nodes)
        if told and workers.nodes_on_demand:
            notes.append(f"{told}; it may come on demand (workers.nodes_on_demand)")
        elif told:
            mistakes.append(f"{told}. Where nodes are made on demand, set workers.nodes_on_demand")
        if told:
            return
    if not nodes or workers.nodes_on_demand:
        return
    fitting = [node for node in nodes if _fits(node, profile)]
    if workers.gpus and len(fitting) < workers.nodes:
        notes.append(
            f"{workers.nodes} nodes with {workers.gpus} GPUs and the labels of the profile are asked for, of which "
            f"there are {len(fitting)} now: the sweep waits for the others, at most pre_running_deadline"
        )
    elif not fitting:
        notes.append("workers.node_selector: no node has these labels now")
    notes += _too_small(fitting, "workers", workers.cpus, workers.memory, workers.scratch)
    for_head = [
        node
        for node in nodes
        if _is_open(node, head.node_selector) and (head.on_gpu_nodes or not _labels(node).keys() & GPU_LABELS)
    ]
    notes += _too_small(for_head, "head", head.cpus, head.memory, head.scratch)


def _too_small(nodes: list[dict[str, Any]], pod: str, cpus: int, memory: str, scratch: str) -> list[str]:
    """What a pod asks for that none of these nodes has, though it were empty."""
    told = []
    for field, resource, asked in (
        ("cpus", "cpu", f"{cpus}"),
        ("memory", "memory", memory),
        ("scratch", "ephemeral-storage", scratch),
    ):
        there = [has for node in nodes if (has := _allocatable(node).get(resource))]
        largest = max(there, key=amount_of, default=None)
        if largest is not None and amount_of(largest) < amount_of(asked):
            told.append(f"{pod}.{field} {asked}: no node that may take the pod has more than {largest}")
    return told


def _unknown_product(product: str, nodes: list[dict[str, Any]]) -> str:
    """Why no node has it; empty where one does."""
    there = sorted({label for node in nodes if (label := _labels(node).get(GPU_PRODUCT))})
    if product in there:
        return ""
    if not there:
        return (
            f"workers.gpu_product {product!r}: no node has the label {GPU_PRODUCT} (NVIDIA's GPU operator sets it); "
            "without it choose nodes by workers.node_selector"
        )
    near = difflib.get_close_matches(product, there, n=1, cutoff=0.4)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    return f"workers.gpu_product {product!r}: no node has it; there are {', '.join(there)}.{guess}".rstrip(".")


def _fits(node: dict[str, Any], profile: ClusterProfile) -> bool:
    workers = profile.workers
    wanted = {**workers.node_selector, **(profile.spot.node_selector if profile.spot else {})}
    wanted |= {GPU_PRODUCT: workers.gpu_product} if workers.gpu_product else {}
    return _is_open(node, wanted) and int(_allocatable(node).get(GPU_RESOURCE, "0")) >= workers.gpus


def _is_open(node: dict[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a node has these labels and takes pods: it is not cordoned."""
    there = _labels(node)
    cordoned = (node.get("spec") or {}).get("unschedulable")
    return not cordoned and all(there.get(key) == value for key, value in labels.items())


def _allocatable(node: dict[str, Any]) -> dict[str, str]:
    found = (node.get("status") or {}).get("allocatable") or {}
    return {resource: str(amount) for resource, amount in found.items()}


def _labels(node: dict[str, Any]) -> dict[str, str]:
    return node["metadata"].get("labels") or {}
