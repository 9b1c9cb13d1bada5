"""What happened to pods that are gone, by the events that a cluster keeps for an hour."""

from __future__ import annotations

import re
from datetime import datetime

from orchestrator.k8s.watching.containers import ended_badly, not_started, pull_trouble
from orchestrator.k8s.watching.creation import creation_troubles
from orchestrator.k8s.watching.lost_pods import lost_pod
from orchestrator.k8s.watching.observed import Event, Picture, time_of
from orchestrator.k8s.watching.trouble import Trouble
from orchestrator.k8s.watching.troubles import mount_trouble, ordered
from orchestrator.k8s.watching.unschedulable import obstacles

HEALS = {
    "Scheduled": ("FailedScheduling",),
    "Pulled": ("pull",),
    "Started": ("pull", "Failed", "FailedMount", "FailedAttachVolume"),
}
"""Events after which an earlier one of the same pod matters no more; "pull" is a Failed one of its image."""


def attempt_began(picture: Picture) -> datetime | None:
    """When the operator began the present (or last) attempt."""
    return time_of(picture.status.get("startTime"))


def events_of_attempt(picture: Picture) -> tuple[Event, ...]:
    """Events since the present (or last) attempt began."""
    began = attempt_began(picture)
    return tuple(event for event in picture.events if began is None or event.last >= began)


def earlier_events(picture: Picture) -> tuple[Event, ...]:
    """Events of earlier attempts, as long as the cluster keeps them."""
    began = attempt_began(picture)
    return tuple(event for event in picture.events if began is not None and event.last < began)


def past_troubles(picture: Picture, events: tuple[Event, ...]) -> list[Trouble]:
    """Troubles that events tell of, the most telling first. Empty where they were fine, or are forgotten."""
    found = list(creation_troubles(events))
    of_pods: dict[tuple[str, str], Trouble] = {}
    for event in events:
        if event.kind == "Pod":
            for healed in HEALS.get(event.reason, ()):
                of_pods.pop((event.name, healed), None)
            if (trouble := _of_pod_event(event, role_of(event.name, picture.name))) is not None:
                of_pods[event.name, "pull" if trouble.kind == "image" else event.reason] = trouble
        elif event.reason in ("DeletedHeadPod", "DeletedWorkerPod"):
            role = "head" if event.reason == "DeletedHeadPod" else "worker"
            if (trouble := ended_badly(role, f"ray-{role}", _ended(event.message))) is not None:
                found.append(trouble)
    return ordered([*found, *of_pods.values()])


def role_of(pod: str, job: str) -> str:
    """Of a pod of a RayJob that is gone only the name tells: KubeRay puts -head- or -worker- behind the job's."""
    own = pod.removeprefix(job)
    return "head" if re.search(r"-head(-[a-z0-9]+)?$", own) else "worker" if "-worker-" in own else "submitter"


def _of_pod_event(event: Event, role: str) -> Trouble | None:
    reason, message = event.reason, event.message
    if reason == "TaintManagerEviction" and message.startswith("Cancelling"):
        return None  # the node came back in time
    if reason in ("Evicted", "Preempted", "TaintManagerEviction", "NodeNotReady", "NodeShutdown", "Shutdown"):
        return lost_pod(role, reason, message)
    if reason == "Failed" and "pull image" in message:
        image = re.search(r'pull image "([^"]+)"', message)
        return pull_trouble(role, image[1] if image else "", message)
    if reason == "Failed" and message.startswith("Error: ") and not message.startswith(("Error: Err", "Error: Image")):
        return not_started(role, message.removeprefix("Error: "))
    if reason == "FailedScheduling":
        found = obstacles(message, role)
        if found:
            text = f"no node took the {role}: {'; '.join(dict.fromkeys(obstacle.text for obstacle in found))}"
            return Trouble(found[0].kind, role, text, found[0].remedy)
    if reason in ("FailedMount", "FailedAttachVolume"):
        return mount_trouble(role, message)
    return None


def _ended(message: str) -> dict[str, object]:
    """The `terminated` state that KubeRay prints into its event, as Go writes a structure."""
    code, reason = re.search(r"ExitCode:(\d+)", message), re.search(r"Reason:([^,}]*)", message)
    return {"exitCode": int(code[1]) if code else 0, "reason": reason[1] if reason else ""}
