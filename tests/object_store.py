"""Object stores for tests, and a proxy that makes them fail: `python -m tests.object_store [--kind gs]`."""

from __future__ import annotations

import argparse
import functools
import http.client
import http.server
import json
import logging
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Self

from tests.waiting import PATIENCE_SECONDS

BUCKET = "sweeps"
CONTROL = "/__faults__"
SLOW_DOWN = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"""

NO_SUCH_UPLOAD = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>NoSuchUpload</Code><Message>The specified multipart upload does not exist.</Message></Error>"""


@dataclass(frozen=True)
class Faults:
    """What a proxy does to requests of these `methods`; all others pass."""

    failing_share: float = 0.0
    """Answered with 503 SlowDown, and not passed on."""
    dropping_share: float = 0.0
    """Passed on; then the connection is cut without an answer."""
    delay_seconds: float = 0.0
    """The wait of all of them."""
    methods: str = "PUT POST"
    seed: int = 0


class FaultyProxy:
    """Passes requests on the loopback interface on to `target` (host:port), with `faults`.

    From another process: GET `/__faults__?failing_share=0.3&seed=1` sets the faults (those not named are none) and
    GET `/__faults__` leaves them; both answer with {"faults": ..., "requests": {"PUT": 3, ...}} as JSON. Setting them
    sets the counts back.
    """

    def __init__(self, target: str, port: int = 0) -> None:
        self.target = target
        self._lock = threading.Lock()
        self._ended: set[str] = set()
        self.set_faults(Faults())
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def set_faults(self, faults: Faults) -> None:
        """Do this from now on, drawing from the seed anew."""
        with self._lock:
            self.faults, self._random = faults, random.Random(faults.seed)
            self.requests: Counter[str] = Counter()

    def draw(self, method: str) -> tuple[str, float]:
        """What happens to a request ('fail', 'drop' or 'pass'), and after how many seconds."""
        with self._lock:
            self.requests[method] += 1
            if method not in self.faults.methods.split():
                return "pass", 0.0
            drawn = self._random.random()
            fate = "pass"
            if drawn < self.faults.failing_share:
                fate = "fail"
            elif drawn < self.faults.failing_share + self.faults.dropping_share:
                fate = "drop"
            return fate, self.faults.delay_seconds

    def ends_twice(self, path: str) -> bool:
        """Whether a multipart upload is ended that was ended before, which is an error in some stores (not in moto)."""
        with self._lock:
            twice = path in self._ended
            self._ended.add(path)
            return twice

    def state(self) -> dict[str, Any]:
        """Faults and counts, for the control requests."""
        with self._lock:
            return {"faults": asdict(self.faults), "requests": dict(self.requests)}

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    owner: FaultyProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _handle(self) -> None:
        body = self._body()
        path = urllib.parse.urlsplit(self.path)
        if path.path == CONTROL:
            if path.query:
                given = dict(urllib.parse.parse_qsl(path.query))
                values = {name: type(getattr(Faults, name))(value) for name, value in given.items()}
                self.owner.set_faults(Faults(**values))
            return self._answer(200, {"Content-Type": "application/json"}, json.dumps(self.owner.state()).encode())
        fate, seconds = self.owner.draw(self.command)
        time.sleep(seconds)
        if fate == "fail":
            return self._answer(503, {"Content-Type": "application/xml"}, SLOW_DOWN)
        if self.command == "POST" and "uploadId=" in path.query and self.owner.ends_twice(self.path):
            return self._answer(404, {"Content-Type": "application/xml"}, NO_SUCH_UPLOAD)
        connection = http.client.HTTPConnection(self.owner.target, timeout=PATIENCE_SECONDS)
        try:
            replaced = ("expect", "transfer-encoding", "content-length")
            headers = {name: value for name, value in self.headers.items() if name.lower() not in replaced}
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if fate == "drop":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return None
        return self._answer(response.status, dict(response.getheaders()), content)

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            continue  # trailers
        return body

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = next((value for name, value in headers.items() if name.lower() == "content-length"), None)
        self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextmanager
def serving(kind: str = "s3", port: int = 0, store_port: int = 0) -> Iterator[tuple[str, FaultyProxy]]:
    """A store ('s3' or 'gs') with an empty bucket in this process: its own address, and the proxy before it.

    Arrow holds the interpreter's lock while it reads from gs, so clients must be other processes.
    """
    start = _start_s3 if kind == "s3" else _start_gs
    with FaultyProxy(start(store_port), port) as proxy:
        yield f"http://{proxy.target}", proxy


def _start_s3(port: int) -> str:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    target = "{}:{}".format(*server.get_host_and_port())
    urllib.request.urlopen(urllib.request.Request(f"http://{target}/{BUCKET}", data=b"", method="PUT")).close()
    return target


def _start_gs(port: int) -> str:
    from gcp_storage_emulator import server as emulator

    emulator.HTTPServer = functools.partial(http.server.ThreadingHTTPServer)
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket=BUCKET)
    server.start()
    return f"127.0.0.1:{server._api._httpd.server_port}"


@dataclass(frozen=True)
class Store:
    """A store in another process. `address` is the proxy's, `direct` that of the store itself."""

    address: str
    direct: str

    def set_faults(self, **faults: float | str) -> None:
        """See `Faults`; without any, none."""
        self._control("?" + urllib.parse.urlencode(faults or {"seed": 0}))

    def requests(self) -> dict[str, int]:
        """How many of each method came since the faults were set."""
        counted: dict[str, int] = self._control("")["requests"]
        return counted

    def _control(self, query: str) -> Any:
        with urllib.request.urlopen(f"{self.address}{CONTROL}{query}", timeout=PATIENCE_SECONDS) as response:
            return json.load(response)


@contextmanager
def started(kind: str = "s3") -> Iterator[Store]:
    """A store and its proxy in a process of their own."""
    command = [sys.executable, "-m", "tests.object_store", "--kind", kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            addresses = process.stdout.readline().split()
            assert len(addresses) == 2, f"{kind} did not start"
            yield Store(*addresses)
        finally:
            process.terminate()


def main() -> None:
    """Serve until standard input ends or a signal comes; prints the proxy's address and the store's own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=("s3", "gs"), default="s3")
    parser.add_argument("--port", type=int, default=0, help="the proxy's; 0: a free one")
    parser.add_argument("--store-port", type=int, default=0, help="the store's own; 0: a free one")
    arguments = parser.parse_args()
    with serving(arguments.kind, arguments.port, arguments.store_port) as (direct, proxy):
        print(proxy.address, direct, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
