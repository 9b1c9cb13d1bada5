"""Storage in a local or network file system."""

from __future__ import annotations

import builtins
import contextlib
import errno
import itertools
import os
import secrets
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from orchestrator.storage import MissingFileError, Storage, StorageError, StoredFile

READS = 5
"""Times that a file is opened again which another host on NFS replaced while it was being read."""


class LocalStorage(Storage):
    """A folder, given as a path or a `file://` URL.

    A relative one stays as it is in `url`, but means the same folder wherever it is unpickled.

    Raises:
        ValueError: a `file://` URL that names another host, or no absolute path.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._root = _path(url).absolute()

    @property
    def url(self) -> str:
        return self._url

    @property
    def name(self) -> str:
        return self._root.name

    def child(self, name: str) -> LocalStorage:
        made = LocalStorage(f"{self.url.rstrip('/')}/{name}" if "://" in self.url else str(Path(self.url) / name))
        made._root = self._root / name  # of a relative one, the working directory may have changed since
        return made

    def location(self, path: str) -> str:
        return str(self._root / path)

    def local_path(self, path: str = "") -> Path:
        return self._root / path

    def read(self, path: str) -> bytes:
        for attempt in itertools.count(1):
            try:
                return (self._root / path).read_bytes()
            except (FileNotFoundError, NotADirectoryError) as error:
                raise MissingFileError(f"{self.location(path)} does not exist") from error
            except OSError as error:
                if error.errno != errno.ESTALE or attempt == READS:
                    raise self._error("read", path, error, "Check its permissions and its disk") from error
        raise AssertionError

    def write(self, path: str, content: bytes | pa.Buffer) -> None:
        final = self._root / path
        # on NFS two hosts can have the same process id, hence the random part
        temporary = final.with_name(f".{final.name}.{os.getpid()}.{secrets.token_hex(8)}.tmp")
        try:
            _make_folder(final.parent)
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, final)
            _sync_folder(final.parent)
        except OSError as error:
            raise self._error("write", path, error, "Free space or choose --storage") from error
        finally:
            with contextlib.suppress(OSError):  # there only if something, even an interrupt, came between
                temporary.unlink()

    def folders(self) -> builtins.list[str]:
        return sorted(entry.name for entry in self._entries("") if entry.is_dir())

    def list(self, folder: str = "") -> builtins.list[StoredFile]:
        files = []
        for entry in self._entries(folder):
            try:
                if entry.is_file():
                    state = entry.stat()
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    files.append(StoredFile(path, state.st_size, state.st_mtime))
            except FileNotFoundError:
                continue  # deleted while we looked
            except OSError as error:
                raise self._error("list", folder, error, "Check its permissions and its disk") from error
        return sorted(files, key=lambda file: file.path)

    def delete(self, path: str) -> None:
        try:
            (self._root / path).unlink()
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise self._error("delete", path, error, "Check the permissions of its folder") from error

    def exists(self, path: str) -> bool:
        try:
            return (self._root / path).is_file()
        except OSError as error:
            raise self._error("read", path, error, "Check its permissions and its disk") from error

    def check_writable(self) -> None:
        existing = self._root
        try:
            while not existing.exists() and existing != existing.parent:
                existing = existing.parent
            if not existing.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, f"{existing} is not a folder")
            with tempfile.TemporaryFile(dir=existing) as probe:
                probe.write(b"0")
                probe.flush()
        except OSError as error:
            raise StorageError(
                f"storage {self._root} cannot be written: {error.strerror or error}. "
                "Choose another folder with --storage"
            ) from error

    def _entries(self, folder: str) -> builtins.list[os.DirEntry[str]]:
        try:
            with os.scandir(self._root / folder) as entries:
                return [entry for entry in entries if not entry.name.startswith(".")]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._error("list", folder, error, "Check its permissions and its disk") from error

    def _error(self, verb: str, path: str, error: OSError, advice: str) -> StorageError:
        return StorageError(f"cannot {verb} {self.location(path)}: {error.strerror or error}. {advice}")


def _path(url: str) -> Path:
    if not url.startswith("file://"):
        return Path(url)
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise ValueError(f"storage {url!r} is no local folder; write file:///folder, or just its path")
    return Path(unquote(parts.path))


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it; the names of new ones are durable too."""
    new = list(itertools.takewhile(lambda path: not path.exists(), (folder, *folder.parents)))
    folder.mkdir(parents=True, exist_ok=True)
    for path in new:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where its file system knows such a thing."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
