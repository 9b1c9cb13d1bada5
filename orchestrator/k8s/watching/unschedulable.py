"""What the scheduler says about a pod that fits nowhere, in words: which nodes lack what, and what would help."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from orchestrator.k8s.names import GPU_RESOURCE

Kind = Literal["claim", "capacity", "taint", "selector", "node"]

SYSTEM_TAINTS = ("node-role.kubernetes.io/", "node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
"""Of control planes and of nodes that are not well: never what a sweep is to tolerate."""
UNITS = {GPU_RESOURCE: "GPUs", "cpu": "CPUs", "memory": "memory", "ephemeral-storage": "local disk"}
KEYS = {
    GPU_RESOURCE: "workers.gpus",
    "cpu": "{role}.cpus",
    "memory": "{role}.memory",
    "ephemeral-storage": "{role}.scratch",
}


@dataclass(frozen=True)
class Obstacle:
    """Why some nodes do not take a pod.

    Attributes:
        kind: "claim" is a volume that is missing or unbound, and "node" a node that takes no pods at present.
        text: in words, how many nodes included.
        remedy: what to change.
    """

    kind: Kind
    text: str
    remedy: str


ORDER: tuple[Kind, ...] = ("claim", "capacity", "taint", "selector", "node")


def obstacles(message: str, role: str = "worker") -> list[Obstacle]:
    """Read a message like "0/5 nodes are available: 2 Insufficient cpu, 3 node(s) had untolerated taint {...}".

    They come in the order in which they should be looked at. A volume that is not there keeps a pod from every node.
    Of each node the scheduler tells the first obstacle only, taints before labels before capacity, so those that lack
    capacity are nearest to taking it. Empty where nothing is understood. `role` is that of the pod, for remedies: the
    submitter goes where the head goes.
    """
    settings = "workers" if role == "worker" else "head"
    body = re.split(r"\s*(?:preemption:|no new claims to deallocate)", message)[0]
    total, _, reasons = body.partition(" nodes are available: ")
    count = total.rpartition("/")[2] if reasons else ""
    parts = re.split(r", (?=\d+ )|\.(?:\s|$)", reasons or body)
    found = [obstacle for part in parts if (obstacle := _obstacle(part.strip(), count, role)) is not None]
    found = [replace(obstacle, remedy=obstacle.remedy.replace("{role}", settings)) for obstacle in found]
    return sorted(found, key=lambda obstacle: ORDER.index(obstacle.kind))


def _obstacle(part: str, of: str, role: str) -> Obstacle | None:
    number = re.match(r"(\d+) ", part)
    nodes = f"{number[1]} of {of} nodes" if number and of else "nodes"
    if (claim := _claim(part, nodes)) is not None:
        return claim
    if (resource := re.search(r"Insufficient (\S+)", part)) is not None:
        few = "too little free" if resource[1] in ("memory", "ephemeral-storage") else "too few free"
        key = KEYS.get(resource[1], "{role}")
        remedy = f"wait until others have finished, or set a smaller {key} or fewer workers.nodes"
        return Obstacle("capacity", f"{nodes} have {few} {UNITS.get(resource[1], resource[1])}", remedy)
    if "Too many pods" in part:
        return Obstacle("capacity", f"{nodes} hold as many pods as they may", "wait, or choose other nodes")
    if "anti-affinity" in part or "topology spread" in part:
        return Obstacle("capacity", f"{nodes} hold a pod of this sweep already", "wait, or set fewer workers.nodes")
    if "untolerated taint" in part:
        return _taint(part, nodes, role)
    if "affinity" in part or "selector" in part:
        remedy = "compare {role}.node_selector and workers.gpu_product with kubectl get nodes --show-labels"
        return Obstacle("selector", f"{nodes} lack the labels that it asks for", remedy)
    if "unschedulable" in part or "not ready" in part:
        return Obstacle("node", f"{nodes} are cordoned or not ready", "an administrator looks at kubectl get nodes")
    return None


def _claim(part: str, nodes: str) -> Obstacle | None:
    if (missing := re.search(r'persistentvolumeclaim "([^"]+)" not found', part)) is not None:
        remedy = "kubectl get pvc tells those there are; correct results.claim or data.claim, or create it"
        return Obstacle("claim", f"the claim {missing[1]!r} is not there", remedy)
    if "unbound immediate PersistentVolumeClaims" in part:
        remedy = "kubectl describe pvc tells why; the storage class (results.storage_class) must offer ReadWriteMany"
        return Obstacle("claim", "its volume claim is not bound to a volume", remedy)
    if "volume node affinity conflict" in part or "didn't find available persistent volumes" in part:
        remedy = "use a claim that all nodes reach (results.claim, data.claim with ReadWriteMany or ReadOnlyMany)"
        return Obstacle("claim", f"its volume cannot be reached from {nodes}", remedy)
    return None


def _taint(part: str, nodes: str, role: str) -> Obstacle:
    """Of `node(s) had untolerated taint {key: value}`; newer schedulers leave the taint out."""
    named = re.search(r"\{([^}]*)\}", part)
    if named is None:
        text = f"{nodes} have taints that it does not tolerate"
        return Obstacle("taint", text, "kubectl describe nodes tells the taints: add them to {role}.tolerations")
    key, _, value = (word.strip() for word in named[1].partition(":"))
    if key.startswith(SYSTEM_TAINTS):
        text = f"{nodes} take no pods at present ({key})"
        return Obstacle("node", text, "an administrator looks at kubectl get nodes")
    if key == GPU_RESOURCE and role != "worker":
        remedy = f"the {role} belongs on a node without GPUs: an administrator adds one"
        return Obstacle("taint", f"{nodes} are kept for pods with GPUs (taint {key})", remedy)
    wanted = f"{{key: {key}, value: {value}}}" if value else f"{{key: {key}, operator: Exists}}"
    text = f"{nodes} have the taint {key}{f'={value}' if value else ''}, which it does not tolerate"
    return Obstacle("taint", text, f"add {wanted} to {{role}}.tolerations")
