"""What keeps the containers of a pod from running, or ended them, in plain words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from orchestrator.k8s.watching.lost_pods import GOES_ON
from orchestrator.k8s.watching.observed import Event, Manifest, time_of
from orchestrator.k8s.watching.trouble import Trouble

PULL_REASONS = (
    *("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"),
    *("ImageInspectError", "SignatureValidationFailed"),
)
NOT_YET = ("CrashLoopBackOff", "ContainerCreating", "PodInitializing", "")
"""Reasons to wait that tell nothing by themselves."""
SIGNALS = {137: "was killed (SIGKILL)", 139: "crashed (SIGSEGV)", 134: "aborted (SIGABRT)"}

UNREACHED = (
    *("no such host", "timeout", "deadline exceeded", "connection refused", "connection reset", "no route to host"),
    *("network is unreachable", "server misbehaving", "x509"),
)
"""Words of a node that does not come through to a registry."""


def container_troubles(
    pod: Manifest, role: str, events: list[Event], now: datetime, recent: timedelta
) -> Iterator[Trouble]:
    """Of the containers that wait, or that ended badly less than `recent` ago or are down since."""
    status = pod.get("status") or {}
    limits = {
        container.get("name"): ((container.get("resources") or {}).get("limits") or {}).get("memory", "")
        for container in (pod.get("spec") or {}).get("containers") or []
    }
    before = status.get("initContainerStatuses") or []
    for container in [*before, *(status.get("containerStatuses") or [])]:
        name = container.get("name") or ""
        state, last = container.get("state") or {}, container.get("lastState") or {}
        waiting = state.get("waiting") or {}
        ended = state.get("terminated") or last.get("terminated") or {}
        if waiting and (waiting.get("reason") or "") not in NOT_YET:
            yield _waiting(role, container, waiting, events)
            continue
        finished = time_of(ended.get("finishedAt"))
        is_down = bool(state.get("terminated") or waiting.get("reason") == "CrashLoopBackOff")
        counts = is_down or (finished is not None and now - finished < recent)
        if counts and (trouble := ended_badly(role, name, ended, limits.get(name, ""))) is not None:
            yield trouble if container not in before else replace(trouble, remedy=_init_remedy(role, name))


def ended_badly(role: str, container: str, ended: Manifest, limit: str = "") -> Trouble | None:
    """Why a container ended, by its `terminated` state; None where it ended well or was asked to."""
    code, reason = ended.get("exitCode"), ended.get("reason") or ""
    part = "head" if role == "head" else "workers"
    if reason == "OOMKilled":
        of = f" ({limit})" if limit else ""
        remedy = (
            "raise workers.memory in the profile, or let fewer processes share a node (workers.cpus, --workers)"
            if role == "worker"
            else f"raise {part}.memory in the profile"
        )
        return Trouble("memory", role, f"the {role} used more memory than its limit{of} and was killed", remedy)
    if not code or code == 143:
        return None
    if reason == "ContainerStatusUnknown":
        text = f"the node of the {role} lost its container, as nodes do that start anew"
        return Trouble("lost", role, text, GOES_ON)
    if reason in ("ContainerCannotRun", "StartError"):
        return _cannot_start(role, ended.get("message") or "")
    how = SIGNALS.get(int(code), f"ended with exit code {code}")
    said = _last_line(ended.get("message") or "")
    text = f"the container {container!r} of the {role} {how}{f': {said}' if said else ''}"
    return Trouble("crash", role, text, f"bo-sweep k8s logs SWEEP --node {role} shows its last lines")


def pull_trouble(role: str, image: str, message: str) -> Trouble:
    """Why an image cannot be pulled, by what the node says of it."""
    text, words = f"the image {image} of the {role} cannot be pulled", message.lower()
    if "toomanyrequests" in words or "too many requests" in words or "rate limit" in words:
        why, remedy = "the registry limits pulls", "wait, use image_pull_secrets, or a registry of your own"
    elif "does not exist or may require" in words:
        why = "the registry does not have it, or does not let us in"
        remedy = "correct `image` in the profile, or name a pull secret of the namespace in image_pull_secrets"
    elif "unauthorized" in words or "denied" in words or "authentication required" in words or "forbidden" in words:
        why, remedy = "the registry does not let us in", "name a pull secret of the namespace in image_pull_secrets"
    elif "not found" in words or "manifest unknown" in words or "does not exist" in words:
        why, remedy = "the registry does not have it", "push it (make image), or correct `image` in the profile"
    elif "no match for platform" in words or "exec format" in words:
        why, remedy = "it is not made for the node's processor", "build it for linux/amd64 or for what the nodes are"
    elif "invalidimagename" in words or "invalid reference" in words or "couldn't parse image" in words:
        why, remedy = "its name is malformed", "correct `image` in the profile"
    elif any(sign in words for sign in UNREACHED):
        why, remedy = (
            "the node does not reach the registry",
            "an administrator checks the node's network and certificates",
        )
    elif "no space left" in words:
        why, remedy = "the node's disk is full", "an administrator frees it, or choose other nodes"
    else:
        why, remedy = _last_part(message) or "the node does not say why", "kubectl describe pod tells more"
    return Trouble("image", role, f"{text}: {why}", remedy)


def not_started(role: str, message: str) -> Trouble:
    """Why a container was not started, by the node's event of it: what it refers to, or its command."""
    what_it_needs = ("not found", "couldn't find key", "runAsNonRoot", "failed to sync")
    if any(words in message for words in what_it_needs) and "exec" not in message and "OCI runtime" not in message:
        return _config(role, message)
    return _cannot_start(role, message)


def _waiting(role: str, container: Manifest, waiting: Manifest, events: list[Event]) -> Trouble:
    reason, message = waiting.get("reason") or "", waiting.get("message") or ""
    if reason in PULL_REASONS:
        told = [event.message for event in events if event.reason == "Failed" and "pull" in event.message]
        return pull_trouble(role, container.get("image") or "", f"{reason}: {message} {told[-1] if told else ''}")
    if reason == "CreateContainerConfigError":
        return _config(role, message)
    if reason in ("CreateContainerError", "RunContainerError"):
        return _cannot_start(role, message)
    text = f"the {role} waits: {reason}{f' ({_last_line(message)})' if message else ''}"
    return Trouble("start", role, text, "kubectl describe pod tells more")


def _init_remedy(role: str, container: str) -> str:
    """Logs of containers that run before Ray's are not among those that `bo-sweep k8s logs` shows."""
    return (
        f"kubectl logs -l app.kubernetes.io/instance=SWEEP,ray.io/node-type={role} -c {container} --tail 20 "
        "shows its last lines"
    )


def _config(role: str, message: str) -> Trouble:
    remedy = "create it in the namespace, or correct its name in the profile (results.secret, wandb)"
    if (missing := re.search(r"(secret|configmap) \"([^\"]+)\" not found", message)) is not None:
        thing = {"secret": "the secret", "configmap": "the config map"}[missing[1]]
        return Trouble("config", role, f"the {role} needs {thing} {missing[2]!r}, which is not there", remedy)
    if (key := re.search(r"couldn't find key (\S+) in (Secret|ConfigMap) (\S+)", message)) is not None:
        name = key[3].rpartition("/")[2]
        text = f"the {role} needs the key {key[1]!r} of the {key[2].lower()} {name!r}, which has no such key"
        return Trouble("config", role, text, "add the key, or correct the key in the profile (wandb.key)")
    if "runAsNonRoot" in message:
        text = f"the image of the {role} would run as root, which is not allowed"
        return Trouble("config", role, text, "use the image that `make image` builds: it has a user of its own")
    return Trouble("config", role, f"the {role} cannot be configured: {message}", "kubectl describe pod tells more")


def _cannot_start(role: str, message: str) -> Trouble:
    if "not found" in message or "no such file" in message:
        text = f"the image of the {role} lacks what it is to run: {_last_part(message)}"
        return Trouble("start", role, text, "use an image that `make image` builds: it needs bash, python and ray")
    return Trouble(
        "start", role, f"the {role} cannot be started: {_last_part(message)}", "kubectl describe pod tells more"
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def _last_part(message: str) -> str:
    """The end of a chain of errors, which tells the most. Runtimes end it with a code that they do not know."""
    parts = " ".join(message.split()).removesuffix(": unknown")[-300:].split(": ")
    return ": ".join(parts[-2:]).strip()
