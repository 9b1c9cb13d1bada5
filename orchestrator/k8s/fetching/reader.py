"""The reader: a pod for the time of one fetch, which serves the results claim to a port-forward, and writes nothing.

It cannot be assumed that a pod of the sweep runs. A Job rather than a bare pod, so that the cluster itself ends and
removes it after a while, also where we were killed before we could.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from orchestrator.console import duration
from orchestrator.k8s.client.api import Api, ClusterError, ForbiddenError
from orchestrator.k8s.names import COMPONENT, INSTANCE, QUEUE, common_labels, pod_labels
from orchestrator.k8s.profile import ClusterProfile
from orchestrator.k8s.rendering.mounts import Mounts

READER = "reader"
PORT = 8000
LIFETIME_SECONDS = 3600
"""The longest fetch; the next one goes on from there."""
KEPT_SECONDS = 60
"""How long the Job stays after its end."""
WAIT_SECONDS = 600.0
"""For a node to have pulled the image, which is large."""
HOPELESS = ("security", "missing", "image", "config", "start")
"""Troubles that hardly mend themselves."""
PATIENCE_SECONDS = 30.0
"""How long such a trouble may last all the same."""
LOOK_SECONDS = 3.0

Manifest = dict[str, Any]


def reader_job(profile: ClusterProfile, name: str, mounts: Mounts | None = None) -> Manifest:
    """The Job of one reader. Raises ValueError where the profile's results are in no claim."""
    from orchestrator.k8s.rendering.pods import reader_pod_spec

    mounts = mounts or Mounts()
    command = ["python", "-m", "orchestrator.k8s.fetching.file_server", mounts.results, "--port", f"{PORT}"]
    spec = reader_pod_spec(profile, command, mounts)
    spec["containers"][0]["terminationMessagePolicy"] = "FallbackToLogsOnError"  # why it ended stands in its status
    labels = profile.labels | pod_labels(name, READER)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": profile.namespace,
            "labels": {**profile.labels, **common_labels(), INSTANCE: name, COMPONENT: READER},
        },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": LIFETIME_SECONDS,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


@contextmanager
def reader_pod(
    api: Api,
    profile: ClusterProfile,
    mounts: Mounts | None = None,
    *,
    wait_seconds: float = WAIT_SECONDS,
    patience_seconds: float = PATIENCE_SECONDS,
    tell: Callable[[str], None] = lambda words: None,
) -> Iterator[str]:
    """A running reader, by the name of its pod; gone after the block, however that ends.

    Args:
        wait_seconds: until it must run.
        patience_seconds: how long a trouble may last that hardly mends itself.
        tell: called with what it waits for, when that changes.

    Raises:
        ValueError: the profile's results are in no claim.
        ClusterError: no such claim, no right to make jobs, or the pod does not come up: the first cause, in words.
    """
    name = f"bo-sweep-read-{secrets.token_hex(4)}"
    job = reader_job(profile, name, mounts)
    _check_claim(api, f"{profile.results.claim}")
    made = False
    try:
        api.create(job)
        made = True
        yield _running_pod(api, name, wait_seconds, patience_seconds, tell)
    finally:  # also where it is not known to be made: only the answer may have been lost
        try:
            api.delete("Job", name)
        except ClusterError as error:
            if made:
                tell(
                    f"The reader is left behind ({error}). The cluster removes it by itself within "
                    f"{duration(LIFETIME_SECONDS + KEPT_SECONDS)}, and kubectl delete job {name} -n {api.namespace} "
                    "at once"
                )


def _check_claim(api: Api, claim: str) -> None:
    with contextlib.suppress(ForbiddenError):  # then the pod tells
        if api.get("PersistentVolumeClaim", claim) is None:
            raise ClusterError(
                f"there is no claim {claim!r} in the namespace {api.namespace!r} of {api.host}: nothing was launched "
                "there yet, or results.claim in the profile, --namespace or --context names another place"
            )


def _running_pod(api: Api, name: str, wait_seconds: float, patience_seconds: float, tell: Callable[[str], None]) -> str:
    started = time.monotonic()
    told, hopeless_since = "", None
    while True:
        pods, version = api.list_at("Pod", labels=f"{INSTANCE}={name},{COMPONENT}={READER}")
        pod = pods[-1] if pods else None
        if pod and _phase(pod) == "Running" and _is_up(pod):
            return str(pod["metadata"]["name"])
        if pod and _phase(pod) in ("Failed", "Succeeded"):
            raise ClusterError(
                f"the reader pod ended at once: {_end_of(pod)}. Is the image of this version of bo-sweep?"
            )
        cause, remedy, hopeless = _cause(api, name, pod)
        now = time.monotonic()
        hopeless_since = (hopeless_since or now) if hopeless else None
        if now - started >= wait_seconds or (hopeless_since is not None and now - hopeless_since >= patience_seconds):
            raise ClusterError(f"the reader pod does not start, for {duration(now - started)}: {cause}. {remedy}")
        if cause != told:
            told = cause
            tell(f"Waiting for a pod that reads the claim: {cause}")
        left = started + wait_seconds - now
        for _ in api.watch(
            "Pod",
            labels=f"{INSTANCE}={name}",
            seconds=min(LOOK_SECONDS, max(left, 1.0)),
            resource_version=version,
        ):
            break  # something has changed: look


def _cause(api: Api, name: str, pod: Manifest | None) -> tuple[str, str, bool]:
    """What the pod waits for, what to do about it, and whether waiting hardly helps."""
    from orchestrator.k8s.watching.creation import creation_troubles
    from orchestrator.k8s.watching.observed import Picture
    from orchestrator.k8s.watching.picture import events_of
    from orchestrator.k8s.watching.troubles import ordered, pod_troubles

    events = []
    with contextlib.suppress(ForbiddenError):
        for about in (name, *([pod["metadata"]["name"]] if pod else [])):
            events += api.list("Event", fields=f"involvedObject.name={about}")
    picture = Picture(
        sweep="",
        name=name,
        namespace=api.namespace,
        now=datetime.now(UTC),
        submitters=(pod,) if pod else (),
        events=events_of(events, name),
    )
    found = ordered([*(creation_troubles(picture.events) if pod is None else ()), *pod_troubles(picture)])
    if found:
        first = found[0]
        # It is told as the pod of a Job like the submitter's is, but it is placed where the head would be.
        text, remedy = first.line.replace("submitter", "reader"), first.remedy.replace("workers.", "head.")
        return text, f"To mend it: {remedy}", first.kind in HOPELESS
    if pod is None:
        job = api.get("Job", name) or {}
        if (job.get("spec") or {}).get("suspend"):
            suspended = (
                f"its Job is suspended, by Kueue perhaps: kubectl label job {name} -n {api.namespace} {QUEUE}=<queue> "
                "puts it into a queue"
            )
            return suspended, f"See kubectl describe job {name} -n {api.namespace}", False
        return "it is being made", "Try again; bo-sweep k8s doctor looks at the cluster", False
    waiting = [state["waiting"] for state in _states(pod) if "waiting" in state]
    reason = next((str(each["reason"]) for each in waiting if each.get("reason")), _phase(pod))
    words = {"ContainerCreating": "its image is pulled and its claim mounted", "Pending": "a node is chosen"}
    return (
        words.get(reason, reason),
        f"kubectl describe pod {pod['metadata']['name']} -n {api.namespace} tells more",
        False,
    )


def _phase(pod: Manifest) -> str:
    return str((pod.get("status") or {}).get("phase") or "Pending")


def _states(pod: Manifest) -> list[Manifest]:
    return [each.get("state") or {} for each in (pod.get("status") or {}).get("containerStatuses") or []]


def _is_up(pod: Manifest) -> bool:
    states = _states(pod)
    return bool(states) and all("running" in state for state in states)


def _end_of(pod: Manifest) -> str:
    status = pod.get("status") or {}
    for state in _states(pod):
        if "terminated" in state:
            ended = state["terminated"]
            lines = str(ended.get("message") or "").strip().splitlines()
            said = lines[-1] if lines else str(ended.get("reason") or "it said nothing")
            return f"{said} (exit code {ended.get('exitCode')})"
    return str(status.get("message") or status.get("reason") or "the cluster does not say why")
