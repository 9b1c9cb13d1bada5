"""Whether a cluster has the nodes that a profile asks for, as far as the user may see nodes."""

from __future__ import annotations

import difflib
from typing import Any

from orchestrator.k8s.client.api import Api
from orchestrator.k8s.client.errors import ForbiddenError
from orchestrator.k8s.names import GPU_PRODUCT, GPU_RESOURCE
from orchestrator.k8s.profile import ClusterProfile


def check_nodes(api: Api, profile: ClusterProfile, mistakes: list[str], notes: list[str]) -> None:
    """Add to `mistakes` a GPU product that no node has, and to `notes` that nodes are too few or cannot be seen."""
    workers = profile.workers
    if not workers.gpus:
        return
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
    fitting = [node for node in nodes if _fits(node, profile)]
    if len(fitting) < workers.nodes and not workers.nodes_on_demand:
        notes.append(
            f"{workers.nodes} nodes with {workers.gpus} GPUs and the labels of the profile are asked for, of which "
            f"there are {len(fitting)} now: the sweep waits for the others, at most pre_running_deadline"
        )


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
    labels, workers = _labels(node), profile.workers
    wanted = {**workers.node_selector, **(profile.spot.node_selector if profile.spot else {})}
    wanted |= {GPU_PRODUCT: workers.gpu_product} if workers.gpu_product else {}
    has = str(((node.get("status") or {}).get("allocatable") or {}).get(GPU_RESOURCE, "0"))
    if (node.get("spec") or {}).get("unschedulable"):  # cordoned
        return False
    return all(labels.get(key) == value for key, value in wanted.items()) and int(has) >= workers.gpus


def _labels(node: dict[str, Any]) -> dict[str, str]:
    return node["metadata"].get("labels") or {}
