"""Forwarded ports: through the real protocol to a real server, with large transfers, half-closed and broken ends."""

from __future__ import annotations

import gc
import hashlib
import resource
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from orchestrator.k8s.client.api import Api, Connection, ForbiddenError, NotFoundError, connect
from orchestrator.k8s.watching import relay
from orchestrator.k8s.watching.tunnel import Tunnel, forwarded
from tests.cluster_scenes import HEAD, pod
from tests.kubernetes_api import FakeCluster
from tests.kubernetes_api.certificates import make_certificate
from tests.kubernetes_api.streams import streams_of
from tests.waiting import PATIENCE_SECONDS, wait_for


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A TCP server in a thread; each connection is handled by `serve` in one of its own."""
    server = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    def one(connection: socket.socket) -> None:
        with connection, suppress(ConnectionError):
            serve(connection)

    threading.Thread(target=accept, daemon=True).start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)


def echo(connection: socket.socket) -> None:
    while content := connection.recv(65536):
        connection.sendall(content)


@pytest.fixture(params=["plain", "TLS"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FakeCluster]:
    with FakeCluster(tls=make_certificate(tmp_path)[0] if request.param == "TLS" else None) as cluster:
        cluster.put(pod(HEAD))
        yield cluster


@pytest.fixture
def api(cluster: FakeCluster, tmp_path: Path) -> Api:
    secure = cluster.address.startswith("https")
    authority = {"certificate-authority": str(tmp_path / "server.crt")} if secure else {}
    return connect(Connection(kubeconfig=cluster.kubeconfig(tmp_path / "kubeconfig", **authority)))


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_several_connections_speak_with_the_pod_at_once_and_nothing_stays_open(cluster: FakeCluster, api: Api) -> None:
    threads = set(threading.enumerate())
    with listening(echo) as port:
        streams_of(cluster).ports[HEAD, 8265] = port
        with forwarded(api, HEAD, 8265) as local_port:
            connections = [connected(local_port) for _ in range(4)]
            for number, connection in enumerate(connections):
                connection.sendall(f"hello {number}".encode())
            for number, connection in enumerate(connections):
                assert connection.recv(100) == f"hello {number}".encode()
            connections[0].close()
        for connection in connections[1:]:
            assert connection.recv(100) == b""
            connection.close()
        wait_for(lambda: streams_of(cluster).open_now == 0)
    with pytest.raises(OSError, match="refused"):
        connected(local_port)
    ours = [thread for thread in set(threading.enumerate()) - threads if thread.name.startswith("tunnel")]
    assert ours == []


def test_http_goes_through(cluster: FakeCluster, api: Api) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with listening(serve) as port:
        streams_of(cluster).ports[HEAD, 8265] = port
        with forwarded(api, HEAD, 8265) as local_port:
            answer = urllib.request.urlopen(f"http://127.0.0.1:{local_port}/api/version", timeout=PATIENCE_SECONDS)
            assert answer.read() == b"ok"
            answer.close()


def test_a_large_answer_comes_whole_and_waits_for_a_slow_reader_without_filling_memory(
    cluster: FakeCluster, api: Api
) -> None:
    block, blocks = bytes(range(256)) * 4096, 60
    sent = 0

    def serve(connection: socket.socket) -> None:
        nonlocal sent
        for _ in range(blocks):
            connection.sendall(block)
            sent += 1

    with listening(serve) as port:
        streams_of(cluster).ports[HEAD, 8265] = port
        with forwarded(api, HEAD, 8265) as local_port, connected(local_port) as client:
            time.sleep(0.4)
            assert sent < blocks / 2  # it waits: only buffers of sockets are full
            gc.collect()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            found, count = hashlib.sha256(), 0
            while part := client.recv(2**20):
                found.update(part)
                count += len(part)
            assert count == blocks * len(block)
            expected = hashlib.sha256()
            for _ in range(blocks):
                expected.update(block)
            assert found.digest() == expected.digest()
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024  # KiB


def test_both_ways_at_once_do_not_block_each_other(cluster: FakeCluster, api: Api) -> None:
    content = bytes(range(256)) * 2**15
    with listening(echo) as port:
        streams_of(cluster).ports[HEAD, 8265] = port
        with forwarded(api, HEAD, 8265) as local_port, connected(local_port) as client:
            received = bytearray()
            reader = threading.Thread(target=lambda: received.extend(iter_exactly(client, len(content))), daemon=True)
            reader.start()
            client.sendall(content)
            reader.join(PATIENCE_SECONDS)
            assert bytes(received) == content


def iter_exactly(connection: socket.socket, count: int) -> bytes:
    found = bytearray()
    while len(found) < count:
        found += connection.recv(65536)
    return bytes(found)


def test_one_who_sends_no_more_still_gets_the_answer(cluster: FakeCluster, api: Api) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(100)
        time.sleep(0.5)
        connection.sendall(b"late answer")

    with listening(serve) as port:
        streams_of(cluster).ports[HEAD, 8265] = port
        with forwarded(api, HEAD, 8265) as local_port, connected(local_port) as client:
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"late answer"


def test_a_connection_whose_client_left_does_not_stay_open_for_ever(
    cluster: FakeCluster, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "HALF_CLOSED_SECONDS", 0.3)
    with listening(echo) as port:
        streams_of(cluster).ports[HEAD, 8265] = port
        with forwarded(api, HEAD, 8265) as local_port:
            with connected(local_port) as client:
                client.sendall(b"x")
                assert client.recv(1) == b"x"
            wait_for(lambda: streams_of(cluster).open_now == 0)


def test_a_connection_on_which_nothing_is_said_is_kept_open_by_pings(
    cluster: FakeCluster, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    import websocket

    pings: list[object] = []
    ping = websocket.WebSocket.ping

    def counted(self: websocket.WebSocket) -> None:
        pings.append(self)
        ping(self)

    monkeypatch.setattr(websocket.WebSocket, "ping", counted)
    monkeypatch.setattr(relay, "PING_SECONDS", 0.0)
    with listening(echo) as port:
        streams_of(cluster).ports[HEAD, 8265] = port
        with forwarded(api, HEAD, 8265) as local_port, connected(local_port) as client:
            wait_for(lambda: len(pings) > 1)
            client.sendall(b"x")
            assert client.recv(1) == b"x"


def test_a_pod_that_cannot_be_named_any_more_is_told_and_leaves_no_trace(cluster: FakeCluster, api: Api) -> None:
    def find() -> str:
        raise ValueError("no sweep of this name")

    told: list[str] = []
    with Tunnel(api, find, 8265, tell=told.append) as tunnel:
        with connected(tunnel.local_port) as client:
            assert read_all(client) == b""
        wait_for(lambda: told == ["no sweep of this name"])


def test_a_port_on_which_nothing_listens_is_told_in_the_cluster_s_words(cluster: FakeCluster, api: Api) -> None:
    told: list[str] = []
    with Tunnel(api, lambda: HEAD, 8265, tell=told.append) as tunnel:
        with connected(tunnel.local_port) as client:
            assert read_all(client) == b""
        wait_for(lambda: bool(told))
    assert "connection refused" in told[0]
    assert tunnel.problem == told[0]


def test_a_pod_that_goes_closes_its_connections_and_the_next_one_finds_its_successor(
    cluster: FakeCluster, api: Api
) -> None:
    current = HEAD
    with listening(echo) as port, Tunnel(api, lambda: current, 8265) as tunnel:
        streams_of(cluster).ports[HEAD, 8265] = port
        with connected(tunnel.local_port) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            cluster.remove("Pod", HEAD)
            assert client.recv(1) == b""
        with connected(tunnel.local_port) as client:
            assert client.recv(1) == b""
        wait_for(lambda: "not found" in tunnel.problem)
        current = "successor"
        cluster.put(pod(HEAD) | {"metadata": {"name": current}})
        streams_of(cluster).ports[current, 8265] = port
        with connected(tunnel.local_port) as client:
            client.sendall(b"y")
            assert client.recv(1) == b"y"


def test_what_cannot_be_forwarded_is_told_before_anything_connects(cluster: FakeCluster, api: Api) -> None:
    with pytest.raises(NotFoundError, match="gone"), forwarded(api, "gone", 8265):
        pass
    cluster.forbid("get", "pods/portforward")
    with pytest.raises(ForbiddenError, match="pods/portforward"), forwarded(api, HEAD, 8265):
        pass
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} .*--port"), forwarded(api, HEAD, 8265, port):
            pass
