"""A Ray cluster with token authentication, as on a cluster's nodes: a head without work, and one node that does it."""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psutil

from tests.waiting import PATIENCE_SECONDS, wait_for

TOKEN = "0123456789abcdef0123456789abcdef"
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class TokenCluster:
    """A running cluster.

    Attributes:
        environment: of whoever is let in: with the token in a file, and `ray` and `bo-sweep` on the PATH.
        dashboard: its port; `gcs` and `client` are those of Ray itself and of Ray Client.
        folder: of its own, for everything.
    """

    environment: Mapping[str, str]
    dashboard: int
    gcs: int
    client: int
    folder: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.dashboard}"

    def get(self, path: str, seconds: float = PATIENCE_SECONDS) -> Any:
        """What the dashboard answers."""
        request = urllib.request.Request(f"{self.address}{path}", headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=seconds) as response:
            return json.loads(response.read())

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command as a user of the cluster."""
        variables = {**self.environment, **environment}
        return subprocess.run(
            command, env=variables, capture_output=True, text=True, timeout=PATIENCE_SECONDS, cwd=self.folder
        )


@contextmanager
def token_cluster(
    head_environment: Mapping[str, str] | None = None, node_environment: Mapping[str, str] | None = None
) -> Iterator[TokenCluster]:
    """A cluster with two CPUs, on its worker node; all its processes are gone at the end.

    Args:
        head_environment: more variables of the head, as its pod has them; `node_environment` likewise.
    """
    dashboard, gcs, client, *agents = free_ports(5)
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as name:  # Ray wants short paths
        folder = Path(name)
        (folder / "token").write_text(TOKEN)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        environment |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }
        cluster = TokenCluster(environment, dashboard, gcs, client, folder)
        head = [
            *("--head", f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"),
            *("--include-dashboard=true", "--dashboard-host=127.0.0.1", "--num-cpus=0", "--num-gpus=0"),
        ]
        with ExitStack() as nodes:
            nodes.enter_context(_node(cluster, "head", head_environment, agents[0], *head))
            _wait(lambda: cluster.get("/api/version", 10))
            worker = [f"--address=127.0.0.1:{gcs}", "--num-cpus=2"]
            nodes.enter_context(_node(cluster, "node", node_environment, agents[1], *worker))
            _wait(lambda: _alive(cluster) == 2)
            try:
                yield cluster
            finally:
                _kill_drivers(cluster)


def _kill_drivers(cluster: TokenCluster) -> None:
    """Kill what runs with the cluster's token: drivers of jobs outlive it for a while, in groups of their own."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("RAY_AUTH_TOKEN_PATH") == cluster.environment["RAY_AUTH_TOKEN_PATH"]:
                process.kill()


def _alive(cluster: TokenCluster) -> int:
    summary = cluster.get("/nodes?view=summary", 10)["data"]["summary"]
    return sum(node["raylet"].get("state") == "ALIVE" for node in summary)


@contextmanager
def _node(
    cluster: TokenCluster, name: str, environment: Mapping[str, str] | None, agent_port: int, *options: str
) -> Iterator[None]:
    """One node, with a folder of its own: in a common one nodes would replace the working folders of each other."""
    command = [
        str(BIN / "ray"),
        "start",
        "--block",
        "--disable-usage-stats",
        "--object-store-memory=80000000",
        *options,
    ]
    command += [f"--dashboard-agent-listen-port={agent_port}", f"--temp-dir={cluster.folder / name}"]
    variables = {**cluster.environment, **(environment or {})}
    with (cluster.folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            command,
            env=variables,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_adopt_orphans,
        )
    try:
        yield
    finally:
        end_group(process)


def _adopt_orphans() -> None:
    """What becomes `ray start` gets all orphans of its node, and never reaps them: in a pod it is process 1."""
    set_child_subreaper = 36  # linux/prctl.h
    ctypes.CDLL(None, use_errno=True).prctl(set_child_subreaper, 1, 0, 0, 0)


def end_group(process: subprocess.Popen[Any]) -> None:
    """Kill a process and all of its group; SIGTERM would have Ray drain for half a minute."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait(condition: Any) -> None:
    def holds() -> bool:
        with suppress(OSError, HTTPException, KeyError):
            return bool(condition())
        return False

    wait_for(holds, every=0.2)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different: neither of those that Ray's workers take, nor of those that Linux
    gives to whoever asks for any, as it takes seconds until they are used."""
    found, draw = list[int](), random.SystemRandom()
    with ExitStack() as taken:
        while len(found) < count:
            with suppress(OSError):
                taken.enter_context(socket.create_server(("127.0.0.1", port := draw.randrange(20_000, 32_000))))
                found.append(port)
    return found


@contextmanager
def unanswered() -> Iterator[int]:
    """A port where nobody listens, and nobody begins to."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


class Relay:
    """A port that leads to another, over which connections can be cut."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> int:
        """End all connections; returns how many of their ends were open."""
        return sum(map(self._end, list(self._open)))

    def close(self) -> None:
        """Take no more connections, and end those there are."""
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()

    def _end(self, side: socket.socket) -> bool:
        self._open.discard(side)
        try:
            side.shutdown(socket.SHUT_RDWR)
        except OSError:
            return False
        return True

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._open |= {near, far}
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                sink.sendall(piece)
        for side in (source, sink):
            self._end(side)
