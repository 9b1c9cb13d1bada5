"""The state of a launch on Kubernetes and the first cause of it, in plain words: one of them, not fifty events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from orchestrator.console import duration
from orchestrator.k8s.watching.creation import creation_troubles
from orchestrator.k8s.watching.endings import AGAIN, ending
from orchestrator.k8s.watching.history import attempt_began, earlier_events, events_of_attempt, past_troubles
from orchestrator.k8s.watching.lost_pods import GOES_ON
from orchestrator.k8s.watching.observed import Picture, time_of
from orchestrator.k8s.watching.queueing import queue_of, queue_trouble, queued_since
from orchestrator.k8s.watching.trouble import Trouble
from orchestrator.k8s.watching.troubles import count_ready, is_ready, ordered, pod_troubles

State = Literal[
    "unattended",
    "queued",
    "waiting",
    "pulling",
    "starting",
    "running",
    "retrying",
    "done",
    "stopped",
    "failed",
    "deleting",
    "deleted",
]
ATTENDED_SECONDS = 30.0
"""An operator that is there has looked at a new job long before."""


@dataclass(frozen=True)
class Explanation:
    """How a launch is, for people.

    Attributes:
        headline: the state in a sentence.
        cause: the first cause of a state that is not as it should be, or ''.
        remedy: what to change or run, or ''.
        details: what else there is to know, a line each, the most telling first.
    """

    state: State
    headline: str
    cause: str = ""
    remedy: str = ""
    details: tuple[str, ...] = field(default=())


def explain(picture: Picture) -> Explanation:
    """Tell a picture's state, and its first cause if it is not as it should be."""
    told = _explain(picture)
    return replace(told, remedy=told.remedy.replace("SWEEP", picture.sweep))


def _explain(picture: Picture) -> Explanation:
    if picture.job is None:
        return Explanation("deleted", "Deleted: the RayJob is gone; results stay where they are.")
    if picture.job["metadata"].get("deletionTimestamp"):
        return Explanation(
            "deleting", f"Being deleted, since {_ago(picture, picture.job['metadata']['deletionTimestamp'])}."
        )
    if picture.has_ended:
        return _ended(picture)
    queued = queue_trouble(picture)
    if queued is not None:
        since = _ago(picture, queued_since(picture))
        return Explanation("queued", f"Queued for {since}.", _sentence(queued.text), queued.remedy)
    if picture.deployment == "Retrying" or (picture.deployment == "" and picture.attempt > 1):
        return _retrying(picture)
    if picture.deployment in ("Suspending", "Suspended") and queue_of(picture):
        return Explanation("starting", "Admitted by its queue; the operator starts it.")
    if picture.deployment in ("Suspending", "Suspended"):
        remedy = f'kubectl patch rayjob {picture.name} --type merge -p \'{{"spec":{{"suspend":false}}}}\''
        return Explanation("queued", "Suspended: someone set spec.suspend.", remedy=remedy)
    if picture.deployment == "":
        return _new(picture)
    return _underway(picture)


def _ended(picture: Picture) -> Explanation:
    took = _between(picture.status.get("startTime"), picture.status.get("endTime"))
    if picture.deployment == "Complete" and picture.status.get("jobStatus") == "SUCCEEDED":
        return Explanation("done", f"Done{took}{_attempt(picture)}.")
    if picture.deployment == "Complete" and picture.status.get("jobStatus") == "STOPPED":
        remedy = "launch again with the same command: it goes on from storage"
        return Explanation("stopped", f"Stopped{took}: what was running has been saved.", remedy=remedy)
    troubles = _all_known(picture)
    end = ending(picture, troubles)
    remedy = end.remedy.replace(GOES_ON, AGAIN)  # pods come back by themselves only while it goes on
    return Explanation("failed", f"Failed{took}{_attempt(picture)}: {end.headline}.", end.cause, remedy, end.details)


def _retrying(picture: Picture) -> Explanation:
    failed = int(picture.status.get("failed") or 0)
    headline = f"Retrying: attempt {failed} of {picture.attempts} failed, the next is being prepared."
    # In this state the operator first keeps the reason of the failure, and then forgets it.
    troubles = past_troubles(picture, events_of_attempt(picture))
    if picture.status.get("reason"):
        end = ending(picture, troubles)
        return Explanation("retrying", headline, _sentence(end.cause or end.headline), end.remedy, end.details)
    return Explanation("retrying", headline, *_first(troubles))


def _new(picture: Picture) -> Explanation:
    assert picture.job is not None
    created = time_of(picture.job["metadata"].get("creationTimestamp")) or picture.now
    seconds = (picture.now - created).total_seconds()
    if picture.status.get("startTime"):
        return Explanation("starting", "Starting again, after it was held back.")
    if seconds < ATTENDED_SECONDS:
        return Explanation("starting", "Submitted; the operator has not looked at it yet.")
    return Explanation(
        "unattended",
        f"Submitted {duration(seconds)} ago, and the operator has not looked at it.",
        "KubeRay's operator does not run, or does not watch this namespace",
        "bo-sweep k8s doctor; kubectl get pods -A -l app.kubernetes.io/name=kuberay-operator",
    )


def _underway(picture: Picture) -> Explanation:
    troubles = ordered([*creation_troubles(events_of_attempt(picture), picture.cluster), *pod_troubles(picture)])
    heads, workers = picture.of_type("head"), picture.of_type("worker")
    of = f"{count_ready(workers)} of {picture.wanted_workers} workers ready"
    attempt, job = _attempt(picture), str(picture.status.get("jobStatus") or "")
    if job == "RUNNING":
        started = (picture.status.get("rayJobInfo") or {}).get("startTime") or picture.status.get("startTime")
        troubles = ordered([*troubles, *_unanswered(picture)])
        return _told("running", f"Running for {_ago(picture, started)}{attempt}, {of}.", troubles, picture)
    if job in ("SUCCEEDED", "FAILED", "STOPPED"):
        return _told("running", f"Ending{attempt}: Ray says {job.lower()}, its pods follow.", [], picture)
    since = f" for {_ago(picture, picture.status['startTime'])}" if attempt_began(picture) else ""
    if any(trouble.kind not in ("network", "unready") for trouble in troubles):
        return _told("waiting", f"Waiting for pods{since}{attempt}, {of}.", troubles, picture)
    if any(_is_pulling(picture, pod["metadata"]["name"]) for pod in [*heads, *workers, *picture.submitters]):
        return _told("pulling", f"Pulling the image{since}{attempt}, {of}.", troubles, picture)
    if picture.deployment == "Running":
        what = "the launch is being handed to Ray"
    elif any(map(is_ready, heads)):
        what = "the head is ready"
    else:
        what = "the head starts" if heads else "the operator makes the Ray cluster"
    return _told("starting", f"Starting{since}{attempt}: {what}, {of}.", troubles, picture)


def _unanswered(picture: Picture) -> Iterator[Trouble]:
    """That the head does not answer the operator, which gives up after some minutes."""
    since = picture.status.get("jobStatusCheckFailureStartTime")
    if since:
        text = f"the head has not answered KubeRay's operator for {_ago(picture, since)}"
        yield Trouble("unready", "head", text, "wait: after 5 minutes KubeRay gives it up; then launch again")


def _told(state: State, headline: str, troubles: list[Trouble], picture: Picture) -> Explanation:
    """With the first trouble as the cause, and the failure of the attempt before among the details."""
    earlier = past_troubles(picture, earlier_events(picture)) if picture.attempt > 1 else []
    before = (f"An attempt before: {earlier[0].line}",) if earlier else ()
    cause, remedy, details = _first(troubles)
    return Explanation(state, headline, cause, remedy, (*details, *before))


def _all_known(picture: Picture) -> list[Trouble]:
    """Troubles of pods that are there and of those that are gone; what both tell of is told once."""
    events = events_of_attempt(picture)
    not_made = creation_troubles(events, picture.cluster)
    return ordered(dict.fromkeys([*not_made, *pod_troubles(picture), *past_troubles(picture, events)]))


def _first(troubles: list[Trouble]) -> tuple[str, str, tuple[str, ...]]:
    """Cause, remedy and details."""
    if not troubles:
        return "", "", ()
    return _sentence(troubles[0].line), troubles[0].remedy, tuple(_sentence(trouble.line) for trouble in troubles[1:])


def _is_pulling(picture: Picture, pod: str) -> bool:
    """Whether the last that the node told of a pod's image is that it pulls it."""
    told = [event.reason for event in picture.events if event.name == pod and event.reason in ("Pulling", "Pulled")]
    return bool(told) and told[-1] == "Pulling"


def _attempt(picture: Picture) -> str:
    return f" (attempt {picture.attempt} of {picture.attempts})" if picture.attempts > 1 else ""


def _between(start: str | None, end: str | None) -> str:
    first, last = time_of(start), time_of(end)
    return f" after {duration((last - first).total_seconds())}" if first and last else ""


def _ago(picture: Picture, stamp: str | None) -> str:
    time: datetime | None = time_of(stamp)
    return duration(max(0.0, (picture.now - time).total_seconds())) if time else "a while"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] if text else ""
