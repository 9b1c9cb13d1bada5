"""The server: HTTP on the loopback interface in a thread of its own, and what tests do to it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import socket
import ssl
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml
from aiohttp import web

from tests.kubernetes_api.faults import Fault
from tests.kubernetes_api.kinds import BY_NAME, KINDS, Kind
from tests.kubernetes_api.store import Item, Store, key_of
from tests.kubernetes_api.writes import Writes
from tests.waiting import PATIENCE_SECONDS

TOKEN = "token-of-alice"
USER = "alice"


@dataclass(frozen=True)
class Request:
    """A request that came in."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    body: Any = None

    @property
    def dry_run(self) -> bool:
        options = self.body if self.method == "DELETE" and self.body else {}
        return self.query.get("dryRun") == "All" or options.get("dryRun") == ["All"]

    @property
    def writes(self) -> bool:
        """Whether it would change something."""
        return self.method not in ("GET", "HEAD") and not self.dry_run and "accessreviews" not in self.path


class FakeCluster:
    """An API server with nothing behind it: no operator, no scheduler, no kubelet; tests play those with `put`.

    Holds the namespace "default" at first. Use it as a context manager, or `start` and `stop` it; a stopped one keeps
    its objects and comes back at the same address.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.tokens = {TOKEN}
        self.missing_groups: set[str] = set()
        self.groups_of_other_versions: set[str] = set()
        self.git_version = "v1.34.2"
        self.page_limit: int | None = None
        """At most so many objects in a page of a list."""
        self.denied: set[tuple[str, str]] = set()
        self.port = 0
        self.store = Store(self._wake)
        self.writer = Writes(self.store)
        self.streams: set[asyncio.Event] = set()
        """One for each open watch; set when something changed."""
        self.cuts = 0
        self._tls = tls
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})

    # What tests do to it

    def put(self, item: Item, namespace: str = "default") -> Item:
        """Write an object as the cluster's own parts do, status included, without checks."""
        return self.store.write(key_of(item, namespace), item)

    def change(self, kind: str, name: str, namespace: str = "default", **parts: Any) -> Item:
        """Replace top-level parts (status, spec, ...) of an object that is there."""
        item = self.item(kind, name, namespace)
        assert item is not None, f"there is no {kind} {name}"
        return self.store.write(key_of(item), item | parts)

    def remove(self, kind: str, name: str, namespace: str = "default") -> None:
        """Delete an object, and what it owns."""
        self.store.delete((kind, namespace if BY_NAME[kind].namespaced else "", name), "Background")

    def item(self, kind: str, name: str, namespace: str = "default") -> Item | None:
        return self.store.get((kind, namespace if BY_NAME[kind].namespaced else "", name))

    def items(self, kind: str) -> list[Item]:
        return self.store.all(BY_NAME[kind])

    def names(self, kind: str) -> list[str]:
        return [item["metadata"]["name"] for item in self.items(kind)]

    def forbid(self, verb: str, resource: str) -> None:
        """Take a right away: `resource` as in rules, "rayjobs" or "pods/log"; "*" stands for any."""
        self.denied.add((verb, resource))

    def allow_all(self) -> None:
        self.denied.clear()

    def is_denied(self, verb: str, resource: str) -> bool:
        return not self.denied.isdisjoint({(verb, resource), ("*", resource), (verb, "*"), ("*", "*")})

    def fault(self, kind: Any, **how: Any) -> Fault:
        """Make something go wrong with the next requests; see Fault."""
        self.faults.append(Fault(kind, **how))
        return self.faults[-1]

    def without(self, group: str) -> None:
        """Do not serve an API group, or one version of it: its CRDs are not installed."""
        self.missing_groups.add(group)

    @property
    def kinds(self) -> list[Kind]:
        """What is served."""
        return [kind for kind in KINDS if not {kind.group, kind.api_version} & self.missing_groups]

    @property
    def changes(self) -> list[Request]:
        """Requests that would have changed something; empty means that nothing was created."""
        return [request for request in self.requests if request.writes]

    def cut_streams(self) -> None:
        """Break all open watches (and what else streams)."""
        self.cuts += 1
        self._wake()

    def compact(self) -> None:
        """Forget the history: watches from earlier versions get 410 Gone."""
        self.store.compact()
        self._wake()

    def kubeconfig(self, path: Path, *, namespace: str | None = None, token: str = TOKEN, **cluster: Any) -> Path:
        """Write a kubeconfig with the context "fake" for this server; returns the path."""
        context = {"cluster": "fake", "user": USER} | ({"namespace": namespace} if namespace else {})
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "contexts": [{"name": "fake", "context": context}],
            "clusters": [{"name": "fake", "cluster": {"server": self.address} | cluster}],
            "users": [{"name": USER, "user": {"token": token}}],
        }
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        return path

    @property
    def address(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def is_stopped(self) -> bool:
        return self._thread is None

    # Start and stop

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._socket is not None:
            self._socket.close()

    def start(self) -> None:
        self._socket = self._socket or self._bound()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(self._socket, ready), daemon=True)
        self._thread.start()
        assert ready.wait(PATIENCE_SECONDS), "the server did not start"

    def stop(self) -> None:
        """Close the server and all its connections."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self.cuts += 1
        self._wake()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE_SECONDS)
        self._loop = self._thread = None
        self._socket = self._bound()  # refuses connections, and keeps the port from others

    def _bound(self) -> socket.socket:
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", self.port))
        self.port = bound.getsockname()[1]
        return bound

    def _serve(self, listening: socket.socket, ready: threading.Event) -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=0.1)
        loop.run_until_complete(runner.setup())
        loop.run_until_complete(web.SockSite(runner, listening, ssl_context=self._tls).start())
        self._loop = loop
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        with contextlib.suppress(RuntimeError):
            loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    def _application(self) -> web.Application:
        from tests.kubernetes_api import handlers

        application = web.Application(middlewares=[handlers.gate(self)], client_max_size=16 * 2**20)
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module("tests.kubernetes_api.streams").add_routes(application, self)
        handlers.add_routes(application, self)
        return application

    def _wake(self) -> None:
        loop = getattr(self, "_loop", None)
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # stopped in between
                loop.call_soon_threadsafe(self._wake_streams)

    def _wake_streams(self) -> None:
        for event in list(self.streams):
            event.set()
