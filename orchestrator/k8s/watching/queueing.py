"""Why Kueue does not let a launch start, in plain words."""

from __future__ import annotations

from orchestrator.k8s.names import QUEUE
from orchestrator.k8s.watching.observed import Manifest, Picture, labels_of
from orchestrator.k8s.watching.trouble import Trouble

IN_TURN = "nothing to do: it is admitted again in its turn and goes on from storage"


def queue_of(picture: Picture) -> str:
    """The queue that the job was submitted to, or ''."""
    return (labels_of(picture.job).get(QUEUE) or "") if picture.job else ""


def queued_since(picture: Picture) -> str | None:
    """When it began to wait: when it was submitted, or when it had to leave."""
    evicted = _conditions(picture).get("Evicted") or {}
    left = evicted.get("lastTransitionTime") if evicted.get("status") == "True" else None
    submitted: str | None = (picture.job or {"metadata": {}})["metadata"].get("creationTimestamp")
    return left or submitted


def queue_trouble(picture: Picture) -> Trouble | None:
    """Why Kueue has not admitted the job yet; None where it has, or where no queue is asked for."""
    queue, workload = queue_of(picture), picture.workload or {}
    if not queue or not picture.spec.get("suspend"):
        return None
    by_type = _conditions(picture)
    reserved, evicted = by_type.get("QuotaReserved") or {}, by_type.get("Evicted") or {}
    if (by_type.get("Admitted") or {}).get("status") == "True":
        return None
    message = (reserved.get("message") or "").strip().rstrip(".")
    if (workload.get("spec") or {}).get("active") is False:
        why = (evicted.get("message") or message or "somebody has deactivated it").strip().rstrip(".")
        again = (
            f'kubectl patch workload {workload["metadata"]["name"]} --type merge -p \'{{"spec":{{"active":true}}}}\''
        )
        return Trouble("queue", "", f"the queue {queue!r} has given it up: {why}", f"to queue it again: {again}")
    if "doesn't exist" in message or "not found" in message:
        text, remedy = f"the queue {queue!r} cannot admit it: {message}", "correct `queue` in the profile"
        return Trouble("queue", "", text, f"{remedy}: kubectl get localqueues tells those there are")
    if "inactive" in message or "stopped" in message:
        text = f"the queue {queue!r} takes nothing in: {message}"
        return Trouble("queue", "", text, "its administrator can start it")
    if reserved.get("status") == "True":
        text = f"the queue {queue!r} has room for it, and waits for its checks: {_checks(workload)}"
        return Trouble("queue", "", text, "wait; kubectl describe workload tells more")
    if evicted.get("status") == "True":
        return _evicted(queue, evicted)
    if picture.workload is None and "workloads" not in picture.unread:
        text = f"Kueue has not taken it into the queue {queue!r}"
        return Trouble("queue", "", text, "kubectl get localqueues tells whether it is there; bo-sweep k8s doctor")
    why = message or "it waits for its turn"
    text = f"the queue {queue!r} has not admitted it: {why}"
    if "unavailable in ClusterQueue" in why:
        remedy = (
            "its administrator adds that resource to coveredResources of the ClusterQueue, or has Kueue leave it out "
            "of account (resources.excludeResourcePrefixes)"
        )
        return Trouble("queue", "", text, remedy)
    if "maximum capacity" in why:
        return Trouble("queue", "", text, "ask for less (workers.nodes, workers.gpus): so much it never has")
    return Trouble("queue", "", text, "wait, or ask for less (workers.nodes)")


def _evicted(queue: str, evicted: Manifest) -> Trouble:
    reason, message = evicted.get("reason") or "", (evicted.get("message") or "").strip().rstrip(".")
    if reason == "PodsReadyTimeout":
        text = f"its pods were not ready in the time that the queue {queue!r} gives: {message}"
        return Trouble("queue", "", text, f"{IN_TURN}. If it happens again: bo-sweep k8s doctor")
    if reason == "Preempted":
        return Trouble("queue", "", f"it had to leave the queue {queue!r} for others ({reason}: {message})", IN_TURN)
    return Trouble("queue", "", f"it had to leave the queue {queue!r} ({reason}: {message})", IN_TURN)


def _checks(workload: Manifest) -> str:
    """Admission checks of a workload that have not passed, with what they say."""
    checks = (workload.get("status") or {}).get("admissionChecks") or []
    open_checks = [check for check in checks if check.get("state") != "Ready"]
    said = [
        f"{check.get('name')} ({(check.get('message') or check.get('state') or '').strip()})" for check in open_checks
    ]
    return ", ".join(said) or "they have not begun"


def _conditions(picture: Picture) -> dict[str, Manifest]:
    conditions = ((picture.workload or {}).get("status") or {}).get("conditions") or []
    return {condition.get("type"): condition for condition in conditions}
