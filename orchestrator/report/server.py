"""The live page over HTTP, for a reader or a few: the standard library's server, on loopback unless told otherwise."""

from __future__ import annotations

import errno
import ipaddress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from orchestrator.ledger import Ledger
from orchestrator.report.assembly import assemble, links
from orchestrator.report.contents import Commands
from orchestrator.report.downloads import HOLDS
from orchestrator.report.watching import REFRESH_SECONDS, Answer, Watch
from orchestrator.storage import StorageError

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


class ReportServer(ThreadingHTTPServer):
    """Serves one sweep; `with` closes its socket. `serve_forever` returns when it is shut down or interrupted.

    A server on loopback answers only requests that name a loopback host: a page of another site whose name was made to
    point here (DNS rebinding) gets nothing.

    Raises:
        ConnectionError: the port is taken, or the address is none of this machine.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(
        self, ledger: Ledger, commands: Commands, host: str, port: int, *, refresh_seconds: float = REFRESH_SECONDS
    ) -> None:
        self.watch = Watch(ledger, commands, refresh_seconds=refresh_seconds)
        listed = links((name, holds, None) for name, holds in HOLDS.items())
        self.page = assemble(ledger.name, None, {"links": listed}, poll_seconds=max(refresh_seconds, 0.2))
        self.is_loopback = _is_loopback(host)
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConnectionError(
                    f"port {port} on {host} is taken: choose another with --port, or --port 0 for a free one"
                ) from error
            raise ConnectionError(f"cannot serve on {host} port {port}: {error.strerror or error}") from error

    @property
    def url(self) -> str:
        """The address to open."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}/"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Handler(BaseHTTPRequestHandler):
    server: ReportServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "bo-sweep", ""
    timeout = 60  # a reader that has gone does not keep its thread

    def do_GET(self) -> None:
        if self.server.is_loopback and not _names_loopback(self.headers.get("Host", "")):
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "This server answers to localhost and 127.0.0.1 alone.")
            return
        address = urlsplit(self.path)
        try:
            self._route(address.path, parse_qs(address.query))
        except (StorageError, OSError, ValueError) as error:
            if isinstance(error, ConnectionError):  # the reader has gone
                self.close_connection = True
                return
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, str(error))

    def _route(self, path: str, query: dict[str, list[str]]) -> None:
        watch = self.server.watch
        if path == "/":
            self._send(self.server.page, "text/html; charset=utf-8")
        elif path == "/state":
            self._send_tagged(watch.state())
        elif path == "/document":
            document = watch.document()
            self._send_tagged(document) if document else self._refuse(HTTPStatus.NOT_FOUND, "There is no sweep yet.")
        elif path == "/curves":
            curves = watch.curves(query.get("cell", [""])[0])
            if curves is None:
                self._refuse(HTTPStatus.NOT_FOUND, "There is no such cell.")
            else:
                self._send(curves, "application/octet-stream")
        elif path.startswith("/download/") and path.removeprefix("/download/") in HOLDS:
            file = watch.download(path.removeprefix("/download/"))
            if file is None:
                self._refuse(HTTPStatus.NOT_FOUND, "There is no sweep yet.")
            else:
                named = f'attachment; filename="{file.name}"'
                self._send(file.content, "application/octet-stream", {"Content-Disposition": named})
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "There is nothing here; the page is at /.")

    def _send_tagged(self, answer: Answer) -> None:
        tag = f'"{answer.tag}"'
        if self.headers.get("If-None-Match") == tag:
            self.send_response(HTTPStatus.NOT_MODIFIED)
            self.send_header("ETag", tag)
            self.end_headers()
            return
        self._send(answer.body, "application/json", {"ETag": tag})

    def _send(self, body: bytes, kind: str, headers: dict[str, str] | None = None, status: int = HTTPStatus.OK) -> None:
        self.send_response(status)
        always = {"Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": "no-store"}
        safe = {"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer"}
        for name, value in {**always, **safe, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status: HTTPStatus, words: str) -> None:
        self._send(words.encode(), "text/plain; charset=utf-8", status=status)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: a line for every poll helps nobody."""


def _names_loopback(host: str) -> bool:
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    return name.lower() in LOOPBACK_NAMES
