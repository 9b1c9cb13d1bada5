"""The folder of a publisher: W&B's offline files, complete or not there, and who writes to it.

Each offline W&B run is written under `.staging`, gets a marker, and appears by one rename. What is published is read
from the folders that are there, so it cannot disagree with the files, whenever a publisher is killed.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from orchestrator.publishing.items import Marker
from orchestrator.storage import Storage, StorageError

NAME = "wandb"
"""Of the folder in a sweep's own, where that is on this machine."""
LOG = "publisher.log"
_STAGING, _LOCK, _MARKER, _FINISHED = ".staging", ".lock", "bo-sweep.json", "finished.jsonl"
_OFFLINE = "offline-run-"


class FolderError(StorageError):
    """A folder that cannot be written, or that another publisher writes to."""


def default_folder(sweep: Storage) -> Path:
    """Beside the ledger where that is on this machine, else in the current folder."""
    local = sweep.local_path()
    return Path(f"wandb-{sweep.name}") if local is None else local / NAME


class Folder:
    """One sweep's folder on this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Be the only publisher here; clear away what a killed one left half done. Gives the lock's descriptor.

        The lock belongs to the open file, so a process that inherits the descriptor holds it as well: a killed
        publisher keeps others out until the process that it started is gone too.

        Raises:
            FolderError: another publisher is at work, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            words = f"cannot write {self.path}: {error.strerror}. Choose another folder with --dir"
            raise FolderError(words) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise FolderError(
                        f"cannot lock {self.path}: {error.strerror}, as on some file systems of clusters. Choose a "
                        "folder on this machine's own disk with --dir"
                    ) from error
                raise FolderError(
                    f"another publisher is writing to {self.path}, and one is enough: wait until it has ended. If a "
                    f"launch started it, its words are in {self.path / LOG}"
                ) from error
            shutil.rmtree(self.path / _STAGING, ignore_errors=True)
            yield descriptor
            shutil.rmtree(self.path / _STAGING, ignore_errors=True)
        finally:
            os.close(descriptor)

    def staging(self) -> Path:
        """An empty folder to write one W&B run in. Raises FolderError, as all that writes here does."""
        import tempfile

        with self._writing():
            (self.path / _STAGING).mkdir(exist_ok=True)
            return Path(tempfile.mkdtemp(dir=self.path / _STAGING))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FolderError(
                f"cannot write {self.path}: {error.strerror or error}. Nothing is lost: make room, or choose another "
                "folder with --dir, and give the same command again"
            ) from error

    def commit(self, written: Path, marker: Marker) -> Path:
        """Let a finished offline W&B run appear, durably. Returns its folder."""
        shutil.rmtree(written / "logs", ignore_errors=True)  # W&B's own debug output
        with self._writing():
            (written / _MARKER).write_text(json.dumps(asdict(marker)))
            for path in (*written.rglob("*"), written):
                if not path.is_symlink():
                    _sync(path)
            final = self.path / written.name
            for number in range(1, 1000):
                if not final.exists():
                    break
                final = self.path / f"{written.name}-{number}"
            os.rename(written, final)
            _sync(self.path)
        return final

    def offline(self) -> dict[Path, Marker]:
        """The offline W&B runs that are there, by folder; the latest come last."""
        found = {}
        for marker in self.path.glob(f"{_OFFLINE}*/{_MARKER}"):
            with suppress(OSError, ValueError, TypeError):
                found[marker.parent] = Marker(**json.loads(marker.read_text()))
        return dict(sorted(found.items(), key=lambda each: (each[0].stat().st_mtime_ns, each[0].name)))

    def discard(self, offline: Path) -> None:
        """Take away an offline W&B run that another one has replaced; at once, so that no half of it is ever synced."""
        gone = self.staging() / offline.name
        with self._writing():
            os.rename(offline, gone)
        shutil.rmtree(gone, ignore_errors=True)

    def finished(self, where: str) -> dict[str, Marker]:
        """W&B runs that are complete on a server's project, the latest by key. A cache: losing it costs questions."""
        found: dict[str, Marker] = {}
        with suppress(OSError):
            for line in (self.path / _FINISHED).read_text(errors="replace").splitlines():
                with suppress(ValueError, TypeError, KeyError, AttributeError):  # cut short by a kill, or damaged
                    entry = json.loads(line)
                    if entry.pop("where") == where:
                        found[entry["key"]] = Marker(**entry)
        return found

    def remember(self, where: str, marker: Marker) -> None:
        """Note that a W&B run is complete on the server."""
        with self._writing(), open(self.path / _FINISHED, "ab") as stream:
            stream.write(b"\n" if stream.tell() and not self._ends_a_line() else b"")
            stream.write(json.dumps({"where": where, **asdict(marker)}).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())

    def _ends_a_line(self) -> bool:
        with open(self.path / _FINISHED, "rb") as stream:
            stream.seek(-1, os.SEEK_END)
            return stream.read() == b"\n"


def is_synced(offline: Path) -> bool:
    """Whether `wandb sync` has uploaded it."""
    return any(offline.glob("*.wandb.synced"))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
