"""Read-only files over HTTP: what the reader pod of `bo-sweep fetch` runs. Of the standard library, to start at once.

    python -m orchestrator.k8s.fetching.file_server /results --port 8000

    GET /list?folder=F       {"files": [{"path": ..., "size": bytes, "modified": seconds}]}   those directly in it
    GET /folders?folder=F    {"folders": [...]}
    GET, HEAD /file?path=P   the content; up to HASHED_BYTES with its SHA-256 in Content-Digest (RFC 9530), of larger
                             files with an ETag, by which Range and If-Range bring the rest of that very version

It listens on the loopback interface only: a port-forward reaches it, which the cluster's access rules govern, and
nothing else does. Nothing outside the root is served, whatever a path or a symbolic link says. As in `Storage`, names
that begin with a dot are no files.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, NoReturn
from urllib.parse import parse_qs, urlsplit

IDLE_MINUTES = 10.0
"""Without a request for so long, the client is gone."""
CHUNK_BYTES = 1 << 20
HASHED_BYTES = 32 << 20
"""Larger files come without a digest: while it was made on slow storage, no byte would come, and what forwards the port
may take that for the end. Parts of a ledger have digests in their names, and the connection is checked by TLS."""
YOUNG_SECONDS = 10.0
"""A file that changed later than so long ago gets no ETag: the next version might have the same times."""


class FileServer(ThreadingHTTPServer):
    """Serves the files of one folder on 127.0.0.1; a thread a connection."""

    daemon_threads = True
    request_queue_size = 64
    timeout = 0.5

    def __init__(self, root: Path, port: int = 0) -> None:
        self.root = root.resolve(strict=True)
        self._lock = threading.Lock()
        self._active = 0
        self._last = time.monotonic()
        super().__init__(("127.0.0.1", port), _Handler)

    def serve_while_used(self, idle_seconds: float) -> None:
        """Serve until no request has come for so long."""
        while self._active or time.monotonic() - self._last < idle_seconds:
            self.handle_request()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        with self._lock:
            self._active += 1
        try:
            yield
        finally:
            with self._lock:
                self._active -= 1
                self._last = time.monotonic()


class _RefusedError(Exception):
    """A request that is answered with an error: the HTTP status and what is wrong."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 120
    """Seconds without a byte after which a connection is closed."""

    def do_GET(self) -> None:
        with self.server.in_use():
            try:
                self._answer()
            except _RefusedError as error:
                self._send_json({"error": str(error)}, error.status)
            except (BrokenPipeError, ConnectionResetError, TimeoutError):
                self.close_connection = True  # the client is gone
            except OSError as error:
                self._send_json({"error": error.strerror or str(error)}, _status_of(error))

    do_HEAD = do_GET  # noqa: N815

    def _answer(self) -> None:
        request = urlsplit(self.path)
        query = parse_qs(request.query, keep_blank_values=True)
        if request.path == "/file":
            self._send_file(self._inside(query.get("path", [""])[0]))
            return
        folder = query.get("folder", [""])[0]
        if request.path == "/list":
            self._send_json({"files": list(self._files(folder))})
        elif request.path == "/folders":
            self._send_json({"folders": sorted(entry.name for entry in self._entries(folder) if entry.is_dir())})
        else:
            raise _RefusedError(404, f"no such address: {request.path}; there are /list, /folders and /file")

    def _inside(self, path: str) -> Path:
        """The path that a client names, in the root. Raises _RefusedError."""
        parts = path.split("/") if path else []
        if any(not part or part.startswith(".") or "\0" in part for part in parts):
            raise _RefusedError(400, f"{path!r} is no path in the folder that is served")
        return self._checked(self.server.root.joinpath(*parts))

    def _checked(self, path: Path) -> Path:
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(self.server.root):
            raise _RefusedError(400, f"{path.name!r} leads out of the folder that is served")
        return real

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        """What is in a folder, without what leads out of the root; nothing where there is no such folder."""
        try:
            with os.scandir(self._inside(folder)) as entries:
                seen = [entry for entry in entries if not entry.name.startswith(".")]
        except (FileNotFoundError, NotADirectoryError):
            return []
        root = self.server.root
        return [entry for entry in seen if not entry.is_symlink() or Path(os.path.realpath(entry)).is_relative_to(root)]

    def _files(self, folder: str) -> Iterator[dict[str, Any]]:
        for entry in sorted(self._entries(folder), key=lambda entry: entry.name):
            try:
                if entry.is_file():
                    state = entry.stat()
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    yield {"path": path, "size": state.st_size, "modified": state.st_mtime}
            except FileNotFoundError:
                continue  # deleted while we looked

    def _send_file(self, path: Path) -> None:
        """Through one handle: a file that is replaced meanwhile is sent as it was."""
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            state = os.fstat(handle)
            if not stat.S_ISREG(state.st_mode):
                raise _RefusedError(404, "no such file")
            size, content = state.st_size, self.command != "HEAD"
            large = size > HASHED_BYTES
            digest = _sha256(file) if content and not large else ""  # before the status: it may fail
            tag = _tag(state) if content and large else ""
            start = self._start(tag, size)
            self.send_response(206 if start else 200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(size - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            if digest:
                self.send_header("Content-Digest", f"sha-256=:{digest}:")
            if tag:
                self.send_header("ETag", tag)
            self.end_headers()
            if content:
                file.seek(start)
                self._send_content(file, size - start)

    def _start(self, tag: str, size: int) -> int:
        """From where on a client lacks this very version; 0 for all of it."""
        asked = re.fullmatch(r"bytes=(\d{1,20})-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and tag and self.headers.get("If-Range") == tag else 0
        return start if start < size else 0

    def _send_content(self, file: BinaryIO, size: int) -> None:
        """Neither more nor less than was announced, though the file be written to; else the connection ends here."""
        try:
            while size and (chunk := file.read(min(size, CHUNK_BYTES))):
                self.wfile.write(chunk)
                size -= len(chunk)
        except OSError:
            pass  # too late for an error; the client sees that the content is cut short
        self.close_connection = self.close_connection or size > 0

    def _send_json(self, content: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Quiet: the pod's log is for what goes wrong."""


def _tag(state: os.stat_result) -> str:
    """Names one version of a file, which is replaced and not written into; '' where that is not certain yet.

    A version that comes later is another inode; or, where that number is given out again, one with a later time.
    """
    if time.time() - max(state.st_mtime, state.st_ctime) < YOUNG_SECONDS:
        return ""
    parts = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    return f'"{"-".join(f"{part:x}" for part in parts)}"'


def _status_of(error: OSError) -> int:
    if isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError)):
        return 404
    return 403 if isinstance(error, PermissionError) else 500


def _sha256(file: BinaryIO) -> str:
    hasher = hashlib.sha256()
    while chunk := file.read(CHUNK_BYTES):
        hasher.update(chunk)
    return base64.b64encode(hasher.digest()).decode()


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM, or until nobody asks any more; prints the address."""
    parser = argparse.ArgumentParser(prog="file_server", description="Serve the files of a folder on 127.0.0.1.")
    parser.add_argument("root", type=Path, help="folder to serve")
    parser.add_argument("--port", type=int, default=8000, help="0 for a free one (default: 8000)")
    parser.add_argument(
        "--idle-minutes", type=float, default=IDLE_MINUTES, help="leave after so long without a request"
    )
    given = parser.parse_args(arguments)

    def leave(*_: object) -> NoReturn:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)  # as the first process of a container it would not get it otherwise
    try:
        server = FileServer(given.root, given.port)
    except OSError as error:
        sys.exit(f"cannot serve {given.root} on port {given.port}: {error.strerror or error}")
    with server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_while_used(60 * given.idle_minutes)


if __name__ == "__main__":
    main()
