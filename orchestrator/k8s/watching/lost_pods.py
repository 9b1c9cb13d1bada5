"""Pods that were taken away: evicted, preempted, or gone with their node."""

from __future__ import annotations

from orchestrator.k8s.watching.trouble import Trouble

NODE_GONE = frozenset(
    {
        *("NodeLost", "NodeShutdown", "Shutdown", "Terminated", "Terminating", "NodeNotReady", "TaintManagerEviction"),
        *("DeletionByTaintManager", "DeletionByPodGC", "EvictionByEvictionAPI", "TerminationByKubelet"),
        *("UnexpectedAdmissionError",),
    }
)


def lost_pod(role: str, reason: str, message: str) -> Trouble | None:
    """A pod that its node or the cluster took away, by the reason that the cluster gives."""
    part = "head" if role == "head" else "workers"
    if reason == "Evicted" or "low on resource" in message:
        if "memory" in message:
            remedy = f"raise {part}.memory in the profile: requests below the use are evicted first"
            return Trouble("evicted", role, f"the node of the {role} ran low on memory and evicted it", remedy)
        if "ephemeral" in message or "EmptyDir" in message or "disk" in message or "inode" in message:
            text = f"the {role} used more local disk than it may and was evicted ({message.strip().rstrip('.')})"
            return Trouble("evicted", role, text, f"raise {part}.scratch in the profile")
        return Trouble("evicted", role, f"the {role} was evicted ({message.strip().rstrip('.')})", "launch again")
    if reason in ("Preempting", "PreemptionByScheduler", "Preempted") or "preempt" in message.lower():
        return Trouble(
            "lost",
            role,
            f"the {role} had to give way to a pod of higher priority",
            "nothing is lost but time, it comes back when there is room; a priority_class in the profile protects it",
        )
    if reason in NODE_GONE:
        spot = "" if role != "head" else "; the head belongs on nodes that stay (head.node_selector)"
        return Trouble(
            "lost",
            role,
            f"the node of the {role} went away ({reason})",
            f"nothing to do: a new pod takes over, and runs go on from their checkpoints{spot}",
        )
    return None
