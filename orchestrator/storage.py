"""Storage: a folder in some file system, in which a file is either whole or not there.

One interface for local and network file systems and for object stores; `open_storage` chooses by the URL's scheme.
"""

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

SCHEMES = ("file", "s3", "gs")


class StorageError(Exception):
    """Storage that cannot be written or read; the message says which path, why, and what to do."""


class MissingFileError(StorageError):
    """A file that was to be read is not there."""


@dataclass(frozen=True)
class StoredFile:
    """A file as a listing shows it.

    `path` is relative to the storage's root and uses '/'; `size` is in bytes; `modified` is in seconds since the
    epoch by the storage's own clock, so only differences between such times mean something.
    """

    path: str
    size: int
    modified: float


class Storage(ABC):
    """A folder in some file system.

    Paths are relative to it and use '/'. Cheap to make, connects on first use, and can be pickled, so that workers on
    other hosts get the same folder. Names that start with '.' are no files: they are never listed.
    """

    @property
    @abstractmethod
    def url(self) -> str:
        """As the user would write it: a path, or an address with a scheme and options."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The last component."""

    @abstractmethod
    def child(self, name: str) -> Storage:
        """A folder in this one."""

    @abstractmethod
    def location(self, path: str) -> str:
        """The full path or address of a file, for messages."""

    @abstractmethod
    def read(self, path: str) -> bytes:
        """The content of a file as one write left it, also while others write.

        Raises:
            MissingFileError: it is not there.
            StorageError: it cannot be read.
        """

    @abstractmethod
    def write(self, path: str, content: bytes | pa.Buffer) -> None:
        """Replace a file; on return it is durable. Folders are made as needed.

        Raises:
            StorageError: it cannot be written; the file is then as it was before, or (where only the answer of a
                server was lost) whole.
        """

    @abstractmethod
    def folders(self) -> builtins.list[str]:
        """The names of the folders directly in the root, sorted. Raises StorageError."""

    @abstractmethod
    def list(self, folder: str = "") -> builtins.list[StoredFile]:
        """The files directly in a folder, sorted by path; empty where there is no such folder. Raises StorageError."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Remove a file; fine where there is none. Raises StorageError."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether there is such a file. Raises StorageError."""

    @abstractmethod
    def check_writable(self) -> None:
        """Make sure that files can be written here, leaving none behind. Raises StorageError."""

    @abstractmethod
    def local_path(self, path: str = "") -> Path | None:
        """Where a file can be read in place; None in an object store."""


def open_storage(url: str | Path) -> Storage:
    """The storage at a path, `file:///path`, `s3://bucket/prefix` or `gs://bucket/prefix`; nothing is touched yet.

    Raises:
        ValueError: another scheme, or an address that is none; it says what is allowed.
    """
    text = str(url)
    scheme, separator, _ = text.partition("://")
    if isinstance(url, Path) or not separator or scheme == "file":
        from orchestrator.local_storage import LocalStorage

        return LocalStorage(text)
    if scheme not in SCHEMES:
        raise ValueError(
            f"storage {text!r} has the unknown scheme {scheme!r}; "
            f"allowed are a path and {', '.join(f'{known}://' for known in SCHEMES)}"
        )
    from orchestrator.object_storage import ObjectStorage

    return ObjectStorage.from_url(text)
