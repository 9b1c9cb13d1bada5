"""Pods that were taken away: evicted, preempted, or gone with their node."""

from __future__ import annotations

from orchestrator.k8s.watching.trouble import Trouble

NODE_GONE = frozenset(
    {
        *("NodeLost", "NodeShutdown", "Shutdown", "Terminated", "Terminating", "NodeNotReady", "TaintManagerEviction"),
        *("DeletionByTaintManager", "DeletionByPodGC", "TerminationByKubelet"),
    }
)
NOT_ADMITTED = ("UnexpectedAdmissionError", "NodeAffinity", "TopologyAffinityError", "OutOf")
"""Beginnings of reasons with which a node refuses a pod that the scheduler has given it."""
GOES_ON = "nothing to do: a new pod takes over, and runs go on from their checkpoints"


def lost_pod(role: str, reason: str, message: str) -> Trouble | None:
    """A pod that its node or the cluster took away, by the reason that the cluster gives."""
    if reason == "Evicted" or "low on resource" in message:
        return _evicted(role, message.strip().rstrip("."))
    if reason in ("Preempting", "PreemptionByScheduler", "Preempted") or "preempt" in message.lower():
        return Trouble(
            "lost",
            role,
            f"the {role} had to give way to a pod of higher priority",
            f"{GOES_ON}, when there is room; a priority_class in the profile protects it",
        )
    if reason.startswith(NOT_ADMITTED):
        text = f"the node that was chosen refused the {role} ({message.strip().rstrip('.') or reason})"
        again = "If it happens again, an administrator looks at the node and the plugin of its GPUs"
        return Trouble("lost", role, text, f"{GOES_ON}. {again}")
    if reason == "EvictionByEvictionAPI":
        text = f"the {role} was asked to leave its node, as when a node is drained or given back"
        return Trouble("lost", role, text, f"{GOES_ON}{_stay(role)}")
    if reason in NODE_GONE:
        return Trouble("lost", role, f"the node of the {role} went away ({reason})", f"{GOES_ON}{_stay(role)}")
    return None


def _evicted(role: str, message: str) -> Trouble:
    """By the node, for what the pod used or for what the node is short of."""
    part, words = "head" if role == "head" else "workers", message.lower()
    if '"shared-memory"' in words:
        remedy = "raise workers.shared_memory in the profile" if role == "worker" else GOES_ON
        return Trouble("evicted", role, f"the {role} used more shared memory than it may ({message})", remedy)
    if "exceed" in words:
        text = f"the {role} used more local disk than it may and was evicted ({message})"
        return Trouble("evicted", role, text, f"raise {part}.scratch in the profile")
    if "resource: memory" in words or "memorypressure" in words or "memory.available" in words:
        remedy = f"raise {part}.memory in the profile: requests below the use are evicted first"
        return Trouble("evicted", role, f"the node of the {role} ran low on memory and evicted it", remedy)
    if any(sign in words for sign in ("ephemeral", "disk", "inode", "nodefs", "imagefs")):
        text = f"the node of the {role} ran low on local disk and evicted it ({message})"
        return Trouble("evicted", role, text, f"raise {part}.scratch in the profile, or choose nodes with more disk")
    return Trouble("evicted", role, f"the {role} was evicted ({message})", GOES_ON)


def _stay(role: str) -> str:
    return "; the head belongs on nodes that stay (head.node_selector)" if role == "head" else ""
