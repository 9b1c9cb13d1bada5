"""The local folder that a fetch fills: whose sweep it holds, and which of its files a fetch has brought.

What was brought stands in a file of its own, written before the first of them comes: so a fetch that was killed can be
completed, and nothing is ever removed that came into being here.
"""

from __future__ import annotations

import fcntl
import json
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from orchestrator import paths
from orchestrator.lease import LeaseHeldError, current_claim
from orchestrator.parts import Damage, checked_file
from orchestrator.storage import MissingFileError, Storage, StorageError, StoredFile

BROUGHT = ".fetched.json"
"""What was brought and from where; as its name begins with a dot, no listing shows it."""
LOCK = ".fetched.lock"
TABLES = (paths.RUNS, paths.ROWS, paths.LOGS, paths.ENDS)
SHOWN = 3
HALF_WRITTEN = re.compile(r"\..+\.\d+\.[0-9a-f]{16}\.tmp")
"""Names under which storage in a folder writes, until a file is whole."""
ABANDONED_SECONDS = 60.0
"""After so long without a change nobody writes it any more."""

State = tuple[int, float]
"""Size and time of change at the source."""


@dataclass
class FetchTarget:
    """A sweep's folder on this machine, held by one fetch.

    Attributes:
        created: when the sweep began, by its manifest; tells sweeps of one name apart.
        brought: path of every file that a fetch has brought or begun to bring; its state where it is complete.
    """

    storage: Storage
    folder: Path
    source: str
    created: str
    brought: dict[str, State | None] = field(default_factory=dict)

    def lacks(self, files: Iterable[StoredFile]) -> list[StoredFile]:
        """Those parts of `files` that are not here yet, or do not hold (any more) what their names say."""
        return [file for file in files if self._size(file.path) != file.size or not self._is_sound(file)]

    def differs(self, files: Iterable[StoredFile]) -> list[StoredFile]:
        """Those of `files`, which may change at the source, that are not here as they are there now."""
        return [
            file
            for file in files
            if self._size(file.path) != file.size or self.brought.get(file.path) != (file.size, file.modified)
        ]

    def announce(self, files: Iterable[StoredFile]) -> None:
        """Note durably that these may come."""
        new = {file.path: None for file in files if file.path not in self.brought}
        if new:
            self.brought |= new
            self._remember()

    def complete(self, files: Iterable[StoredFile]) -> None:
        """Note durably that these, as the source lists them, are here."""
        self.brought |= {file.path: (file.size, file.modified) for file in files}
        self._remember()

    def write(self, path: str, content: bytes | pa.Buffer) -> None:
        """As in `Storage`."""
        with told_here():
            self.storage.write(path, content)

    def check_alone(self, there: Iterable[StoredFile]) -> None:
        """Refuse a folder in which somebody has launched since: it goes on from what its manifest says, not from ours.

        Raises:
            LeaseHeldError: a launch is writing to it.
            ValueError: as `check_own_parts`.
        """
        _check_free(self.storage, self.folder)
        self.check_own_parts(there)

    def check_own_parts(self, there: Iterable[StoredFile]) -> None:
        """Refuse a ledger that has grown here.

        Raises:
            ValueError: it has parts which neither `there`, the source, has nor a fetch has brought.
        """
        known = {file.path for file in there} | self.brought.keys()
        own = [file.path for folder in TABLES for file in self.storage.list(folder) if file.path not in known]
        if own:
            more = f" and {len(own) - SHOWN} more" if len(own) > SHOWN else ""
            raise ValueError(
                f"{self.folder} has {len(own)} parts that {self.source} does not have ({', '.join(own[:SHOWN])}{more}):"
                " it was launched or compacted here, or is of another sweep. To keep it, fetch into another folder "
                "with --to; else delete it first"
            )

    def remove_all_but(self, files: Iterable[StoredFile], folders: Iterable[str]) -> int:
        """Remove what a fetch has brought into `folders` and is not among `files`; ends first, as compaction does."""
        kept = {file.path for file in files}
        removed = []
        for folder in sorted(folders, key=lambda name: name != paths.ENDS):
            removed += [path for path in self.brought if path.startswith(f"{folder}/") and path not in kept]
        there = sum(self.storage.exists(path) for path in removed)
        with told_here():
            for path in removed:
                self.storage.delete(path)
                del self.brought[path]
        if removed:
            self._remember()
        return there

    def _size(self, path: str) -> int | None:
        try:
            return (self.folder / path).stat().st_size
        except OSError:
            return None

    def _is_sound(self, part: StoredFile) -> bool:
        """Whether its content is what its name says; read once for each state of the file, see `checked_file`."""
        try:
            return not isinstance(checked_file(self.storage, part), Damage)
        except StorageError:
            return False

    def _remember(self) -> None:
        content = {"created": self.created, "source": self.source, "files": self.brought}
        self.write(BROUGHT, json.dumps(content).encode())


@contextmanager
def told_here() -> Iterator[None]:
    """Have errors of storage name the option that says where a fetch writes: --storage is where it reads."""
    try:
        yield
    except StorageError as error:
        advice = f"{error}".replace("choose --storage", "choose another folder with --to")
        raise StorageError(advice.replace("--storage", "--to")) from error


@contextmanager
def open_target(target: Storage, source: Storage, created: str) -> Iterator[FetchTarget]:
    """The folder, for the time of the block for this fetch alone.

    Raises:
        ValueError: it is no local folder, the source itself, or holds another sweep.
        LeaseHeldError: a launch or another fetch is writing to it.
        StorageError: it cannot be written.
    """
    folder = target.local_path()
    if folder is None:
        raise ValueError(f"{target.url} is no folder of this machine: give one with --to")
    origin = source.local_path()
    if origin is not None and origin.resolve() == folder.resolve():
        raise ValueError(f"{folder} is where the sweep is already: give another folder with --to")
    _check_free(target, folder)
    _check_identity(target, folder, created)
    with told_here():
        target.check_writable()
    with _locked(folder):
        brought = _check_identity(target, folder, created)  # another fetch may just have ended
        _remove_half_written(folder)
        yield FetchTarget(target, folder, source.url, created, brought)


def _check_free(target: Storage, folder: Path) -> None:
    claim = current_claim(target)
    if claim:
        raise LeaseHeldError(
            f"the sweep in {folder} is being launched by {claim.holder}: fetch into another folder with --to"
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context(open(folder / LOCK, "wb"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LeaseHeldError(
                f"another bo-sweep fetch is writing to {folder}: wait for it, or fetch into another folder with --to"
            ) from error
        except OSError as error:
            raise StorageError(
                f"cannot lock {folder / LOCK}: {error.strerror or error}. Choose another folder with --to"
            ) from error
        yield


def _remove_half_written(folder: Path) -> None:
    """What a fetch that was killed was just writing: up to some hundred megabytes each."""
    with suppress(OSError):
        for path in [each for each in folder.rglob(".*.tmp") if HALF_WRITTEN.fullmatch(each.name)]:
            if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                path.unlink()


def _check_identity(target: Storage, folder: Path, created: str) -> dict[str, State | None]:
    """What earlier fetches brought. Raises ValueError where the folder holds another sweep."""
    record = _read_json(target, BROUGHT)
    for found in (_read_json(target, paths.MANIFEST), record):
        if found and found.get("created") != created:
            raise ValueError(
                f"{folder} holds another sweep of that name, begun {found.get('created')}; the one to fetch began "
                f"{created}. Fetch into another folder with --to, or delete {folder} first"
            )
    files = record.get("files", {})
    return {path: tuple(state) if state else None for path, state in files.items()}


def _read_json(storage: Storage, path: str) -> dict:  # type: ignore[type-arg]
    """Empty where there is none, or it is damaged: the check of parts decides then."""
    with suppress(MissingFileError, ValueError):
        content = json.loads(storage.read(path))
        if isinstance(content, dict):
            return content
    return {}
