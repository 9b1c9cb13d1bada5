"""A claim's files as read-only storage, through the HTTP server of a reader pod (file_server.py)."""

from __future__ import annotations

import base64
import builtins
import hashlib
import http.client
import io
import json
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pyarrow as pa

from orchestrator.storage import MissingFileError, Storage, StorageError, StoredFile

ATTEMPTS = 6
"""Times that a request is sent whose connection breaks or whose answer is damaged, without any more of it coming."""
PAUSE_SECONDS = (0.1, 2.0)
"""The first wait before another attempt, doubled up to the second."""
SILENCE_SECONDS = 60.0
CHUNK_BYTES = 1 << 20


class _BrokenAnswerError(Exception):
    """An answer that did not come whole."""


@dataclass
class _Begun:
    """A large file, as far as it has come over connections that broke.

    Attributes:
        tag: of the version that it is of; '' before anything came.
        content: from its first byte on.
    """

    tag: str = ""
    content: io.BytesIO = field(default_factory=io.BytesIO)

    @property
    def size(self) -> int:
        return self.content.tell()

    def headers(self) -> dict[str, str]:
        """Ask for what lacks, or for all of another version."""
        return {"Range": f"bytes={self.size}-", "If-Range": self.tag} if self.size else {}

    def finish(self, response: http.client.HTTPResponse, tag: str) -> bytes:
        """The whole content, of one version. Raises HTTPException, OSError, _BrokenAnswerError: not all has come."""
        whole = self.size + (response.length or 0)
        span = f"bytes {self.size}-{whole - 1}/{whole}"
        if response.status != 206:
            self.tag, self.content = tag, io.BytesIO()
        elif (tag, response.getheader("Content-Range")) != (self.tag, span):
            self.tag, self.content = "", io.BytesIO()
            raise _BrokenAnswerError("what arrives is not what was asked for")
        while chunk := response.read(CHUNK_BYTES):
            self.content.write(chunk)
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
        return self.content.getvalue()


@dataclass(frozen=True)
class ClaimStorage(Storage):
    """A folder of a claim, for reading.

    Attributes:
        address: of the server, as http://127.0.0.1:port.
        label: the claim as messages name it.
        folder: in what the server serves; '' for all of it.
    """

    address: str
    label: str
    folder: str = ""

    @property
    def url(self) -> str:
        return self.location("")

    @property
    def name(self) -> str:
        return self.folder.rpartition("/")[2] or self.label

    def child(self, name: str) -> ClaimStorage:
        return replace(self, folder=self._path(name))

    def location(self, path: str) -> str:
        return ":/".join(part for part in (self.label, self._path(path)) if part)

    def local_path(self, path: str = "") -> Path | None:
        return None

    def read(self, path: str) -> bytes:
        return self._ask("GET", "file", "read", path)

    def folders(self) -> builtins.list[str]:
        return [str(name) for name in self._list("folders", "")]

    def list(self, folder: str = "") -> builtins.list[StoredFile]:
        files, there = [], self._path(folder)
        for file in self._list("files", folder):
            above, _, name = file["path"].rpartition("/")
            if above != there or not name or name.startswith("."):
                raise StorageError(f"cannot list {self.location(folder)}: {file['path']!r} is no name of a file in it")
            files.append(StoredFile(f"{folder}/{name}" if folder else name, int(file["size"]), float(file["modified"])))
        return files

    def exists(self, path: str) -> bool:
        try:
            self._ask("HEAD", "file", "read", path)
        except MissingFileError:
            return False
        return True

    def write(self, path: str, content: bytes | pa.Buffer) -> None:
        raise self._read_only("write", path)

    def delete(self, path: str) -> None:
        raise self._read_only("delete", path)

    def check_writable(self) -> None:
        raise self._read_only("write", "")

    def _path(self, path: str) -> str:
        return "/".join(part for part in (self.folder, path) if part)

    def _read_only(self, verb: str, path: str) -> StorageError:
        return StorageError(
            f"cannot {verb} {self.location(path)}: the claim is mounted for reading only. "
            "Sweeps in it are changed by launches on the cluster"
        )

    def _list(self, what: str, folder: str) -> Any:
        route = "list" if what == "files" else what
        return json.loads(self._ask("GET", route, "list", folder))[what]

    def _ask(self, method: str, route: str, verb: str, path: str) -> bytes:
        """The body of the answer. Raises MissingFileError, StorageError."""
        name = "path" if route == "file" else "folder"
        target = f"/{route}?{urlencode({name: self._path(path)})}"
        begun, most, attempt = _Begun(), 0, 0
        pause, longest = PAUSE_SECONDS
        while True:
            attempt += 1
            try:
                status, body = _exchange(self.address, method, target, begun)
                break
            except (OSError, http.client.HTTPException, _BrokenAnswerError) as error:
                _hang_up(self.address)
                if begun.size > most:
                    most, attempt, pause = begun.size, 0, PAUSE_SECONDS[0]
                if attempt == ATTEMPTS:
                    reason = str(error) or type(error).__name__
                    raise StorageError(
                        f"cannot {verb} {self.location(path)}: the reader pod does not answer any more ({reason}). "
                        "Run the same command again: it goes on from what is there"
                    ) from error
                time.sleep(pause)
                pause = min(2 * pause, longest)
        if status == 404:
            raise MissingFileError(f"{self.location(path)} does not exist")
        if status != 200:
            raise StorageError(
                f"cannot {verb} {self.location(path)}: {_error_in(body, status)}. Check the permissions in the claim"
            )
        return body


_open = threading.local()
"""Connections of this thread, by address: a port-forward makes each anew through the API server, which takes time."""


def _exchange(address: str, method: str, target: str, begun: _Begun) -> tuple[int, bytes]:
    """Status and body, which is what was sent; of a large file that has `begun` to come only the rest is."""
    connections: dict[str, http.client.HTTPConnection] = vars(_open).setdefault("connections", {})
    if address not in connections:
        connections[address] = http.client.HTTPConnection(urlsplit(address).netloc, timeout=SILENCE_SECONDS)
    connections[address].request(method, target, headers=begun.headers())
    response = connections[address].getresponse()
    tag = response.getheader("ETag")
    if tag:
        return 200, begun.finish(response, tag)
    body = response.read()
    digest = response.getheader("Content-Digest")
    if digest and digest != f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:":
        raise _BrokenAnswerError("what arrives is not what was sent")
    return response.status, body


def _hang_up(address: str) -> None:
    connection = vars(_open).setdefault("connections", {}).pop(address, None)
    if connection:
        connection.close()


def _error_in(body: bytes, status: int) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {status}"
