"""What must be right in a cluster before a sweep is submitted: all problems at once, before anything is created."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from orchestrator.k8s.client.api import Api
from orchestrator.k8s.client.errors import (
    KUBERAY_REMEDY,
    SETUP_REMEDY,
    ClusterError,
    ForbiddenError,
    NotFoundError,
    no_namespace,
)
from orchestrator.k8s.client.resources import KUEUE, resource_type
from orchestrator.k8s.profile import ClusterProfile
from orchestrator.k8s.submitting.apply import several
from orchestrator.k8s.submitting.node_check import check_nodes

NEEDED = {
    "RayJob": ("get", "list", "create", "patch"),
    "ConfigMap": ("get", "create", "patch", "delete"),
}
S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
PULL_TYPES = ("kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg")
POD_SECURITY = "pod-security.kubernetes.io/enforce"


class Findings:
    """What the checks have found so far.

    Attributes:
        problems: of the cluster or its namespace.
        mistakes: of the profile, which names what the cluster does not have.
        notes: what could not be checked, or is not wrong but worth knowing.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.mistakes: list[str] = []
        self.notes: list[str] = []

    def raise_or_notes(self) -> list[str]:
        """The notes. Raises ClusterError where the cluster has a problem, else ValueError for a mistake."""
        told = several("this cluster cannot run the sweep", self.problems + self.mistakes)
        if self.problems:
            raise ClusterError(told)
        if self.mistakes:
            raise ValueError(told)
        return self.notes


def preflight(api: Api, profile: ClusterProfile) -> list[str]:
    """Look at everything that a sweep of this profile needs, changing nothing; returns notes.

    What the user has no right to see is a note, not a problem.

    Raises:
        ClusterError: KubeRay, rights, the namespace, secrets, claims, the queue or the priority class are missing, or
            Pod Security forbids what the profile asks for.
        ValueError: only the profile is wrong: no node has the GPU that it names.
    """
    findings = Findings()
    with contextlib.suppress(ForbiddenError):  # then the server's dry run will tell
        if not api.serves("RayJob"):
            findings.problems.append(KUBERAY_REMEDY)
    if _namespace(api, profile, findings):
        _rights(api, findings)
        for check in (_secrets, _claims, _queue):
            check(api, profile, findings)
    _priority_class(api, profile, findings)
    check_nodes(api, profile, findings.mistakes, findings.notes)
    return findings.raise_or_notes()


def _namespace(api: Api, profile: ClusterProfile, findings: Findings) -> bool:
    """Whether there may be such a namespace."""
    try:
        found = api.get("Namespace", api.namespace)
    except ForbiddenError:  # usual for researchers; the server's dry run will tell
        if profile.data and profile.data.host_path:
            findings.notes.append(
                "you may not read the namespace: whether its Pod Security allows data.host_path was not checked"
            )
        return True
    if found is None:
        findings.problems.append(no_namespace(api.namespace))
        return False
    level = (found["metadata"].get("labels") or {}).get(POD_SECURITY)
    if level in ("baseline", "restricted") and profile.data and profile.data.host_path:
        findings.problems.append(
            f"the namespace {api.namespace!r} enforces Pod Security {level!r}, which forbids data.host_path: put the "
            "data set into a claim (data.claim)"
        )
    return True


def _rights(api: Api, findings: Findings) -> None:
    try:
        denied = [
            f"{verb} {resource.full_name}"
            for kind, verbs in NEEDED.items()
            for resource in (resource_type(kind),)
            for verb in verbs
            if not api.allowed(verb, resource.plural, group=resource.group)
        ]
    except (ForbiddenError, NotFoundError):
        findings.notes.append("this cluster does not tell you your rights: they show when each is used")
        return
    if denied:
        findings.problems.append(f"you may not {', '.join(denied)} in the namespace {api.namespace!r}; {SETUP_REMEDY}")


def _secrets(api: Api, profile: ClusterProfile, findings: Findings) -> None:
    for name in profile.image_pull_secrets:
        _secret(api, findings, name, "image_pull_secrets", _pull_problem)
    if profile.results.secret:
        s3 = (profile.results.url or "").startswith("s3://")
        _secret(
            api,
            findings,
            profile.results.secret,
            "results.secret",
            lambda found: _lacking(found, S3_KEYS if s3 else ()),
        )
    if profile.wandb:
        key = profile.wandb.key
        _secret(api, findings, profile.wandb.secret, "wandb.secret", lambda found: _lacking(found, (key,)))


def _secret(
    api: Api, findings: Findings, name: str, field: str, problem_of: Callable[[dict[str, object]], str]
) -> None:
    try:
        found = api.get("Secret", name)
    except ForbiddenError:
        findings.notes.append(f"you may not read secrets: whether {name!r} ({field}) is there was not checked")
        return
    if found is None:
        findings.problems.append(
            f"there is no secret {name!r} ({field}) in the namespace {api.namespace!r}; make it: "
            f"kubectl create secret {'docker-registry' if field == 'image_pull_secrets' else 'generic'} {name} "
            f"--namespace {api.namespace} ..."
        )
    elif problem := problem_of(found):
        findings.problems.append(f"the secret {name!r} ({field}) {problem}")


def _lacking(secret: dict[str, object], keys: tuple[str, ...]) -> str:
    data = secret.get("data")
    there = sorted(data) if isinstance(data, dict) else []
    lacking = [key for key in keys if key not in there]
    return f"lacks {', '.join(lacking)}; it has {', '.join(there) or 'nothing'}" if lacking else ""


def _pull_problem(secret: dict[str, object]) -> str:
    if secret.get("type") in PULL_TYPES:
        return ""
    return f"is of type {secret.get('type')}, which pulls no images; make one: kubectl create secret docker-registry"


def _claims(api: Api, profile: ClusterProfile, findings: Findings) -> None:
    results, data = profile.results, profile.data
    wanted = [(results.claim, "results.claim", results.size is not None)] if results.claim else []
    wanted += [(data.claim, "data.claim", False)] if data and data.claim else []
    for name, field, is_made in wanted:
        try:
            found = api.get("PersistentVolumeClaim", name)
        except ForbiddenError:
            findings.notes.append(f"you may not read claims: whether {name!r} ({field}) is there was not checked")
            continue
        if found is None:
            advice = ", or give results.size and it is made" if field == "results.claim" else ""
            if not is_made:
                findings.problems.append(
                    f"there is no claim {name!r} ({field}) in the namespace {api.namespace!r}; make it{advice}"
                )
        elif (found.get("status") or {}).get("phase") == "Lost":
            findings.problems.append(
                f"the claim {name!r} ({field}) has lost its volume; an administrator must look at it"
            )
        elif field == "results.claim" and "ReadWriteMany" not in (found["spec"].get("accessModes") or []):
            findings.notes.append(
                f"the claim {name!r} (results.claim) is not ReadWriteMany: pods on other nodes than the first will "
                "wait for it forever; on a cluster of one node it does"
            )


def _queue(api: Api, profile: ClusterProfile, findings: Findings) -> None:
    if profile.queue is None:
        return
    try:
        if api.get("LocalQueue", profile.queue) is not None:
            return
    except ForbiddenError:
        findings.notes.append(f"you may not read queues: whether {profile.queue!r} is there was not checked")
    except NotFoundError:
        if api.has_group(KUEUE):
            findings.notes.append(
                f"this Kueue is of another version: whether queue {profile.queue!r} is there was not checked"
            )
            return
        findings.problems.append(
            f"queue {profile.queue!r}: Kueue is not installed in this cluster; without it leave `queue` out of the "
            "profile"
        )
    else:
        findings.problems.append(
            f"there is no queue {profile.queue!r} in the namespace {api.namespace!r}{_there_are(api, 'LocalQueue')}"
        )


def _priority_class(api: Api, profile: ClusterProfile, findings: Findings) -> None:
    name = profile.priority_class
    if name is None:
        return
    try:
        if api.get("PriorityClass", name) is not None:
            return
    except ForbiddenError:
        findings.notes.append(f"you may not read priority classes: whether {name!r} is there was not checked")
    else:
        findings.problems.append(f"there is no priority class {name!r}{_there_are(api, 'PriorityClass')}")


def _there_are(api: Api, kind: str) -> str:
    """The names of what is there of a kind, as the end of a sentence; nothing where they may not be listed."""
    try:
        return f"; there are: {', '.join(each['metadata']['name'] for each in api.list(kind)) or 'none'}"
    except ForbiddenError:
        return ""
