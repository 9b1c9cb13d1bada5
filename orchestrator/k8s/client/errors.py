"""What a cluster answers when it will not, in words: what was asked, why not, and what to do."""

from __future__ import annotations

import json
import re
from typing import Any

from orchestrator.k8s.client.resources import KUBERAY, KUEUE

SETUP_REMEDY = (
    "an administrator of the cluster gives the rights once, with the `submitters` of the profile named: "
    "bo-sweep k8s render SPACE --only setup | kubectl apply -f -"
)
KUBERAY_REMEDY = (
    "KubeRay is not installed in this cluster. An administrator installs it once: "
    "helm repo add kuberay https://ray-project.github.io/kuberay-helm/ && "
    "helm install kuberay-operator kuberay/kuberay-operator --version 1.7.0 "
    "--namespace kuberay-operator --create-namespace"
)


class ClusterError(ConnectionError):
    """A cluster that cannot be used as asked; the message says what was asked, why not, and what to do.

    Attributes:
        code: HTTP status of the answer; 0 where there was none.
        reason: the server's one word for it ("Forbidden", "Conflict", "Expired"), where it gave one.
    """

    def __init__(self, message: str, *, code: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class ForbiddenError(ClusterError):
    """The user has no right to this (403)."""


class NotFoundError(ClusterError):
    """The object, its namespace, or its whole kind is not there (404)."""


class NoNamespaceError(NotFoundError):
    """The namespace is not there."""


class ConflictError(ClusterError):
    """It is there already, or another manager owns a field of it (409)."""


class GoneError(ClusterError):
    """The version that was asked for is no longer kept (410): list again."""


class RejectedError(ClusterError):
    """The cluster's own checks refuse the object: strict validation (400, 422), a webhook, a quota, Pod Security."""


def refusal(code: int, body: str, *, asked: str, host: str, namespace: str, group: str = "") -> ClusterError:
    """The error for an answer other than 2xx.

    `asked` is what was tried, as in "apply RayJob digits-grid-0a1b2c3d"; `group` is the API group that it went to.
    """
    status = status_of(body)
    message, reason = " ".join(str(status.get("message") or body[:500]).split()), str(status.get("reason") or "")
    told = f"{host}: cannot {asked}: "

    def error(kind: type[ClusterError], text: str) -> ClusterError:
        return kind(told + text, code=code, reason=reason)

    if code == 401:
        return error(
            ClusterError,
            "the credentials are not accepted (401). They may have expired: log in to the cluster again, and check "
            "with `kubectl auth whoami`",
        )
    if code == 403:
        return error(*_forbidden(message, namespace))
    if code == 404:
        return error(*_not_found(message, status, namespace, group))
    if code == 409:
        return error(ConflictError, _conflict(message, status))
    if code == 410:
        return error(GoneError, message)
    if code in (400, 422) or is_schema_error(message):
        return error(RejectedError, _rejected(message, status))
    if code == 429:
        return error(ClusterError, f"the server is busy (429 {message}). Try again in a minute")
    return error(ClusterError, f"the server answers {message} ({code}). Try again; if it stays, ask an administrator")


def status_of(body: str) -> dict[str, Any]:
    """The Status object in an answer's body; empty where there is none."""
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and found.get("kind") == "Status" else {}


def is_schema_error(message: str) -> bool:
    """Whether it is of server-side apply for an unknown or ill-typed field, which comes with code 500."""
    return "failed to create typed patch object" in message


def _forbidden(message: str, namespace: str) -> tuple[type[ClusterError], str]:
    if 'User "system:anonymous"' in message:
        return ClusterError, (
            "the request came without credentials that the cluster knows. Log in to the cluster, and check with "
            "`kubectl auth whoami`"
        )
    if "because it is being terminated" in message:
        return RejectedError, (
            f"the namespace {namespace!r} is being deleted: wait until it is gone and create it anew, or give another "
            "with --namespace"
        )
    found = re.search(r'User "([^"]*)" cannot (\S+) resource "([^"]*)"(?: in API group "([^"]*)")?(.*)', message)
    if found is None:
        if _is_of_admission(message):
            return RejectedError, f"{message}. The profile must fit what the namespace {namespace!r} allows"
        return ForbiddenError, f"{message} (403); {SETUP_REMEDY}"
    user, verb, resource, group, where = found.groups()
    place = f"in the namespace {namespace!r}" if "namespace" in where else "in the whole cluster"
    full = f"{resource}.{group}" if group else resource
    return ForbiddenError, f"{user} may not {verb} {full} {place}; {SETUP_REMEDY}"


def _is_of_admission(message: str) -> bool:
    """Whether it comes from a check of objects (webhooks, policies, quotas, Pod Security), which no right overrules.

    Authorization says who cannot do what, and so does the one check that keeps users from giving rights they lack.
    """
    if "attempting to grant RBAC permissions" in message or 'cannot get path "' in message:
        return False
    return "admission webhook" in message or " is forbidden: " in message


def _not_found(message: str, status: dict[str, Any], namespace: str, group: str) -> tuple[type[ClusterError], str]:
    if not status or "could not find the requested resource" in message:  # no such kind, rather than no such object
        missing = {
            KUBERAY: KUBERAY_REMEDY,
            KUEUE: "Kueue is not installed in this cluster; without it leave `queue` out of the profile",
        }
        return NotFoundError, missing.get(group, f"the cluster does not serve {group or 'this path'} (404)")
    if (status.get("details") or {}).get("kind") == "namespaces":
        return NoNamespaceError, no_namespace(namespace)
    return NotFoundError, f"{message} (404)"


def no_namespace(namespace: str) -> str:
    """That a namespace is not there, and what to do."""
    return (
        f"there is no namespace {namespace!r}; create it (kubectl create namespace {namespace}), "
        "or give another with --namespace"
    )


def _conflict(message: str, status: dict[str, Any]) -> str:
    causes = (status.get("details") or {}).get("causes") or []
    fields = [f"{each.get('field')} ({each.get('message')})" for each in causes]
    if not any(each.get("reason") == "FieldManagerConflict" for each in causes):
        return f"{message} (409)"
    return (
        f"{_count(fields, 'field')} with another manager: {', '.join(fields)}. Someone has made changes by hand or "
        "with another tool: take them back there, or delete the object and launch again"
    )


def _rejected(message: str, status: dict[str, Any]) -> str:
    causes = (status.get("details") or {}).get("causes") or []
    fields = [f"{each.get('field') or 'object'}: {each.get('message')}" for each in causes]
    unknown = re.findall(r'unknown field "([^"]+)"', message) + re.findall(
        r"(\.[\w.\[\]\"=\-/]+): field not declared in schema", message
    )
    if unknown:
        return (
            f"the cluster does not know {_count(unknown, 'field')} {', '.join(unknown)}. Its KubeRay may be older than "
            "1.7.0: `bo-sweep k8s doctor` tells its version"
        )
    return f"its checks refuse {_count(fields, 'field')}: {'; '.join(fields)}" if fields else message


def _count(items: list[str], word: str) -> str:
    return f"{len(items)} {word}{'s' if len(items) != 1 else ''}"
