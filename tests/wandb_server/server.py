"""The server itself: HTTP on loopback, in a thread of its own."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import threading
from collections import Counter
from typing import Any, Self

from aiohttp import web

from tests.wandb_server.faults import Fault, Faults
from tests.wandb_server.project_operations import ProjectOperations, RefusedError
from tests.wandb_server.run_operations import RunOperations
from tests.wandb_server.state import HISTORY, Run, State, View
from tests.wandb_server.uploads import Uploads

ENTITY = "team"
"""Whom runs belong to where nobody says."""
TELEMETRY = ("/sdk/otel/", "/api/")
"""What wandb says about itself; answered, and no part of what tests ask about."""
LIMITS = {"sweep": {}, "stopped": False}
KEY = "0123456789abcdef0123456789abcdef01234567"
"""A key of the right shape."""


class FakeWandb:
    """A W&B server in this process. Its state may be read at any time; see `Run` and `View`."""

    def __init__(self, port: int = 0) -> None:
        self._port = port
        self._faults = Faults()
        self.state = State()
        self._uploads = Uploads(lambda: self.url)
        runs, projects = RunOperations(self.state, self._uploads, ENTITY), ProjectOperations(self.state, ENTITY)
        self._operations = runs.by_name | projects.by_name
        self.requests: Counter[str] = Counter()
        """How many requests of each name came, those that were made to fail among them."""
        self.unknown: list[str] = []
        """What was asked and is not answered by this server, with the query."""
        self.keys_seen: set[str] = set()
        self.leaks: list[str] = []
        """Requests that carried a key elsewhere than in their header."""
        self.refused = 0
        """Requests that were answered with 401."""
        self._revoked = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def environment(self, key: str = KEY) -> dict[str, str]:
        """Variables with which wandb talks to this server, and to no other."""
        return {
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": key,
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_SILENT": "true",
        }

    def inject(self, *faults: Fault, seed: int = 0) -> None:
        """These faults from now on, in place of those before; none: all is well."""
        self._faults.set(*faults, seed=seed)

    @property
    def faults_given(self) -> list[tuple[str, Fault]]:
        """What failed since the last `inject`: the request's name, and how."""
        return list(self._faults.given)

    def revoke(self, revoked: bool = True) -> None:
        """Answer every key with 401 from now on, or accept all of them again."""
        self._revoked = revoked

    @property
    def runs(self) -> dict[str, Run]:
        """All runs, by "entity/project/id"."""
        with self.state.lock:
            return dict(self.state.runs)

    def run(self, path: str) -> Run:
        """The run at "entity/project/id"."""
        return self.runs[path]

    @property
    def reports(self) -> list[View]:
        return self._views("runs")

    @property
    def workspaces(self) -> list[View]:
        return self._views("project-view")

    def _views(self, kind: str) -> list[View]:
        with self.state.lock:
            return [view for view in self.state.views.values() if view.type == kind]

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _serve(self, ready: threading.Event) -> None:
        self._loop.run_until_complete(self._until_stopped(ready))
        self._loop.close()

    async def _until_stopped(self, ready: threading.Event) -> None:
        self._stop = asyncio.Event()
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self._port)
        await site.start()
        self._port = runner.addresses[0][1]
        ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if request.path.startswith(TELEMETRY):
            self._look_for_keys(request, body)
            return web.json_response({})
        asked: dict[str, Any] = json.loads(body) if request.path.endswith(("/graphql", "/file_stream")) else {}
        name = _name_of(request.method, request.path, asked)
        self.requests[name] += 1
        self._look_for_keys(request, body)
        fault = self._faults.draw(name)
        if fault is not None and fault.kind == "status":
            headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            return _errors("injected", fault.status, headers)
        if fault is not None and fault.kind == "cut":
            return _cut(request)
        if self._revoked and not name.startswith("upload"):
            self.refused += 1
            return _errors("user is not logged in", 401)
        answer = self._handle(request, name, asked, body)
        if fault is not None and fault.kind == "hang":
            await asyncio.sleep(fault.seconds)
        return _cut(request) if fault is not None and fault.kind == "cut after" else answer

    def _handle(self, request: web.Request, name: str, asked: dict[str, Any], body: bytes) -> web.Response:
        with self.state.lock:
            if name.startswith("upload"):
                found = self._uploads.take(request.path.rpartition("/")[2], body)
                return web.Response(status=200 if found else 404)
            if name.startswith("file_stream"):
                return self._stream(request.path, asked)
            operation = self._operations.get(name.removeprefix("graphql "))
            if operation is None:
                self.unknown.append(f"{name}: {asked or request.path_qs}")
                return _errors(f"unknown to the server of the tests: {name}", 200 if asked else 404)
            try:
                return web.json_response({"data": operation(asked.get("variables") or {})})
            except RefusedError as error:
                return _errors(str(error), error.status)
            except (LookupError, AssertionError, TypeError) as error:  # asked otherwise than this server expects
                self.unknown.append(f"{name}: {error!r} in {asked}")
                return _errors(f"unknown to the server of the tests: {error!r}", 400)

    def _stream(self, path: str, sent: dict[str, Any]) -> web.Response:
        _, _, entity, project, name, _ = path.split("/")
        run = self.state.run(entity, project, name)
        if run is None:
            return _errors(f"run {entity}/{project}/{name} not found", 404)
        for file, part in (sent.get("files") or {}).items():
            run.stream(file, part["offset"], part["content"])
        if sent.get("complete"):
            run.finished, run.exit_code = True, sent.get("exitcode")
        return web.json_response({"exitcode": run.exit_code, "limits": LIMITS})

    def _look_for_keys(self, request: web.Request, body: bytes) -> None:
        """The key belongs into the header of a request and nowhere else."""
        header = request.headers.get("Authorization", "")
        if header.startswith("Basic "):
            self.keys_seen.add(base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")[2])
        sent = request.path_qs.encode() + body
        self.leaks += [request.path for key in self.keys_seen if key and key.encode() in sent]


def _name_of(method: str, path: str, asked: dict[str, Any]) -> str:
    """What a request is called where faults are told which ones they take."""
    if path.endswith("/file_stream"):
        return "file_stream history" if HISTORY in (asked.get("files") or {}) else "file_stream"
    if path == "/graphql":
        match = re.search(r"\b(?:query|mutation)\s+(\w+)", asked.get("query", ""))
        return f"graphql {asked.get('operationName') or (match[1] if match else 'unnamed')}"
    return "upload" if path.startswith("/upload/") else f"{method} {path}"


def _errors(message: str, status: int, headers: dict[str, str] | None = None) -> web.Response:
    body = {"errors": [{"message": message, "path": []}], "data": None}
    return web.json_response(body, status=status, headers=headers)


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
