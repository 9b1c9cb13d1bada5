"""From HTTP requests to the store: routes, rights, faults, and the answers as the real server gives them."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import yaml
from aiohttp import web

from tests.kubernetes_api import failures
from tests.kubernetes_api.kinds import BY_PATH, REVIEW, Kind, discovery, groups, openapi
from tests.kubernetes_api.selectors import matches_fields, matches_labels

if TYPE_CHECKING:
    from tests.kubernetes_api.server import FakeCluster
    from tests.kubernetes_api.store import Change

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_OBJECT_PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+)/(?P<version>v[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>[^/]+))?)?"
)
_VERBS = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}


class Target:
    """What a path and a method ask for."""

    def __init__(self, request: web.Request) -> None:
        found = _OBJECT_PATH.fullmatch(request.path)
        parts = found.groupdict() if found else {}
        self.kind = BY_PATH.get((parts.get("group") or "", parts.get("version") or "v1", parts.get("plural") or ""))
        self.namespace, self.name = parts.get("namespace") or "", parts.get("name")
        self.subresource = parts.get("sub") or ""
        watching = request.query.get("watch") in ("true", "1")
        reading = "watch" if watching else "get" if self.name else "list"
        self.verb = _VERBS.get(request.method, reading)
        if self.kind is not None and not self.kind.namespaced:
            self.namespace = ""

    @property
    def resource(self) -> str:
        assert self.kind is not None
        return f"{self.kind.plural}/{self.subresource}" if self.subresource else self.kind.plural


def gate(cluster: FakeCluster) -> Any:
    """What every request passes: the log, faults, authentication, rights, and refusals told as Status objects."""

    @web.middleware
    async def through(request: web.Request, handler: Handler) -> web.StreamResponse:
        from tests.kubernetes_api.server import Request

        body = await _body(request)
        cluster.requests.append(Request(request.method, request.path, dict(request.query), body))
        dry_run = cluster.requests[-1].dry_run
        fault = next((each for each in cluster.faults if each.takes(request.method, request.path, dry_run)), None)
        try:
            if fault is not None and fault.kind == "drop":
                return _cut(request)
            if fault is not None and fault.kind == "slow":
                await asyncio.sleep(fault.seconds)
            if fault is not None and fault.kind == "error":
                headers = {"Retry-After": str(fault.retry_after)} if fault.retry_after is not None else {}
                raise failures.RefusalError(fault.code, "", fault.message or "on purpose", headers=headers)
            if fault is not None and fault.kind == "refuse":
                raise failures.RefusalError(fault.code, "Forbidden" if fault.code == 403 else "", fault.message)
            if "protobuf" in request.content_type:
                raise failures.RefusalError(415, "UnsupportedMediaType", "this server speaks JSON and YAML")
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            if scheme.lower() != "bearer" or token not in cluster.tokens:
                raise failures.unauthorized()
            _check_rights(cluster, Target(request))
            answer = await handler(request)
        except failures.RefusalError as refusal:
            answer = web.json_response(refusal.status(), status=refusal.code, headers=refusal.headers)
        except failures.NoSuchPathError:
            answer = web.Response(status=404, text="404 page not found\n")
        return _cut(request) if fault is not None and fault.kind == "drop-after" else answer

    return through


def add_routes(application: web.Application, cluster: FakeCluster) -> None:
    """All that is not added by others before."""
    routes = Routes(cluster)
    application.router.add_get("/version", routes.version)
    application.router.add_get("/api", routes.core)
    application.router.add_get("/api/v1", routes.resources)
    application.router.add_get("/apis", routes.groups)
    application.router.add_get("/apis/{group}/{version}", routes.resources)
    application.router.add_get("/openapi/v3", routes.openapi_index)
    application.router.add_get("/openapi/v3/{root:.+}", routes.openapi)
    application.router.add_post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", routes.review)
    application.router.add_route("*", "/{path:.*}", routes.objects)


class Routes:
    """Handlers for one cluster."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster

    async def version(self, _: web.Request) -> web.Response:
        major, minor = self._cluster.git_version.lstrip("v").split(".")[:2]
        return web.json_response({"major": major, "minor": minor, "gitVersion": self._cluster.git_version})

    async def core(self, _: web.Request) -> web.Response:
        return web.json_response({"kind": "APIVersions", "versions": ["v1"]})

    async def groups(self, _: web.Request) -> web.Response:
        served: dict[str, Any] = groups(self._cluster.kinds)
        served["groups"] += [{"name": name} for name in sorted(self._cluster.groups_of_other_versions)]
        return web.json_response(served)

    async def resources(self, request: web.Request) -> web.Response:
        group, version = request.match_info.get("group", ""), request.match_info.get("version", "v1")
        answer = discovery(self._cluster.kinds, group, version)
        if not answer["resources"]:
            raise failures.NoSuchPathError
        return web.json_response(answer)

    async def openapi_index(self, _: web.Request) -> web.Response:
        roots = {f"apis/{kind.api_version}" if kind.group else "api/v1" for kind in self._cluster.kinds}
        paths = {root: {"serverRelativeURL": f"/openapi/v3/{root}?hash=1"} for root in sorted(roots)}
        return web.json_response({"paths": paths})

    async def openapi(self, request: web.Request) -> web.Response:
        return web.json_response(openapi(self._cluster.kinds, request.match_info["root"]))

    async def review(self, request: web.Request) -> web.Response:
        if REVIEW.group in self._cluster.missing_groups:
            raise failures.NoSuchPathError
        if self._cluster.is_denied("create", REVIEW.plural):
            from tests.kubernetes_api.server import USER

            raise failures.forbidden(REVIEW, "create", USER, None, None)
        body = await _body(request)
        wanted = body["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, (wanted["resource"], wanted.get("subresource"))))
        allowed = not self._cluster.is_denied(wanted["verb"], resource)
        return web.json_response(body | {"status": {"allowed": allowed}}, status=201)

    async def objects(self, request: web.Request) -> web.StreamResponse:
        target = Target(request)
        kind = target.kind
        if kind is None or kind not in self._cluster.kinds or target.subresource not in ("", "status"):
            raise failures.NoSuchPathError
        if request.method == "GET":
            if target.verb == "watch":
                return await self._watch(request, kind, target.namespace)
            return self._get(kind, target) if target.name else self._list(request, kind, target.namespace)
        return await self._write(request, kind, target)

    def _get(self, kind: Kind, target: Target) -> web.Response:
        item = self._cluster.store.get((kind.name, target.namespace, target.name or ""))
        if item is None:
            raise failures.not_found(kind, target.name or "")
        return web.json_response(item)

    def _list(self, request: web.Request, kind: Kind, namespace: str) -> web.Response:
        store = self._cluster.store
        with store.lock:
            found = [item for item in store.all(kind, namespace) if _selected(request, kind, item)]
            revision, start = store.revision, 0
            if "continue" in request.query:
                token = json.loads(base64.b64decode(request.query["continue"]))
                start, revision = token["start"], token["revision"]
                if revision < store.compacted:
                    raise failures.RefusalError(410, "Expired", "The provided continue parameter is too old")
        limits = [int(request.query.get("limit") or 0), self._cluster.page_limit or 0]
        limit = min((each for each in limits if each), default=len(found))
        page, rest = found[start : start + limit], found[start + limit :]
        metadata = {"resourceVersion": str(revision)}
        if rest and limit:
            token = json.dumps({"start": start + limit, "revision": revision}).encode()
            metadata |= {"continue": base64.b64encode(token).decode(), "remainingItemCount": str(len(rest))}
        if not kind.custom:  # the real server leaves both out of a list's items for its own kinds
            page = [{key: value for key, value in item.items() if key not in ("kind", "apiVersion")} for item in page]
        return web.json_response(
            {"apiVersion": kind.api_version, "kind": f"{kind.name}List", "metadata": metadata, "items": page}
        )

    async def _watch(self, request: web.Request, kind: Kind, namespace: str) -> web.StreamResponse:
        cluster, store = self._cluster, self._cluster.store
        ends = time.monotonic() + float(request.query.get("timeoutSeconds") or 1800)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        changed, cuts = asyncio.Event(), cluster.cuts
        cluster.streams.add(changed)
        try:
            await response.prepare(request)
            with store.lock:
                since = int(request.query.get("resourceVersion") or 0)
                first = []
                if not since:
                    since = store.revision
                    first = [item for item in store.all(kind, namespace) if _selected(request, kind, item)]
            for item in first:
                await _event(response, "ADDED", item)
            while (left := ends - time.monotonic()) > 0 and cluster.cuts == cuts:
                changed.clear()
                try:
                    changes = store.changes(kind, since)
                except failures.RefusalError as refusal:
                    await _event(response, "ERROR", refusal.status())
                    return response
                for change in changes:
                    since = change.revision
                    if namespace in ("", change.key[1]):
                        await _tell(response, request, kind, change)
                try:
                    await asyncio.wait_for(changed.wait(), left)
                except TimeoutError:
                    break
            if cluster.cuts != cuts:
                return _cut(request, response)
            if request.query.get("allowWatchBookmarks") == "true":
                mark = {"resourceVersion": str(since)}
                await _event(
                    response, "BOOKMARK", {"kind": kind.name, "apiVersion": kind.api_version, "metadata": mark}
                )
        except ConnectionError:
            pass  # the client has left
        finally:
            cluster.streams.discard(changed)
        return response

    async def _write(self, request: web.Request, kind: Kind, target: Target) -> web.Response:
        writer, query = self._cluster.writer, request.query
        dry_run, body = query.get("dryRun") == "All", await _body(request)
        agent = request.headers.get("User-Agent", "unknown").partition("/")[0]
        manager, strict = query.get("fieldManager") or agent, query.get("fieldValidation") == "Strict"
        name = target.name or ""
        if request.method == "POST" and not name:
            made = writer.create(kind, target.namespace, body, manager, strict=strict, dry_run=dry_run)
            return web.json_response(made, status=201)
        if request.method == "DELETE" and name:
            options = body or dict(query)  # the real server, too, reads the query only where there is no body
            propagation = options.get("propagationPolicy") or "Background"
            uid = (options.get("preconditions") or {}).get("uid")
            dry_run = options.get("dryRun") in ("All", ["All"])
            return web.json_response(writer.delete(kind, target.namespace, name, propagation, uid=uid, dry_run=dry_run))
        if request.method == "PATCH" and name and request.content_type == "application/apply-patch+yaml":
            if not query.get("fieldManager"):
                raise failures.bad_request("PatchOptions.meta.k8s.io is invalid: fieldManager: Required value")
            if self._cluster.store.get((kind.name, target.namespace, name)) is None:
                _check_right(self._cluster, target, "create")
            force = query.get("force") in ("true", "True")
            made, new = writer.apply(kind, target.namespace, name, body, manager, force=force, dry_run=dry_run)
            return web.json_response(made, status=201 if new else 200)
        if request.method == "PATCH" and name and request.content_type == "application/merge-patch+json":
            options = {"strict": strict, "dry_run": dry_run, "status": target.subresource == "status"}
            return web.json_response(writer.merge(kind, target.namespace, name, body, manager, **options))
        if request.method == "PATCH":
            raise failures.RefusalError(415, "UnsupportedMediaType", f"unsupported patch type {request.content_type}")
        raise failures.RefusalError(405, "MethodNotAllowed", "the server does not allow this method on the resource")


async def _body(request: web.Request) -> Any:
    """JSON or YAML; None where there is none, or where it is written in another way."""
    if "protobuf" in request.content_type:
        return None
    text = await request.text() if request.method != "GET" and request.body_exists else ""
    if text.lstrip().startswith("{"):
        return json.loads(text)
    return yaml.safe_load(text) if text.strip() else None


def _check_rights(cluster: FakeCluster, target: Target) -> None:
    if target.kind is not None:
        _check_right(cluster, target, target.verb)


def _check_right(cluster: FakeCluster, target: Target, verb: str) -> None:
    from tests.kubernetes_api.server import USER

    assert target.kind is not None
    if cluster.is_denied(verb, target.resource):
        raise failures.forbidden(target.kind, verb, USER, target.namespace, target.name, target.subresource)


def _selected(request: web.Request, kind: Kind, item: dict[str, Any]) -> bool:
    labels = item["metadata"].get("labels") or {}
    return matches_labels(request.query.get("labelSelector", ""), labels) and matches_fields(
        request.query.get("fieldSelector", ""), item, kind
    )


async def _tell(response: web.StreamResponse, request: web.Request, kind: Kind, change: Change) -> None:
    """A change, as one who looks through selectors sees it."""
    was = change.before is not None and _selected(request, kind, change.before)
    now = change.type != "DELETED" and _selected(request, kind, change.item)
    if was or now:
        await _event(response, "DELETED" if not now else "MODIFIED" if was else "ADDED", change.item)


async def _event(response: web.StreamResponse, type_: str, item: dict[str, Any]) -> None:
    await response.write(json.dumps({"type": type_, "object": item}).encode() + b"\n")


def _cut(request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return response or web.Response()
