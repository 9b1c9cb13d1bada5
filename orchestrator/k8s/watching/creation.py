"""Why pods of a launch were not even made: quotas, Pod Security, and what they refer to."""

from __future__ import annotations

import re
from collections.abc import Iterator

from orchestrator.k8s.watching.observed import Event, Manifest
from orchestrator.k8s.watching.trouble import Trouble

FAILED = {
    "FailedToCreateRayCluster": "",
    "FailedToCreateHeadPod": "head",
    "FailedToCreateWorkerPod": "worker",
    "FailedToCreateRayJobSubmitter": "submitter",
    "FailedCreate": "submitter",
}
"""Events of the operator and of the controller of jobs, and whose pods they are about."""
MADE = {
    "CreatedRayCluster": "",
    "CreatedHeadPod": "head",
    "CreatedWorkerPod": "worker",
    "CreatedRayJobSubmitter": "submitter",
    "SuccessfulCreate": "submitter",
}
CHECK_REMEDY = "change the profile as it says, or ask the cluster's administrator"
MOST_SAID = 500
"""Characters of what a check says: some print the whole object."""
INVALID = ("InvalidRayClusterSpec", "InvalidRayClusterMetadata", "InvalidRayJobSpec", "InvalidRayJobMetadata")


def creation_troubles(events: tuple[Event, ...], cluster: Manifest | None = None) -> Iterator[Trouble]:
    """Of pods that are wanted and not there, by events of an attempt and the condition of its RayCluster."""
    for event in events:
        if event.reason in INVALID and "spec warning" not in event.message:  # it warns under the same name
            text = f"KubeRay refuses the specification: {event.message}"
            yield Trouble("refused", "", text, "is the image's and the operator's version right? bo-sweep k8s doctor")
    failing: dict[str, str] = {}
    for event in events:
        if event.reason in MADE:
            failing.pop(MADE[event.reason], None)
        elif event.reason in FAILED:
            failing[FAILED[event.reason]] = event.message
    conditions = ((cluster or {}).get("status") or {}).get("conditions") or []
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
        text = f"the cluster's own check {hook[1]!r} refuses {what}: {_reason(hook[2])}"
        return Trouble("security", role, text, CHECK_REMEDY)
    if (hook := re.search(r'failed calling webhook "([^"]+)":? ?(.*)', message, re.DOTALL)) is not None:
        text = f"the cluster's own check {hook[1]!r}, which {what} must pass, does not answer: {_reason(hook[2])}"
        return Trouble("security", role, text, "wait: it is tried again. If it stays, an administrator looks at it")
    if (
        policy := re.search(r"ValidatingAdmissionPolicy '([^']+)'.*?denied request: (.+)", message, re.DOTALL)
    ) is not None:
        text = f"the cluster's own policy {policy[1]!r} refuses {what}: {_reason(policy[2])}"
        return Trouble("security", role, text, CHECK_REMEDY)
    if " usage per " in message:
        text = f"a limit range of the namespace refuses {what}: {_reason(message)}"
        return Trouble("quota", role, text, f"ask for less: {part}.cpus, {part}.memory, {part}.scratch")
    return Trouble("refused", role, f"{what} cannot be made: {_reason(message)}", "bo-sweep k8s doctor")


def _reason(message: str) -> str:
    """What comes after "... is forbidden: ", which names only a generated name."""
    text = " ".join((message.partition(" is forbidden: ")[2] or message).split()).rstrip(".")
    return text if len(text) <= MOST_SAID else f"{text[: MOST_SAID - 3]}..."
