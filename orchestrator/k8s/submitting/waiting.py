"""Following a RayJob to its end, through broken connections and restarts of the server."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.k8s.client.api import Api
from orchestrator.k8s.client.errors import ClusterError, ForbiddenError, NotFoundError
from orchestrator.k8s.watching.patience import REFUSED_SECONDS

Manifest = dict[str, Any]
WATCH_SECONDS = 60.0
PATIENCE_SECONDS = 600.0
"""How long a server may be away."""


@dataclass(frozen=True)
class End:
    """How a RayJob has ended; `reason` and `message` are KubeRay's, perhaps empty."""

    state: Literal["succeeded", "failed", "stopped", "deleted"]
    reason: str = ""
    message: str = ""


def end_of(rayjob: Manifest) -> End | None:
    """How it has ended; None where it has not. A job that was stopped has not succeeded."""
    status = rayjob.get("status") or {}
    deployment, job = status.get("jobDeploymentStatus") or "", status.get("jobStatus") or ""
    reason, message = status.get("reason") or "", status.get("message") or ""
    if deployment in ("Failed", "ValidationFailed"):
        return End("failed", reason or deployment, message)
    if deployment != "Complete":
        return None
    if job == "STOPPED":
        return End("stopped", reason, message)
    return End("succeeded" if job == "SUCCEEDED" else "failed", reason, message)


def state_in_words(rayjob: Manifest) -> str:
    """Its state, briefly: `bo-sweep k8s status` tells more."""
    status = rayjob.get("status") or {}
    state = status.get("jobDeploymentStatus") or ""
    if state == "Running" and status.get("jobStatus") in (None, "", "PENDING"):
        return "its pods run, and it is being submitted to Ray"
    words = {
        "": "KubeRay has not looked at it yet",
        "Initializing": "its pods are being started",
        "Waiting": "it waits to be submitted to Ray",
        "Running": "it runs",
        "Retrying": "an attempt failed, the next one comes",
        "Suspending": "it is being held back",
        "Suspended": "it waits in its queue",
        "Complete": "it has ended",
        "Failed": "it has failed",
        "ValidationFailed": "KubeRay refuses it",
    }
    return words.get(state, state)


def wait(
    api: Api,
    name: str,
    on_change: Callable[[Manifest], object] = lambda _: None,
    *,
    patience_seconds: float = PATIENCE_SECONDS,
    refused_seconds: float = REFUSED_SECONDS,
    sleep: Callable[[float], object] = time.sleep,
) -> End:
    """Follow a RayJob until it has ended; `on_change` gets it at first and whenever its state differs.

    Broken connections and a server that is away for up to `patience_seconds` are waited out, and refusals after the
    first look for up to `refused_seconds`; KeyboardInterrupt passes through, and the job goes on.

    Raises:
        NotFoundError: there is no such job.
        ClusterError: the server is away for longer, or does not let the user look any more.
    """
    follower = _Follower(api, name, on_change)
    away_since: float | None = None
    while True:
        try:
            end = follower.look()
            if end is None:
                end = follower.watch()
            if end is not None:
                return end
            away_since = None
        except ClusterError as error:
            now = time.monotonic()
            away_since = away_since or now
            patience = patience_seconds
            if isinstance(error, (ForbiddenError, NotFoundError)):
                patience = refused_seconds if follower.has_looked else 0.0
            if error.code in (400, 401, 422) or now - away_since >= patience:
                raise
        sleep(1.0)  # a server that closes every watch at once is not to be asked without pause


class _Follower:
    """What is known of one RayJob."""

    def __init__(self, api: Api, name: str, on_change: Callable[[Manifest], object]) -> None:
        self._api, self._name, self._on_change = api, name, on_change
        self._uid: str | None = None
        self._version = ""
        self._told: tuple[Any, ...] | None = None

    @property
    def has_looked(self) -> bool:
        return self._uid is not None

    def look(self) -> End | None:
        """Read it, as a list of one: its own version may be too old to watch from, that of the list never is."""
        listed, self._version = self._api.list_at("RayJob", fields=f"metadata.name={self._name}")
        found = listed[0] if listed else None
        if found is None and not self.has_looked:
            raise NotFoundError(
                f"there is no RayJob {self._name!r} in the namespace {self._api.namespace!r}",
                code=404,
                reason="NotFound",
            )
        return self._take("DELETED" if found is None else "MODIFIED", found or {})

    def watch(self) -> End | None:
        """Follow it for a while, from what was read last."""
        for kind, found in self._api.watch(
            "RayJob", name=self._name, seconds=WATCH_SECONDS, resource_version=self._version
        ):
            if (end := self._take(kind, found)) is not None:
                return end
        return None

    def _take(self, kind: str, found: Manifest) -> End | None:
        metadata = found.get("metadata") or {}
        uid = metadata.get("uid")
        if kind == "DELETED" or (self._uid is not None and uid != self._uid):
            # Another one of the same name is not the one that was waited for.
            return end_of(found) or End("deleted") if kind == "DELETED" else End("deleted")
        self._uid = uid
        status = found.get("status") or {}
        state = tuple(status.get(key) for key in ("jobDeploymentStatus", "jobStatus", "reason", "message", "failed"))
        if state != self._told:
            self._told = state
            self._on_change(found)
        return end_of(found)
