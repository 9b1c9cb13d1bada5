"""Storage in an object store, S3 or Google Cloud Storage, through Arrow.

An object appears whole or not at all, and a listing shows what was written before it. What is left to do here: never
close a half-written stream, never mix two contents while reading, and say in plain words what went wrong.
"""

from __future__ import annotations

import builtins
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache, partial
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pyarrow as pa
from pyarrow import fs

from orchestrator.storage import MissingFileError, Storage, StorageError, StoredFile

OPTIONS = {
    "s3": ("endpoint_override", "force_virtual_addressing", "region", "scheme", "tls_ca_file_path"),
    "gs": ("anonymous", "endpoint_override", "project_id", "scheme"),
}
ATTEMPTS = 10
"""Times that a request to S3 is sent again after a passing failure; the waits double from 25 ms, 26 s in all."""
PATIENCE_SECONDS = 20
"""The same for Google Cloud Storage, whose client counts time."""
CONNECT_SECONDS, SILENCE_SECONDS = 5, 20
"""For each single request; silence is the time in which no byte comes or goes."""
READS = 20
"""Times that an object is read again which was replaced under the reader."""
WRITES = 3
"""Times that a multipart upload is begun whose end the server answers with 'no such upload'."""
WHOLE_BYTES = 5 << 20
"""Below this Arrow sends an object in one request when its stream is closed."""

CAUSES = (
    (
        r"NETWORK_CONNECTION|CURL error|curlCode|USER_NETWORK|REQUEST_TIMEOUT",
        "the server cannot be reached",
        "Check the network and the endpoint (AWS_ENDPOINT_URL, STORAGE_EMULATOR_HOST or ?endpoint_override=)",
    ),
    (r"NO_SUCH_BUCKET|NoSuchBucket", "there is no such bucket", "Create it, or correct --storage"),
    (
        r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE|TOKEN|CREDENTIALS|CLIENT_ID|PERMISSION_DENIED|UNAUTHENTICATED"
        r"|HTTP status 40[13]|InvalidAccessKeyId|OAuth2|credentials",
        "access is denied",
        "Check the credentials (for s3:// AWS_ACCESS_KEY_ID or AWS_PROFILE, for gs:// GOOGLE_APPLICATION_CREDENTIALS) "
        "and what they may do in this bucket",
    ),
    (
        r"PermanentRedirect|HTTP status 301|AuthorizationHeaderMalformed",
        "the bucket is in another region",
        "Set AWS_REGION or ?region=",
    ),
    (
        r"SLOW_DOWN|SERVICE_UNAVAILABLE|THROTTL|INTERNAL_FAILURE|HTTP status 5\d\d"
        r"|UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED",
        "the server is overloaded or out of order, also after several attempts",
        "Launch again later",
    ),
)
"""What the libraries' messages contain, what it means, what to do; the first that fits counts."""


@dataclass(frozen=True)
class ObjectStorage(Storage):
    """The objects of `bucket` under `prefix` ('' or without '/' at its ends); `options` go to Arrow's file system."""

    scheme: str
    bucket: str
    prefix: str
    options: tuple[tuple[str, str], ...] = ()
    endpoint: str = ""
    """Where the environment of the process that opened the storage says that the server is; workers get it too."""

    @classmethod
    def from_url(cls, url: str) -> ObjectStorage:
        """Raises ValueError: no bucket, a credential, or an option that is unknown."""
        parts = urlsplit(url)
        if parts.username or parts.password:
            raise ValueError(
                f"a storage address must not hold credentials: it is written to files and logs. Write "
                f"{parts.scheme}://{parts.hostname}{parts.path} and put them into the environment"
            )
        prefix = "/".join(part for part in parts.path.split("/") if part)
        if not parts.netloc or ":" in parts.netloc:
            raise ValueError(f"storage {url!r} names no bucket; write {parts.scheme}://bucket/folder")
        options = tuple(parse_qsl(parts.query, keep_blank_values=True))
        allowed = OPTIONS[parts.scheme]
        unknown = [name for name, _ in options if name not in allowed]
        if unknown or parts.fragment:
            raise ValueError(
                f"storage {url!r} has the unknown option {(unknown or ['#' + parts.fragment])[0]!r}; "
                f"allowed are {', '.join(allowed)}"
            )
        return cls(parts.scheme, parts.netloc, prefix, options, _endpoint(parts.scheme))

    @property
    def url(self) -> str:
        return self.location("") + (f"?{urlencode(self.options, safe=':/')}" if self.options else "")

    @property
    def name(self) -> str:
        return self.prefix.rpartition("/")[2] or self.bucket

    def child(self, name: str) -> ObjectStorage:
        return replace(self, prefix=f"{self.prefix}/{name}".strip("/"))

    def location(self, path: str) -> str:
        return f"{self.scheme}://{self._key(path)}"

    def local_path(self, path: str = "") -> None:
        return None

    def read(self, path: str) -> bytes:
        """As in `Storage`.

        Arrow asks for the size first and then for that many bytes: of an object that was replaced by a longer one it
        gets the beginning, of a shorter one bytes that are not in it. So the object is looked at again afterwards.
        """
        with self._explained("read", path):
            try:
                stream = self._open(path)
                for _ in range(READS):
                    content, failure = _read_all(stream)
                    before, stream = stream.metadata(), self._open(path)
                    if stream.metadata() != before:
                        continue
                    if failure:
                        raise failure
                    return content
            except FileNotFoundError as error:
                self._require_bucket()
                raise MissingFileError(f"{self.location(path)} does not exist") from error
        raise StorageError(f"cannot read {self.location(path)}: it is replaced faster than it can be read. Try again")

    def write(self, path: str, content: bytes | pa.Buffer) -> None:
        with self._explained("write", path):
            _uninterrupted(partial(self._write, path, content))

    def folders(self) -> builtins.list[str]:
        names = set()
        # Arrow shows folders of Google Cloud Storage only where something made a marker object for them
        for info in self._infos("", recursive=self.scheme == "gs"):
            name, below, _ = self._relative(info).partition("/")
            if below or info.type == fs.FileType.Directory:
                names.add(name)
        return sorted(name for name in names if not name.startswith("."))

    def list(self, folder: str = "") -> builtins.list[StoredFile]:
        files = [
            StoredFile(self._relative(info), info.size, info.mtime_ns / 1e9)
            for info in self._infos(folder, recursive=False)
            if info.type == fs.FileType.File and not info.base_name.startswith(".")
        ]
        return sorted(files, key=lambda file: file.path)

    def delete(self, path: str) -> None:
        with self._explained("delete", path):
            try:
                self._filesystem().delete_file(self._key(path))
            except FileNotFoundError:
                self._require_bucket()

    def exists(self, path: str) -> bool:
        with self._explained("read", path):
            return bool(self._filesystem().get_file_info(self._key(path)).type == fs.FileType.File)

    def check_writable(self) -> None:
        """As in `Storage`. (Arrow may leave the empty object that marks the folder.)"""
        probe = f".probe-{secrets.token_hex(8)}"
        self.write(probe, b"0")
        self.delete(probe)

    def _filesystem(self, delayed: bool = False) -> Any:
        """Arrow's file system, the one that begins a write with its first request, or with `delayed` its last.

        A stream whose first request fails within a write is closed when it is dropped, which leaves an empty object;
        where it fails at the opening there is no stream.
        """
        return _connect(self.scheme, self.bucket, self.options, self.endpoint, delayed and self.scheme == "s3")

    def _key(self, path: str) -> str:
        return "/".join(part for part in (self.bucket, self.prefix, path) if part)

    def _relative(self, info: Any) -> str:
        return str(info.path).removeprefix(f"{self._key('')}/")

    def _open(self, path: str) -> Any:
        """An object's state (tag or generation, time of change, size); its content is asked for later."""
        return self._filesystem().open_input_file(self._key(path))

    def _write(self, path: str, content: bytes | pa.Buffer) -> None:
        for attempt in range(1, WRITES + 1):
            try:
                filesystem = self._filesystem(delayed=len(content) < WHOLE_BYTES)
                stream = filesystem.open_output_stream(self._key(path), compression=None)
                stream.write(content)
                stream.close()
                return
            except OSError as error:
                # the answer to the end of a multipart upload was lost, and it cannot be ended twice
                if "NO_SUCH_UPLOAD" not in str(error) or attempt == WRITES:
                    raise

    def _infos(self, folder: str, recursive: bool) -> Any:
        with self._explained("list", folder):
            selector = fs.FileSelector(self._key(folder), allow_not_found=True, recursive=recursive)
            infos = self._filesystem().get_file_info(selector)
            if not infos:  # which may be for want of a bucket
                self._require_bucket()
            return infos

    def _require_bucket(self) -> None:
        """Asked for once a process where the answer is yes."""
        bucket = replace(self, prefix="")
        if bucket not in _seen:
            if self._filesystem().get_file_info(self.bucket).type == fs.FileType.NotFound:
                raise OSError("NO_SUCH_BUCKET")
            _seen.add(bucket)

    @contextmanager
    def _explained(self, verb: str, path: str) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            text = str(error)
            if isinstance(error, FileNotFoundError):  # a write: it needs nothing that could be missing but the bucket
                text = "NO_SUCH_BUCKET"
            reason, advice = _explain(text)
            raise StorageError(f"cannot {verb} {self.location(path)}: {reason}. {advice}") from error


def _uninterrupted(write: Callable[[], None]) -> None:
    """Write so that no interrupt comes between the opening and the closing of a stream.

    A stream that is dropped is closed, which would leave an empty object. Only the main thread gets interrupts, so
    there another one writes, and the interrupt waits for it.
    """
    if threading.current_thread() is not threading.main_thread():
        return write()
    with ThreadPoolExecutor(1) as executor:
        try:
            written = executor.submit(write)
        except RuntimeError:  # the interpreter is ending and starts no more threads
            return write()
        return written.result()


def _read_all(stream: Any) -> tuple[bytes, OSError | None]:
    """The content; or the failure, which is one only if the object is as it was when the stream was opened."""
    try:
        return stream.read_at(stream.size(), 0), None
    except OSError as error:
        return b"", error


def _explain(text: str) -> tuple[str, str]:
    """The reason and the advice; what stands before the error itself names the object, which may be called anything."""
    text = text[max(text.find("AWS Error"), 0) :]
    for pattern, reason, advice in CAUSES:
        found = re.search(pattern, text)
        if found:
            detail = re.search(r"AWS Error [A-Z_]+ during \w+|curlCode: .*?;|HTTP status code: \d+", text)
            return reason + (f" ({detail[0].rstrip(';')})" if detail else ""), advice
    return text.rstrip("."), "Check --storage and the server's state"


def _endpoint(scheme: str) -> str:
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") if scheme == "s3" else ("STORAGE_EMULATOR_HOST",)
    return next((value for name in names if (value := os.environ.get(name))), "")


def filesystem_arguments(scheme: str, bucket: str, options: dict[str, str], endpoint: str) -> dict[str, Any]:
    """How Arrow's file system for a storage is made; options in the address go before the environment.

    Raises:
        OSError: the region of a bucket on AWS is asked for, and there is no such bucket or no network.
    """
    arguments: dict[str, Any] = dict(options)
    if endpoint and "endpoint_override" not in options:
        kind, separator, host = endpoint.rpartition("://")
        arguments |= {"endpoint_override": host.rstrip("/"), "scheme": kind if separator else "http"}
    for name in ("anonymous", "force_virtual_addressing"):
        if name in arguments:
            arguments[name] = arguments[name].lower() in ("", "1", "true")
    if scheme == "gs":
        if endpoint:  # only an emulator is named so
            arguments.setdefault("anonymous", True)
        return {"retry_time_limit": timedelta(seconds=PATIENCE_SECONDS)} | arguments
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region:
        arguments.setdefault("region", region)
    elif "region" not in arguments and "endpoint_override" not in arguments:
        arguments["region"] = fs.resolve_s3_region(bucket)
    if authority := os.environ.get("AWS_CA_BUNDLE"):
        arguments.setdefault("tls_ca_file_path", authority)
    return {
        "connect_timeout": CONNECT_SECONDS,
        "request_timeout": SILENCE_SECONDS,
        "retry_strategy": fs.AwsDefaultS3RetryStrategy(max_attempts=ATTEMPTS),
    } | arguments


@cache
def _connect(scheme: str, bucket: str, options: tuple[tuple[str, str], ...], endpoint: str, delayed: bool) -> Any:
    """One file system, with its pool of connections, for all storages of a process in one bucket."""
    arguments = filesystem_arguments(scheme, bucket, dict(options), endpoint)
    if scheme == "gs":
        return fs.GcsFileSystem(**arguments)
    return fs.S3FileSystem(**arguments, allow_delayed_open=delayed)


_seen: set[ObjectStorage] = set()
"""Buckets that are known to be there."""
