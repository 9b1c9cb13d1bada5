"""What is wrong with the pods of a launch: each trouble in plain words, with what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.console import duration
from orchestrator.k8s.watching.containers import container_troubles
from orchestrator.k8s.watching.lost_pods import lost_pod
from orchestrator.k8s.watching.observed import Event, Manifest, Picture, time_of
from orchestrator.k8s.watching.trouble import Trouble
from orchestrator.k8s.watching.unschedulable import obstacles

RECENT = timedelta(minutes=15)
"""How long a container that died counts, although its pod is well again."""
GCS_PATIENCE = timedelta(minutes=2)
"""A worker that waits for the head so long, while the head is ready, does not reach it."""
START_PATIENCE = timedelta(minutes=1)
"""How long Ray may not answer after its container was started."""
SCALE_UP_PATIENCE = timedelta(minutes=10)


def pod_troubles(picture: Picture) -> list[Trouble]:
    """Troubles of the pods that are there, the most telling first, pods that share one counted together."""
    found: list[Trouble] = []
    unbound = _why_unbound(picture)
    head_ready = max((_became(pod, "Ready") for pod in picture.of_type("head") if is_ready(pod)), default=None)
    for role, pods in (
        ("head", picture.of_type("head")),
        ("worker", picture.of_type("worker")),
        ("submitter", picture.submitters[-1:]),
    ):
        for pod in pods:
            events = [event for event in picture.events if event.name == pod["metadata"]["name"]]
            found += _of_pod(pod, role, events, picture.now, head_ready)
    return ordered(
        replace(trouble, text=f"{trouble.text}{unbound}") if "is not bound" in trouble.text else trouble
        for trouble in found
    )


def ordered(troubles: Iterable[Trouble]) -> list[Trouble]:
    """The most telling first; equal ones as one, with the number of pods that have it."""
    merged: dict[Trouble, int] = {}
    for trouble in troubles:
        key = replace(trouble, pods=1)
        merged[key] = merged.get(key, 0) + trouble.pods
    counted = [replace(trouble, pods=count) for trouble, count in merged.items()]
    return sorted(counted, key=lambda trouble: trouble.precedence)


def is_ready(pod: Manifest) -> bool:
    """Whether a pod's Ready condition holds."""
    return _condition(pod, "Ready").get("status") == "True"


def count_ready(pods: Iterable[Manifest]) -> int:
    """How many are ready, without those that are on their way out."""
    return sum(is_ready(pod) and not pod["metadata"].get("deletionTimestamp") for pod in pods)


def _of_pod(
    pod: Manifest, role: str, events: list[Event], now: datetime, head_ready: datetime | None
) -> Iterator[Trouble]:
    """Of one pod: where it is in its life decides what can be wrong. `head_ready` says since when the head is."""
    status = pod.get("status") or {}
    phase = status.get("phase") or "Pending"
    scheduled = _condition(pod, "PodScheduled")
    disruption = _condition(pod, "DisruptionTarget")
    if pod["metadata"].get("deletionTimestamp") and disruption.get("status") != "True":
        return  # on its way out, as it was asked to
    if phase in ("Failed", "Unknown") or disruption.get("status") == "True":
        reason = status.get("reason") or disruption.get("reason") or ""
        text = status.get("message") or disruption.get("message") or ""
        if (lost := lost_pod(role, reason, text)) is not None:
            yield lost
            return
    if phase == "Unknown":
        yield _silent_node(role, pod)
        return
    if phase == "Pending" and scheduled.get("status") == "False":
        yield from _unscheduled(role, pod, scheduled, events, now)
        return
    waiting = list(container_troubles(pod, role, events, now, RECENT))
    yield from waiting
    if phase == "Pending" and not waiting:
        yield from _not_started(pod, role, events, now, head_ready)
    if phase == "Failed" and not waiting and status.get("reason"):
        said = _short(status.get("message") or "")
        text = f"the {role} failed ({status['reason']}{f': {said}' if said else ''})"
        yield Trouble("crash", role, text, "kubectl describe pod tells more")
    if phase == "Running" and not waiting and not is_ready(pod):
        yield from _unready(role, pod, events, now)


def _unscheduled(
    role: str, pod: Manifest, scheduled: Manifest, events: list[Event], now: datetime
) -> Iterator[Trouble]:
    message = scheduled.get("message") or ""
    if (scaling := _scaling(role, events, now)) is not None:
        yield scaling
        return
    if (pod.get("status") or {}).get("nominatedNodeName"):
        text = f"pods of lower priority leave a node to make room for the {role}"
        yield Trouble("scaling", role, text, "wait")
        return
    if scheduled.get("reason") == "SchedulingGated":
        yield Trouble(
            "queue", role, f"the {role} waits for its admission by Kueue", "wait, or see kubectl get workloads"
        )
        return
    found = obstacles(message, role)
    if not found:
        text = f"no node takes the {role}: {message or 'the scheduler has not said why'}"
        yield Trouble("capacity", role, text, "kubectl describe pod tells more")
        return
    text = "; ".join(dict.fromkeys(obstacle.text for obstacle in found))
    remedy = ". Or ".join(dict.fromkeys(obstacle.remedy for obstacle in found[:2] if obstacle.kind != "node"))
    yield Trouble(found[0].kind, role, f"no node takes the {role}: {text}", remedy or found[0].remedy)


def _scaling(role: str, events: list[Event], now: datetime) -> Trouble | None:
    """An autoscaler that makes nodes, or says that it cannot; None where there is none."""
    told = [
        event
        for event in events
        if event.reason in ("TriggeredScaleUp", "Nominated", "NotTriggerScaleUp", "FailedScaleUp")
        and now - event.last < SCALE_UP_PATIENCE
    ]
    if not told or told[-1].reason == "NotTriggerScaleUp":
        return None  # then the scheduler's words tell more
    if told[-1].reason == "FailedScaleUp":
        text = f"the autoscaler could not make a node for the {role}: {told[-1].message}"
        return Trouble(
            "capacity", role, text, "wait, it tries again; a cloud quota or an empty zone needs an administrator"
        )
    since = duration(max(0.0, (now - told[-1].last).total_seconds()))
    return Trouble("scaling", role, f"the autoscaler makes a node for the {role} (asked {since} ago)", "wait")


def _not_started(
    pod: Manifest, role: str, events: list[Event], now: datetime, head_ready: datetime | None
) -> Iterator[Trouble]:
    """Scheduled, no container in trouble, and yet not running: volumes, network, or waiting for the head."""
    last = {event.reason: event for event in events if event.warning}
    for reason in ("FailedAttachVolume", "FailedMount", "FailedMapVolume"):
        if reason in last:
            yield mount_trouble(role, last[reason].message)
            return
    if "FailedCreatePodSandBox" in last:
        text = f"the node cannot set up the network of the {role}: {_short(last['FailedCreatePodSandBox'].message)}"
        yield Trouble("node", role, text, "an administrator looks at the node (kubectl describe pod names it)")
    for container in (pod.get("status") or {}).get("initContainerStatuses") or []:
        started = _runs_since(container)
        if container.get("name") != "wait-gcs-ready" or started is None or head_ready is None:
            continue
        if now - (in_vain := max(started, head_ready)) > GCS_PATIENCE:
            yield Trouble(
                "network",
                role,
                f"the {role} does not reach the head, which is ready, for {duration((now - in_vain).total_seconds())}",
                "a NetworkPolicy or the DNS may stand between them: kubectl get networkpolicy; "
                "ours allows it (bo-sweep k8s render SPACE --only setup)",
            )


def mount_trouble(role: str, message: str) -> Trouble:
    """Why a volume cannot be mounted, by what the node says of it."""
    if "Multi-Attach" in message:
        return Trouble(
            "mount",
            role,
            f"a volume of the {role} is in use by another node and can be on one node only",
            "use a claim with access mode ReadWriteMany (results.claim) or ReadOnlyMany (data.claim)",
        )
    if 'secret "' in message or 'configmap "' in message:
        text = f"a volume of the {role} needs what is not there: {_short(message)}"
        return Trouble("config", role, text, "create it, or correct its name in the profile (results.secret, wandb)")
    if "hostPath type check failed" in message:
        text = f"the folder data.host_path is not on the node of the {role}"
        return Trouble(
            "mount", role, text, "correct data.host_path, or choose nodes that have it (workers.node_selector)"
        )
    text = f"a volume of the {role} cannot be mounted: {_short(message)}"
    return Trouble("mount", role, text, "kubectl describe pvc tells more (results.claim, data.claim)")


def _unready(role: str, pod: Manifest, events: list[Event], now: datetime) -> Iterator[Trouble]:
    # A node that is silent tells nothing of its pods: their conditions are all that changes, for five minutes.
    if any(event.reason == "NodeNotReady" and event.last >= _became(pod, "Ready") for event in events):
        yield _silent_node(role, pod)
        return
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    started = max((since for status in statuses if (since := _runs_since(status))), default=None)
    if started is not None and now - started < START_PATIENCE:
        return  # Ray takes its time to start, and is asked meanwhile
    probes = [event for event in events if event.reason == "Unhealthy" and event.count >= 3]
    if probes:
        said = _short(probes[-1].message)
        text = f"Ray on the {role} does not answer its health check ({probes[-1].count} times): {said}"
        yield Trouble("unready", role, text, f"bo-sweep k8s logs SWEEP --node {role}")


def _silent_node(role: str, pod: Manifest) -> Trouble:
    node = (pod.get("spec") or {}).get("nodeName") or "NODE"
    remedy = (
        f"wait: if it does not come back within minutes, a new pod takes over. kubectl describe node {node} tells more"
    )
    return Trouble("lost", role, f"the node of the {role} does not answer", remedy)


def _became(pod: Manifest, name: str) -> datetime:
    """When a condition changed last, less what clocks of a cluster may differ by."""
    stamp = time_of(_condition(pod, name).get("lastTransitionTime"))
    return stamp - timedelta(seconds=10) if stamp else datetime.min.replace(tzinfo=UTC)


def _why_unbound(picture: Picture) -> str:
    """What the cluster says of claims that are not bound, in brackets, or ''."""
    bound = {
        claim["metadata"]["name"] for claim in picture.claims if (claim.get("status") or {}).get("phase") == "Bound"
    }
    said = {
        event.name: f"{event.name}: {_short(event.message)}"
        for event in picture.events
        if event.kind == "PersistentVolumeClaim"
        and event.reason in ("ProvisioningFailed", "FailedBinding")
        and event.name not in bound
    }
    return f" ({'; '.join(said.values())})" if said else ""


def _runs_since(container: Manifest) -> datetime | None:
    """When a container that runs was started, by its status."""
    return time_of(((container.get("state") or {}).get("running") or {}).get("startedAt"))


def _short(message: str, characters: int = 300) -> str:
    text = " ".join(message.split())
    return text if len(text) <= characters else f"{text[: characters - 3]}..."


def _condition(pod: Manifest, name: str) -> dict[str, Any]:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return next((condition for condition in conditions if condition.get("type") == name), {})
