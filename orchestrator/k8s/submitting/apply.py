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
OF_PODS = "automountServiceAccountToken"
"""Of an account, which others may use too; our pods say it themselves."""


def apply_setup(api: Api, setup: Sequence[Manifest], *, dry_run: bool) -> list[str]:
    """Bring what the namespace lacks of what it needs once; returns notes.

    What is there is never changed: others use it too, whose profiles may say otherwise. A note tells where it lacks
    something that this profile asks for.

    Raises:
        ClusterError: something is missing and cannot be brought; one message for all of it.
    """
    notes, problems, otherwise = [], [], []
    for manifest in setup:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        there, seen = _look(api, kind, name)
        if there is not None:
            fields = [] if kind == CLAIM else lacking(there, _content(manifest))
            otherwise += [f"{kind} {name} ({', '.join(fields)})"] if fields else []
            continue
        note, problem = _apply_one(api, manifest, dry_run, seen=seen)
        notes += [note] if note else []
        problems += [problem] if problem else []
    if problems:
        raise RejectedError(several("the namespace is not set up", problems))
    if otherwise:
        notes.append(
            f"the namespace is set up otherwise than this profile says, and stays so: {', '.join(otherwise)}. An "
            "administrator changes it, for all who use it: bo-sweep k8s render SPACE --only setup | kubectl apply -f -"
        )
    return notes


def lacking(there: Any, wanted: Any, path: str = "") -> list[str]:
    """Fields in which an object has not what is wanted. It may have more, and lists may have more items."""
    if isinstance(wanted, dict):
        has = there if isinstance(there, dict) else {}
        return [
            field
            for key, value in wanted.items()
            for field in lacking(has.get(key), value, f"{path}.{key}" if path else key)
        ]
    if isinstance(wanted, list):
        return [] if isinstance(there, list) and all(item in there for item in wanted) else [path]
    return [] if there == wanted else [path]


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


def _content(manifest: Manifest) -> Manifest:
    """What it says, apart from what it is called."""
    annotations = manifest["metadata"].get("annotations") or {}
    names = ("apiVersion", "kind", "metadata", OF_PODS)
    return {"metadata": {"annotations": annotations}} | {k: v for k, v in manifest.items() if k not in names}


def _apply_one(api: Api, manifest: Manifest, dry_run: bool, *, seen: bool) -> tuple[str, str]:
    """A note and a problem, each perhaps empty; `seen`: it is known that it is not there."""
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    try:
        api.apply(manifest, dry_run=dry_run)
    except ForbiddenError:
        if not seen:
            return f"{kind} {name}: you have no right to see whether it is there, nor to make it", ""
        if kind in RIGHTS:
            return f"{kind} {name} is not there, and you may not make it; your rights come from elsewhere", ""
        return "", f"{kind} {name} is missing, and you may not make it; {SETUP_REMEDY}"
    except NoNamespaceError:
        raise  # it is the same for all
    except NotFoundError as error:
        return "", f"{kind} {name}: {error}" + (
            ". Without the Prometheus operator set pod_monitor: false" if kind == "PodMonitor" else ""
        )
    except (ConflictError, RejectedError) as error:
        return "", str(error)
    return "", ""


def _look(api: Api, kind: str, name: str) -> tuple[Manifest | None, bool]:
    """What is there, and whether the user may look."""
    try:
        return api.get(kind, name), True
    except ForbiddenError:
        return None, False
    except NotFoundError:
        return None, True
