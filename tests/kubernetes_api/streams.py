"""What a kubelet does behind the API server: logs of containers, and ports of pods."""

from __future__ import annotations

import asyncio
import weakref
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from tests.kubernetes_api import failures
from tests.kubernetes_api.kinds import BY_NAME

if TYPE_CHECKING:
    from tests.kubernetes_api.server import FakeCluster

PROTOCOL = "v4.channel.k8s.io"
POLL_SECONDS = 0.005
FIRST_LINE = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@dataclass
class PodLog:
    """The log of a pod's container; tests write it.

    Attributes:
        lines: stamps to the nanosecond, and texts with their end of line, if they have one.
        previous: the same, of the container before its last restart.
        ended: nothing more comes.
        cut_after: the next connections break after so many bytes, one for each number.
        end_after: as `cut_after`, but the connection ends as if all were well.
    """

    lines: list[tuple[str, str]] = field(default_factory=list)
    previous: list[tuple[str, str]] = field(default_factory=list)
    ended: bool = False
    cut_after: list[int] = field(default_factory=list)
    end_after: list[int] = field(default_factory=list)
    opened: int = 0

    def write(self, *texts: str, nanoseconds: int | None = None, end: str = "\n") -> None:
        """Add lines: each a millisecond after the one before, or all at this time after the first."""
        for text in texts:
            since = 1_000_000 * len(self.lines) if nanoseconds is None else nanoseconds
            second = (FIRST_LINE + timedelta(seconds=since // 10**9)).strftime("%Y-%m-%dT%H:%M:%S")
            self.lines.append((f"{second}.{since % 10**9:09}Z", text + end))

    def restart(self, last: str) -> None:
        """The container wrote a last line, which no open connection brings, ended and was started again."""
        self.lines = [*self.lines]  # connections read on in the list that they began with
        self.write(last)
        self.previous, self.lines = self.lines, []


@dataclass
class Streams:
    """What pods of one cluster say and listen on."""

    logs: dict[str, PodLog] = field(default_factory=dict)
    ports: dict[tuple[str, int], int] = field(default_factory=dict)
    """Of a pod and its port: the port of this machine where it is in truth."""
    forwarded: int = 0
    """Connections that were forwarded so far."""
    open_now: int = 0


_STREAMS: weakref.WeakKeyDictionary[FakeCluster, Streams] = weakref.WeakKeyDictionary()


def streams_of(cluster: FakeCluster) -> Streams:
    return _STREAMS.setdefault(cluster, Streams())


def log_of(cluster: FakeCluster, pod: str) -> PodLog:
    """The log of a pod, which begins empty."""
    return streams_of(cluster).logs.setdefault(pod, PodLog())


def add_routes(application: web.Application, cluster: FakeCluster) -> None:
    """Logs and port forwarding of the cluster's pods."""
    kubelet = Kubelet(cluster)
    application.router.add_get("/api/v1/namespaces/{namespace}/pods/{name}/log", kubelet.log)
    application.router.add_get("/api/v1/namespaces/{namespace}/pods/{name}/portforward", kubelet.forward)


class Kubelet:
    """Answers in place of the nodes."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster

    async def log(self, request: web.Request) -> web.StreamResponse:
        query, name = request.query, request.match_info["name"]
        pod = self._pod(request, name)
        if _scheduled(pod).get("status") == "False":
            return web.Response(status=204)  # no node, no log
        containers = [each["name"] for each in (pod.get("spec") or {}).get("containers") or []]
        if len(containers) > 1 and "container" not in query:
            raise failures.bad_request(
                f"a container name must be specified for pod {name}, choose one of: [{' '.join(containers)}]"
            )
        state = self._container_state(request, name)
        if "waiting" in state and query.get("previous") != "true":
            reason = state["waiting"].get("reason", "ContainerCreating")
            raise failures.bad_request(f'container "ray" in pod "{name}" is waiting to start: {reason}')
        log, cuts = log_of(self._cluster, name), self._cluster.cuts
        log.opened += 1
        budget = log.cut_after.pop(0) if log.cut_after else None
        quiet = log.end_after.pop(0) if log.end_after and budget is None else None
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        lines = log.previous if query.get("previous") == "true" else log.lines
        at = max(0, len(lines) - int(query["tailLines"])) if "tailLines" in query else 0
        since, sent = datetime.fromisoformat(query["sinceTime"]) if "sinceTime" in query else None, 0
        follows = query.get("follow") == "true"
        while True:
            while at < len(lines):
                stamp, text = lines[at]
                at += 1
                if since is not None and datetime.fromisoformat(stamp) < since:
                    continue
                whole = (f"{stamp} {text}" if query.get("timestamps") == "true" else text).encode()
                allowed = budget if budget is not None else quiet
                part = whole if allowed is None else whole[: max(0, allowed - sent)]
                await response.write(part)
                sent += len(part)
                if len(part) < len(whole):
                    return _cut(request, response) if budget is not None else response
            if not follows or log.ended or lines is not log.lines:
                return response
            if self._cluster.cuts != cuts:
                return _cut(request, response)
            await asyncio.sleep(POLL_SECONDS)

    async def forward(self, request: web.Request) -> web.StreamResponse:
        name, port = request.match_info["name"], int(request.query["ports"])
        self._pod(request, name)
        streams, cuts = streams_of(self._cluster), self._cluster.cuts
        remote = web.WebSocketResponse(protocols=(PROTOCOL,), max_msg_size=2**20)
        await remote.prepare(request)
        assert remote.ws_protocol == PROTOCOL, "the client did not offer the protocol"
        for channel in (0, 1):
            await remote.send_bytes(bytes([channel]) + port.to_bytes(2, "little"))
        streams.forwarded += 1
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", streams.ports.get((name, port), 1))
        except OSError:
            why = f"error forwarding port {port} to pod {name}: dial tcp4 127.0.0.1:{port}: connect: connection refused"
            await remote.send_bytes(b"\x01" + why.encode())
            await remote.close()
            return remote
        streams.open_now += 1
        try:
            down = asyncio.create_task(_down(reader, remote))
            up = asyncio.create_task(_up(remote, writer))
            while not down.done() and not up.done():
                if self._cluster.cuts != cuts or self._cluster.item("Pod", name) is None:
                    if request.transport is not None:
                        request.transport.abort()
                    break
                await asyncio.wait({down, up}, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
            for task in (down, up):
                task.cancel()
            await asyncio.gather(down, up, return_exceptions=True)
        finally:
            streams.open_now -= 1
            writer.close()
        await remote.close()
        return remote

    def _container_state(self, request: web.Request, name: str) -> dict[str, Any]:
        statuses = (self._pod(request, name).get("status") or {}).get("containerStatuses") or [{}]
        state: dict[str, Any] = statuses[0].get("state") or {}
        return state

    def _pod(self, request: web.Request, name: str) -> dict[str, Any]:
        pod = self._cluster.item("Pod", name, request.match_info["namespace"])
        if pod is None:
            raise failures.not_found(BY_NAME["Pod"], name)
        return pod


def _scheduled(pod: dict[str, Any]) -> dict[str, str]:
    """The condition that tells whether the pod has a node; empty where there is none."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    return next((each for each in conditions if each["type"] == "PodScheduled"), {})


async def _down(reader: asyncio.StreamReader, remote: web.WebSocketResponse) -> None:
    while content := await reader.read(32 * 1024):
        await remote.send_bytes(b"\x00" + content)


async def _up(remote: web.WebSocketResponse, writer: asyncio.StreamWriter) -> None:
    async for message in remote:
        if message.type == WSMsgType.BINARY and message.data[:1] == b"\x00":
            writer.write(message.data[1:])
            await writer.drain()


def _cut(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return response
