"""Why pods of a launch were not even made: quotas, Pod Security, what they refer to, and the queue."""

from __future__ import annotations

import re
from collections.abc import Iterator

from orchestrator.k8s.names import QUEUE
from orchestrator.k8s.watching.observed import Event, Picture, labels_of
from orchestrator.k8s.watching.trouble import Trouble

FAILED = {
    "FailedToCreateRayCluster": "",
    "FailedToCreateHeadPod": "head",
    "FailedToCreateWorkerPod": "worker",
    "FailedToCreateRayJobSubmitter": "submitter",
    "FailedCreate": "submitter",
}
"""Events of the operator and of the controller of jobs, and whose pods they are about."""
MADE = {"CreatedHeadPod": "head", "CreatedWorkerPod": "worker", "SuccessfulCreate": "submitter"}
INVALID = ("InvalidRayClusterSpec", "InvalidRayClusterMetadata", "InvalidRayJobSpec", "InvalidRayJobMetadata")


def creation_troubles(picture: Picture, events: tuple[Event, ...]) -> Iterator[Trouble]:
    """Of pods that are wanted and not there, by events (those of one attempt) and the RayCluster's condition."""
    for event in events:
        if event.reason in INVALID:
            text = f"KubeRay refuses the specification: {event.message}"
            yield Trouble("refused", "", text, "is the image's and the operator's version right? bo-sweep k8s doctor")
    failing: dict[str, str] = {}
    for event in events:
        if event.reason in MADE:
            failing.pop(MADE[event.reason], None)
        elif event.reason in FAILED:
            failing[FAILED[event.reason]] = event.message
    conditions = ((picture.cluster or {}).get("status") or {}).get("conditions") or []
    for condition in conditions:
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True" and condition.get("message"):
            failing.setdefault("head" if "Head" in condition.get("reason", "") else "worker", condition["message"])
    for role, message in failing.items():
        yield not_made(role, message)


def not_made(role: str, message: str) -> Trouble:
    """Why the cluster refused to make a pod (or the Ray cluster, with role "")."""
    what = f"pods of the {role}" if role else "the Ray cluster"
    part = "head" if role == "head" else "workers"
    quota = re.search(
        r"exceeded quota: (\S+), requested: (.+?), used: (.+?), limited: (.+?)(?:$|\.\s|\"|;)", message.strip()
    )
    if quota is not None:
        name, requested, used, limited = quota.groups()
        text = f"the quota {name!r} of the namespace is used up: asked {requested}, used {used}, allowed {limited}"
        remedy = f"wait until others have finished, ask for less ({part}.cpus, {part}.memory, workers.gpus, "
        return Trouble("quota", role, text, f"{remedy}workers.nodes), or have the quota raised")
    if "failed quota" in message:
        return Trouble(
            "quota", role, f"a quota of the namespace refuses {what}: {_reason(message)}", "ask its administrator"
        )
    if "PodSecurity" in message:
        level = re.search(r'PodSecurity "([^":]+)', message)
        why = message.rpartition('": ')[2] if '": ' in message else message
        text = f"the Pod Security level {level[1] if level else 'of the namespace'} forbids {what}: {why}"
        return Trouble("security", role, text, "leave out data.host_path (use data.claim), or choose another namespace")
    if (account := re.search(r'serviceaccounts? "([^"]+)" not found', message)) is not None:
        text = f"the service account {account[1]!r} is not there"
        return Trouble("missing", role, text, "bo-sweep k8s render SPACE --only setup | kubectl apply -f -")
    if (priority := re.search(r"no PriorityClass with name (\S+) was found", message)) is not None:
        text = f"there is no priority class {priority[1]!r}"
        return Trouble("missing", role, text, "correct priority_class in the profile: kubectl get priorityclasses")
    if (hook := re.search(r'admission webhook "([^"]+)" denied the request: (.+)', message, re.DOTALL)) is not None:
        text = f"the cluster's own check {hook[1]!r} refuses {what}: {hook[2].strip()}"
        return Trouble("security", role, text, "change the profile as it says, or ask the cluster's administrator")
    if " usage per " in message:
        text = f"a limit range of the namespace refuses {what}: {_reason(message)}"
        return Trouble("quota", role, text, f"ask for less: {part}.cpus, {part}.memory, {part}.scratch")
    return Trouble("refused", role, f"{what} cannot be made: {_reason(message)}", "bo-sweep k8s doctor")


def queue_trouble(picture: Picture) -> Trouble | None:
    """Why Kueue has not admitted the job yet; None where it has, or where no queue is asked for."""
    queue = labels_of(picture.job).get(QUEUE) if picture.job else None
    if not queue or not picture.spec.get("suspend"):
        return None
    conditions = ((picture.workload or {}).get("status") or {}).get("conditions") or []
    by_type = {condition.get("type"): condition for condition in conditions}
    reserved = by_type.get("QuotaReserved") or {}
    if (by_type.get("Admitted") or {}).get("status") == "True":
        return None
    message = (reserved.get("message") or "").strip().rstrip(".")
    if "doesn't exist" in message or "not found" in message:
        text, remedy = f"the queue {queue!r} cannot admit it: {message}", "correct `queue` in the profile"
        return Trouble("queue", "", text, f"{remedy}: kubectl get localqueues tells those there are")
    if "inactive" in message or "stopped" in message:
        return Trouble(
            "queue", "", f"the queue {queue!r} takes nothing in: {message}", "its administrator can start it"
        )
    if (evicted := by_type.get("Evicted") or {}).get("status") == "True":
        text = f"it had to leave the queue {queue!r} for others ({evicted.get('reason')}: {evicted.get('message')})"
        return Trouble("queue", "", text, "nothing to do: it is admitted again in its turn and goes on from storage")
    if picture.workload is None and "workloads" not in picture.unread:
        text = f"Kueue has not taken it into the queue {queue!r}"
        return Trouble("queue", "", text, "kubectl get localqueues tells whether it is there; bo-sweep k8s doctor")
    why = message or "it waits for its turn"
    return Trouble(
        "queue", "", f"the queue {queue!r} has not admitted it: {why}", "wait, or ask for less (workers.nodes)"
    )


def _reason(message: str) -> str:
    """What comes after "... is forbidden: ", which names only a generated name."""
    return " ".join((message.partition(" is forbidden: ")[2] or message).split()).rstrip(".")
