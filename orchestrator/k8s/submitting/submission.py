"""Submitting a sweep: attach to what runs, refuse what contradicts it, and leave alone what is complete."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.k8s.client.api import Api
from orchestrator.k8s.client.errors import ClusterError, ConflictError, ForbiddenError, NotFoundError
from orchestrator.k8s.names import of_sweep
from orchestrator.k8s.submitting.apply import apply_job, apply_setup, dry_run, give_to
from orchestrator.k8s.submitting.differences import differences
from orchestrator.k8s.submitting.waiting import end_of, state_in_words
from orchestrator.stops import Interrupted

if TYPE_CHECKING:
    from orchestrator.k8s.rendering.manifests import Manifests

Manifest = dict[str, Any]
State = Literal["created", "attached", "replaced", "complete"]
DELETION_SECONDS = 180.0
TELL_SECONDS = 3.0
"""A wait that is shorter needs no words."""


class OtherJobError(ClusterError):
    """Another job of the same sweep has not ended."""


@dataclass(frozen=True)
class Submitted:
    """What became of a launch.

    Attributes:
        name: of the RayJob.
        state: "created"; "attached" to the same one, which has not ended; "replaced" one that has ended, to go on from
            storage; "complete" where the ledger has all runs, and nothing was submitted.
        notes: what is worth knowing.
    """

    name: str
    state: State
    notes: tuple[str, ...] = ()


def submit(
    api: Api,
    manifests: Manifests,
    *,
    ledger_complete: Callable[[], bool | None] = lambda: None,
    check: Callable[[], list[str]] = list,
    tell: Callable[[str], object] = lambda words: None,
    only_try: bool = False,
    sleep: Callable[[float], object] = time.sleep,
) -> Submitted:
    """Submit a rendered launch, or find that it is not needed.

    A RayJob that has ended never runs again, so one of the same name is deleted and made anew unless the ledger is
    complete. Nothing is created before everything has passed `check` and the server's own dry run.

    Args:
        ledger_complete: whether storage has all runs; None where it cannot be read from here.
        check: called before anything is created; gives notes, and raises what preflight raises.
        tell: gets words for the user when it takes time.
        only_try: do everything but write (--dry-run=server).

    Raises:
        OtherJobError: another job of this sweep has not ended.
        ClusterError: the cluster refuses it, or cannot be reached.
        ValueError: from `check`.
        Interrupted: by Ctrl-C in the midst of writing; the message says what is in the cluster now.
    """
    config, rayjob = manifests.job
    there = _look(api, manifests, check)
    if there is not None and _goes_on(there):
        return _attached(api, config, there, only_try=only_try)
    notes = tuple(check())  # before the ledger, which may be read through a pod
    if ledger_complete():
        return Submitted(manifests.name, "complete", ("the ledger has all runs: nothing to submit",))
    # A server that has the ConfigMap of an ended job accepts the same again: one dry run serves both cases.
    setup_notes = apply_setup(api, manifests.setup, dry_run=True)
    dry_run(api, manifests.job if there is None else [config])
    if there is not None and not _is_leaving(there):
        with contextlib.suppress(ConflictError):  # another launch has just put one in its place
            api.delete("RayJob", manifests.name, uid=there["metadata"]["uid"], dry_run=True)
    if not only_try:
        try:
            apply_setup(api, manifests.setup, dry_run=False)
            if there is not None and (new := _clear(api, there, tell, sleep)) is not None:
                return _attached(api, config, new)
            made = apply_job(api, (config, rayjob))
            _give_way(api, manifests, made)
        except KeyboardInterrupt as error:
            raise Interrupted(_left(api, manifests.name, there)) from error
    return Submitted(manifests.name, "created" if there is None else "replaced", (*notes, *setup_notes))


def _look(api: Api, manifests: Manifests, check: Callable[[], list[str]]) -> Manifest | None:
    """The RayJob of this name, if there is one. Raises OtherJobError for another of its sweep that has not ended."""
    try:
        there = api.get("RayJob", manifests.name)
        others = api.list("RayJob", labels=of_sweep(manifests.sweep))
    except (ForbiddenError, NotFoundError):
        check()  # tells all that is wrong, where this tells the first
        raise
    for other in others:
        if other["metadata"]["name"] != manifests.name and end_of(other) is None:
            raise OtherJobError(_told(api, other, manifests))
    return there


def _attached(api: Api, config: Manifest, rayjob: Manifest, *, only_try: bool = False) -> Submitted:
    name = rayjob["metadata"]["name"]
    if not only_try:
        _own(api, config, rayjob)
    return Submitted(name, "attached", (f"{name} is already submitted: {state_in_words(rayjob)}",))


def _give_way(api: Api, manifests: Manifests, made: Manifest) -> None:
    """Withdraw a RayJob that was submitted while another of its sweep was, a moment before. Raises OtherJobError.

    Both had looked before either was there. Of two that the server took within the same second the order of names
    decides, so that never both go.
    """

    def age(rayjob: Manifest) -> tuple[str, str]:
        return rayjob["metadata"]["creationTimestamp"], rayjob["metadata"]["name"]

    try:
        others = api.list("RayJob", labels=of_sweep(manifests.sweep))
    except ClusterError:
        return  # it is submitted; the ledger's lease keeps two launches apart
    for other in others:
        if other["metadata"]["uid"] != made["metadata"]["uid"] and _goes_on(other) and age(other) < age(made):
            api.delete("RayJob", manifests.name, uid=made["metadata"]["uid"])
            api.delete("ConfigMap", manifests.name)
            raise OtherJobError(_told(api, other, manifests))


def _left(api: Api, name: str, before: Manifest | None) -> str:
    """What Ctrl-C in the midst of writing has left."""
    try:
        there = api.get("RayJob", name)
    except ClusterError as error:
        return f"whether {name} was submitted is not known ({error})"
    old = before["metadata"]["uid"] if before else None
    if there is not None and there["metadata"]["uid"] != old:
        return f"{name} was submitted already, and goes on"
    gone = ", and what had ended was deleted; results stay" if old and there is None else ""
    return f"{name} was not submitted{gone}"


def _told(api: Api, other: Manifest, manifests: Manifests) -> str:
    name = other["metadata"]["name"]
    if _is_leaving(other):
        return f"{name} of the same sweep is being deleted; launch again when it is gone (kubectl get rayjobs)"
    try:
        its_config = api.get("ConfigMap", name)
    except ClusterError:
        its_config = None
    config, rayjob = manifests.job
    told = differences(other, rayjob, its_config, config)
    what = f" with other settings ({'; '.join(told)})" if told else ""
    return (
        f"sweep {manifests.sweep} is already submitted as {name}{what}: {state_in_words(other)}. Two jobs must not run "
        f"one sweep: end it first (bo-sweep k8s stop {manifests.sweep}), or give this one another --name"
    )


def _own(api: Api, config: Manifest, rayjob: Manifest) -> None:
    """Repair what a launch that was killed in its midst has left: a ConfigMap without owner."""
    try:
        there = api.get("ConfigMap", config["metadata"]["name"])
    except ClusterError:
        return
    if there is None or not there["metadata"].get("ownerReferences"):
        give_to(api, config, rayjob)


def _is_leaving(rayjob: Manifest) -> bool:
    return bool(rayjob["metadata"].get("deletionTimestamp"))


def _goes_on(rayjob: Manifest) -> bool:
    return end_of(rayjob) is None and not _is_leaving(rayjob)


def _clear(
    api: Api, rayjob: Manifest, tell: Callable[[str], object], sleep: Callable[[float], object]
) -> Manifest | None:
    """Delete an ended RayJob and its ConfigMap, and wait until both are gone.

    The ConfigMap is deleted too: what is applied over one that is still to be collected would go with it. Returns the
    RayJob that another launch has put in their place meanwhile, if one has.
    """
    name, uid = rayjob["metadata"]["name"], rayjob["metadata"]["uid"]
    config = api.get("ConfigMap", name)
    if not _is_leaving(rayjob):
        with contextlib.suppress(ConflictError):
            api.delete("RayJob", name, propagation="Foreground", uid=uid)
    waited = 0.0
    while (there := api.get("RayJob", name)) is not None and there["metadata"]["uid"] == uid:
        if waited >= DELETION_SECONDS:
            raise ClusterError(
                f"{name} has ended and was deleted, but is still there after {DELETION_SECONDS:.0f} s: its finalizer "
                "is not taken off, so the KubeRay operator is probably not running. See bo-sweep k8s doctor"
            )
        if waited == TELL_SECONDS:
            tell(f"waiting until {name}, which has ended, is deleted with its pods")
        sleep(1.0)
        waited += 1.0
    if there is None and config is not None:
        with contextlib.suppress(ConflictError):
            api.delete("ConfigMap", name, uid=config["metadata"]["uid"])
    return there
