"""The API of one cluster, for the few verbs and kinds that sweeps need: plain dictionaries in and out."""

from __future__ import annotations

import builtins
import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from orchestrator.k8s.client.connect import Connection, client_for
from orchestrator.k8s.client.errors import (
    ClusterError,
    ConflictError,
    ForbiddenError,
    GoneError,
    NotFoundError,
    RejectedError,
)
from orchestrator.k8s.client.resources import ResourceType, resource_type
from orchestrator.k8s.client.retrying import Retries
from orchestrator.k8s.client.transport import TIMEOUT_SECONDS, Query, Transport

__all__ = [
    "Api",
    "ClusterError",
    "ConflictError",
    "Connection",
    "ForbiddenError",
    "GoneError",
    "NotFoundError",
    "RejectedError",
    "connect",
]

FIELD_MANAGER = "bo-sweep"
PAGE = 500
"""Objects in one page of a list."""

Manifest = dict[str, Any]


def connect(connection: Connection, retries: Retries | None = None) -> Api:
    """The API of the cluster that the user named, after it has answered once.

    Raises:
        ValueError: no such context; the message names those there are.
        ClusterError: no kubeconfig, no credentials, or no (or no good) answer.
    """
    client, namespace = client_for(connection)
    with contextlib.suppress(ForbiddenError):  # then it is reachable, and that is what was asked
        # Fewer tries: a cluster that was never reached is rather down, or another one than meant.
        Api(client, namespace, retries or Retries(tries=3)).version()
    return Api(client, namespace, retries or Retries())


class Api:
    """One namespace of a cluster (and what is beside namespaces).

    Trouble that may pass (broken connections, 429, 5xx) is tried again for some seconds where the request may be sent
    twice; what remains is a ClusterError. Safe to use from several threads.

    Attributes:
        client: the official client, for streams (logs, port forwarding).
        namespace: of everything that has one.
        host: address of the server.
    """

    def __init__(self, client: Any, namespace: str, retries: Retries | None = None) -> None:
        self.client = client
        self.namespace = namespace
        self.host: str = client.configuration.host
        self._transport = Transport(client, namespace, retries or Retries())

    def version(self) -> str:
        """Of the server, as in "v1.34.2"."""
        return str(self._transport.json("GET", "/version", asked="reach the cluster").get("gitVersion"))

    def serves(self, kind: str) -> bool:
        """Whether the cluster has this kind, in the version that we use."""
        resource = resource_type(kind)
        path = f"/apis/{resource.api_version}" if resource.group else f"/api/{resource.version}"
        try:
            answer = self._transport.json("GET", path, asked=f"look for {resource.api_version}")
        except NotFoundError:
            return False
        return any(each["name"] == resource.plural for each in answer.get("resources") or [])

    def has_group(self, group: str) -> bool:
        """Whether the cluster has an API group, in any version."""
        answer = self._transport.json("GET", "/apis", asked="list what the cluster serves")
        return any(each["name"] == group for each in answer.get("groups") or [])

    def get(self, kind: str, name: str) -> Manifest | None:
        """One object; None where there is none. Raises NotFoundError where the cluster has no such kind."""
        resource = resource_type(kind)
        try:
            return self._read(resource, name, asked=f"read {kind} {name}")
        except NotFoundError as error:
            if error.reason == "NotFound":
                return None
            raise

    def list(self, kind: str, *, labels: str = "", fields: str = "") -> list[Manifest]:
        """All objects that selectors choose, as one state of the cluster."""
        return self.list_at(kind, labels=labels, fields=fields)[0]

    def list_at(self, kind: str, *, labels: str = "", fields: str = "") -> tuple[builtins.list[Manifest], str]:
        """As `list`, with the resource version that it shows: a watch from there misses nothing."""
        resource, page = resource_type(kind), ""
        found: builtins.list[Manifest] = []
        while True:
            query = _selectors(labels, fields) + [("limit", str(PAGE))] + ([("continue", page)] if page else [])
            try:
                answer = self._read(resource, query=query, asked=f"list {kind}s")
            except GoneError:
                if not page:
                    raise
                found, page = [], ""  # it took so long that the server forgot the first page's state: from the start
                continue
            # A list's items come without kind, a single object with it; callers should not have to care.
            found += [{"apiVersion": resource.api_version, "kind": kind} | item for item in answer.get("items") or []]
            page = (answer.get("metadata") or {}).get("continue") or ""
            if not page:
                return found, (answer.get("metadata") or {}).get("resourceVersion") or ""

    def watch(
        self,
        kind: str,
        *,
        name: str | None = None,
        labels: str = "",
        seconds: float,
        resource_version: str | None = None,
    ) -> Iterator[tuple[str, Manifest]]:
        """Changes as they happen: ("ADDED" | "MODIFIED" | "DELETED", object).

        Without `resource_version` what is there already comes first, as ADDED. Ends after `seconds`, and quietly when
        the connection breaks or the version is no longer kept; the caller then reads the state again and goes on.

        Raises:
            ClusterError: it cannot be opened.
        """
        import urllib3

        resource = resource_type(kind)
        query = [
            *_selectors(labels, f"metadata.name={name}" if name else ""),
            ("watch", "true"),
            ("timeoutSeconds", str(max(1, round(seconds)))),
            ("allowWatchBookmarks", "true"),
            *([("resourceVersion", resource_version)] if resource_version else []),
        ]
        try:
            response = self._transport.send(
                *("GET", self._path(resource), query),
                asked=f"watch {kind}s",
                resource=resource,
                timeout=(TIMEOUT_SECONDS[0], seconds + 10),
            )
        except GoneError:
            return
        try:
            for line in _lines(response):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                if event["type"] != "BOOKMARK":
                    yield event["type"], event["object"]
        except (urllib3.exceptions.HTTPError, OSError, ValueError):
            return  # cut, perhaps within a line
        finally:
            response.close()

    def apply(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Server-side apply with strict validation: afterwards the object has these fields, whatever it had.

        Raises:
            ConflictError: another manager owns a field; the message says which.
            RejectedError: unknown fields, or refused by the cluster's checks.
            ClusterError: anything else.
        """
        resource, name = resource_type(manifest["kind"]), manifest["metadata"]["name"]
        query = [("fieldManager", FIELD_MANAGER), ("fieldValidation", "Strict")]
        return self._transport.json(
            "PATCH",
            self._path(resource, name),
            query + ([("dryRun", "All")] if dry_run else []),
            body=manifest,
            content_type="application/apply-patch+yaml",
            asked=f"apply {manifest['kind']} {name}",
            resource=resource,
        )

    def patch(self, kind: str, name: str, merge: Manifest) -> Manifest:
        """Change the fields that a merge patch names (None removes one)."""
        resource = resource_type(kind)
        return self._transport.json(
            "PATCH",
            self._path(resource, name),
            [("fieldManager", FIELD_MANAGER)],
            body=merge,
            content_type="application/merge-patch+json",
            asked=f"change {kind} {name}",
            resource=resource,
        )

    def create(self, manifest: Manifest) -> Manifest:
        """Make an object that is not there yet. Raises ConflictError where one is."""
        resource = resource_type(manifest["kind"])
        return self._transport.json(
            "POST",
            self._path(resource),
            [("fieldManager", FIELD_MANAGER), ("fieldValidation", "Strict")],
            body=manifest,
            asked=f"create {manifest['kind']} {manifest['metadata'].get('name', '')}",
            resource=resource,
            repeatable=False,
        )

    def delete(
        self,
        kind: str,
        name: str,
        *,
        propagation: str = "Background",
        uid: str | None = None,
        dry_run: bool = False,
    ) -> bool:
        """Delete an object and what belongs to it; False where there was none.

        With propagation "Foreground" it stays until what belongs to it is gone. With `uid` only that very object is
        deleted. Raises ConflictError where another one has taken its name since.
        """
        resource = resource_type(kind)
        # All in the body: a server that gets one takes no heed of the query.
        options: Manifest = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        options |= {"preconditions": {"uid": uid}} if uid else {}
        options |= {"dryRun": ["All"]} if dry_run else {}
        sent: builtins.list[int] = []
        try:
            self._transport.json(
                "DELETE",
                self._path(resource, name),
                body=options,
                asked=f"delete {kind} {name}",
                resource=resource,
                sent=sent,
            )
        except NotFoundError as error:
            if error.reason != "NotFound":
                raise
            return len(sent) > 1  # an earlier try, whose answer was lost, did it
        return True

    def allowed(self, verb: str, resource: str, *, group: str = "", subresource: str = "", name: str = "") -> bool:
        """Whether the user may do this in the namespace, as the server judges it."""
        wanted = {"verb": verb, "resource": resource, "group": group, "namespace": self.namespace}
        wanted |= {key: value for key, value in (("subresource", subresource), ("name", name)) if value}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": wanted},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        return bool(self._transport.json("POST", path, body=review, asked="ask for rights")["status"].get("allowed"))

    def _read(
        self, resource: ResourceType, name: str | None = None, query: Query | None = None, *, asked: str
    ) -> Manifest:
        """One object or a list, in the version that the cluster serves."""
        try:
            return self._transport.json("GET", self._path(resource, name), query, asked=asked, resource=resource)
        except NotFoundError as error:
            if error.reason == "NotFound" or not resource.newer:
                raise
        newer = replace(resource, version=resource.newer, newer="")
        return self._read(newer, name, query, asked=asked)

    def _path(self, resource: ResourceType, name: str | None = None) -> str:
        return resource.path(quote(self.namespace, safe=""), quote(name, safe="") if name else None)


def _selectors(labels: str, fields: str) -> list[tuple[str, str]]:
    return [(key, value) for key, value in (("labelSelector", labels), ("fieldSelector", fields)) if value]


def _lines(response: Any) -> Iterator[bytes]:
    """Lines of a streamed answer, each as soon as it is whole."""
    rest = b""
    for chunk in response.stream(amt=None, decode_content=False):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line.strip())
