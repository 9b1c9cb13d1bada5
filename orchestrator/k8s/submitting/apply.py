"""Bringing manifests into a cluster: all as a dry run first, so that nothing is created where anything is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from orchestrator.k8s.client.api import Api
from orchestrator.k8s.client.errors import (
    SETUP_REMEDY,
    ClusterError,
    ConflictError,
    ForbiddenError,
    NoNamespaceError,
    NotFoundError,
    RejectedError,
)

Manifest = dict[str, Any]

RIGHTS = ("Role", "RoleBinding")
"""Of the setup only what gives rights: who could come this far has them already."""
CLAIM = "PersistentVolumeClaim"


def apply_setup(api: Api, setup: Sequence[Manifest], *, dry_run: bool) -> list[str]:
    """Bring what the namespace needs once; returns notes on what was left as it is.

    A claim that is there is never touched. What an administrator has set up and the user may not change stays.

    Raises:
        ClusterError: something is missing and cannot be brought; one message for all of it.
    """
    notes, problems = [], []
    for manifest in setup:
        note, problem = _apply_one(api, manifest, dry_run)
        notes += [note] if note else []
        problems += [problem] if problem else []
    if problems:
        raise RejectedError(several("the namespace is not set up", problems))
    return notes


def apply_job(api: Api, job: Sequence[Manifest]) -> Manifest:
    """Bring the ConfigMap and the RayJob of a launch, in this order; returns the RayJob.

    The ConfigMap then belongs to the RayJob and goes with it. Where the RayJob cannot be brought, the ConfigMap is
    removed again.

    Raises:
        ClusterError: refused, or no answer came and it cannot be seen whether the RayJob is there.
    """
    config, rayjob = job
    try:
        api.apply(config)
        made = api.apply(rayjob)
    except BaseException as error:
        found = _undo(api, config, rayjob["metadata"]["name"])
        if found is None or not isinstance(error, ClusterError):
            raise
        return found  # only the answer was lost
    give_to(api, config, made)
    return made


def _undo(api: Api, config: Manifest, name: str) -> Manifest | None:
    """Remove the ConfigMap again, unless the RayJob is there, which is returned then. As far as the cluster answers."""
    with contextlib.suppress(ClusterError):
        found = api.get("RayJob", name)
        if found is None:
            api.delete("ConfigMap", config["metadata"]["name"])
            found = api.get("RayJob", name)  # a request that we gave up may have been carried out meanwhile
        if found is not None:
            give_to(api, config, found)
        return found
    return None


def dry_run(api: Api, manifests: Sequence[Manifest]) -> None:
    """Have the server judge manifests without keeping them. Raises ClusterError with the problems of all."""
    problems: list[str] = []
    for manifest in manifests:
        try:
            api.apply(manifest, dry_run=True)
        except NotFoundError:
            raise  # neither its kind nor its namespace is there: it is the same for all
        except (ForbiddenError, RejectedError, ConflictError) as error:
            problems.append(str(error))
    if problems:
        raise RejectedError(several("the cluster would refuse the job", problems))


def give_to(api: Api, config: Manifest, rayjob: Manifest) -> None:
    """Let a ConfigMap be deleted with its RayJob. Where this fails it only stays longer."""
    metadata = rayjob["metadata"]
    owner = {
        "apiVersion": rayjob["apiVersion"],
        "kind": rayjob["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
    with contextlib.suppress(ClusterError):
        api.apply({**config, "metadata": {**config["metadata"], "ownerReferences": [owner]}})


def several(title: str, problems: Sequence[str]) -> str:
    """One message for all problems."""
    if len(problems) == 1:
        return problems[0]
    return f"{title}: {len(problems)} problems\n" + "\n".join(f"  - {problem}" for problem in problems)


def _apply_one(api: Api, manifest: Manifest, dry_run: bool) -> tuple[str, str]:
    """A note and a problem, each perhaps empty."""
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    there = _is_there(api, kind, name)
    if kind == CLAIM and there:
        return "", ""
    try:
        api.apply(manifest, dry_run=dry_run)
    except ForbiddenError:
        if there:
            return f"{kind} {name} is there and stays as it is: you have no right to change it", ""
        if there is None:
            return f"{kind} {name}: you have no right to see whether it is there, nor to make it", ""
        if kind in RIGHTS:
            return f"{kind} {name} is not there, and you may not make it; your rights come from elsewhere", ""
        return "", f"{kind} {name} is missing, and you may not make it; {SETUP_REMEDY}"
    except ConflictError as error:
        if there:
            return f"{kind} {name} stays as it is: {error}", ""
        return "", str(error)
    except NoNamespaceError:
        raise  # it is the same for all
    except NotFoundError as error:
        return "", f"{kind} {name}: {error}" + (
            ". Without the Prometheus operator set pod_monitor: false" if kind == "PodMonitor" else ""
        )
    except RejectedError as error:
        return "", str(error)
    return "", ""


def _is_there(api: Api, kind: str, name: str) -> bool | None:
    """None where the user may not look."""
    try:
        return api.get(kind, name) is not None
    except ForbiddenError:
        return None
    except NotFoundError:
        return False
