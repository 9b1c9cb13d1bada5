"""Ports of pods on this machine: each connection to a local port goes through the API to a port of a pod."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from orchestrator.k8s.client.api import Api, ClusterError
from orchestrator.k8s.client.errors import refusal
from orchestrator.k8s.watching.log_stream import authorization
from orchestrator.k8s.watching.relay import relay

PROTOCOL = "v4.channel.k8s.io"
ACCEPT_SECONDS = 0.2
"""How long a closed tunnel may still wait for connections."""
CLOSE_SECONDS = 5.0


@contextmanager
def forwarded(api: Api, pod: str, port: int, local_port: int = 0) -> Iterator[int]:
    """A local TCP port, on 127.0.0.1, while the block runs: what connects to it speaks with the pod's port.

    `local_port` 0 takes a free one. A connection that breaks is closed on our side too, and the next one is made anew.

    Raises:
        ClusterError: the pod is not there, or ports may not be forwarded.
        ValueError: the local port is taken.
    """
    with Tunnel(api, lambda: pod, port, local_port) as tunnel:
        open_websocket(api, pod, port).close()  # tells at once what would fail at every connection
        yield tunnel.local_port


class Tunnel:
    """Listens on a local port; each connection gets a thread and a websocket to the pod that `find_pod` names then.

    Attributes:
        local_port: where it listens, on 127.0.0.1.
        problem: why the last connection that failed did so; '' where none did.
    """

    def __init__(
        self,
        api: Api,
        find_pod: Callable[[], str],
        port: int,
        local_port: int = 0,
        tell: Callable[[str], None] = lambda words: None,
    ) -> None:
        self._api, self._find_pod, self._port, self._tell = api, find_pod, port, tell
        self.problem = ""
        try:
            self._server = socket.create_server(("127.0.0.1", local_port))
        except OSError as error:
            raise ValueError(
                f"port {local_port} of this machine cannot be used ({error.strerror}): choose another with --port, "
                "0 for any that is free"
            ) from error
        self._server.settimeout(ACCEPT_SECONDS)
        self.local_port: int = self._server.getsockname()[1]
        self._closing = threading.Event()
        self._connections: set[threading.Thread] = set()
        self._acceptor = threading.Thread(target=self._accept, name=f"tunnel to port {port}", daemon=True)

    def __enter__(self) -> Tunnel:
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the port and all connections."""
        self._closing.set()
        self._acceptor.join(CLOSE_SECONDS)
        self._server.close()
        end = time.monotonic() + CLOSE_SECONDS
        for connection in list(self._connections):
            connection.join(max(0.0, end - time.monotonic()))

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                local, _ = self._server.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(local,), name="tunnel connection", daemon=True)
            self._connections.add(thread)
            thread.start()

    def _serve(self, local: socket.socket) -> None:
        with local:
            try:
                remote = open_websocket(self._api, self._find_pod(), self._port)
                with contextlib.closing(remote):
                    problem = relay(local, remote, self._closing)
            except (ConnectionError, ValueError) as error:  # ValueError: what was to be found is there no more
                problem = str(error)
            if problem:
                self.problem = problem
                self._tell(problem)
        self._connections.discard(threading.current_thread())


def open_websocket(api: Api, pod: str, port: int) -> Any:
    """A websocket to a pod's port, by the official client: with its certificates, proxies and credentials.

    Its own `portforward` is not used: it reads without limit what the other side does not take, and puts another
    function into the shared client for the time of the call, which is not safe with several threads.

    Raises:
        ClusterError: the pod is not there, or ports may not be forwarded.
    """
    import websocket
    from kubernetes.stream.ws_client import create_websocket

    scheme, _, rest = api.host.partition("://")
    path = f"/api/v1/namespaces/{quote(api.namespace)}/pods/{quote(pod)}/portforward?ports={port}"
    url = f"{'wss' if scheme == 'https' else 'ws'}://{rest}{path}"
    asked = f"forward port {port} of {pod}"
    try:
        headers = authorization(api) | {"sec-websocket-protocol": PROTOCOL}
        return create_websocket(api.client.configuration, url, headers)  # type: ignore[no-untyped-call]
    except websocket.WebSocketBadStatusException as error:
        body = error.resp_body or b""
        text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
        raise refusal(error.status_code, text, asked=asked, host=api.host, namespace=api.namespace) from error
    except (websocket.WebSocketException, OSError) as error:
        raise ClusterError(f"{api.host}: cannot {asked}: {error}") from error
