"""Fetch: a whole copy of a sweep in a local folder, while launches write and compact at the source.

What makes the copy consistent is the order. Ends are listed first: what they claim was durable before them, so it is in
the later listing of rows, unless a compaction came between, which removes ends first and so shows. Rows are copied
before the ends that claim them, and `sweep.json` last: until then the folder is no sweep, or the one that was fetched
before. Parts are immutable and checked by their names, so a fetch that was killed is completed by the next one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from orchestrator import paths
from orchestrator.fetch_target import TABLES, FetchTarget, open_target
from orchestrator.ledger import Ledger
from orchestrator.parts import LOOKS, DamagedPartsError, list_parts
from orchestrator.storage import MissingFileError, Storage, StorageError, StoredFile
from orchestrator.transfer import LARGE_BYTES, Transfer, transfer

DEEPEST = 8
"""Folders in folders of figures that are followed; we make one or two."""

Progress = Callable[[str, int, int], None]
"""Called with what is copied, and how many bytes of how many."""


@dataclass(frozen=True)
class Fetched:
    """What one fetch did: files and bytes that it brought, files that were here already, files that it removed."""

    files: int
    bytes: int
    unchanged: int
    removed: int


def fetch(
    source: Storage,
    target: Storage,
    *,
    checkpoints: bool = False,
    on_progress: Progress = lambda stage, done, total: None,
) -> Fetched:
    """Make the local folder `target` a copy of the sweep in `source`: its ledger and figures, and with `checkpoints`
    the state of unfinished runs. Only what is not here yet is read; files that an earlier fetch brought and that the
    source no longer has are removed. Figures that were drawn here stay, but for those of the same name.

    Raises:
        LedgerError: no such sweep in the source, or its manifest cannot be read.
        ValueError: the target holds another sweep, has grown parts of its own, or is no local folder.
        LeaseHeldError: a launch or another fetch is writing to the target, or a launch has begun to meanwhile.
        DamagedPartsError: naming the parts that are damaged at the source; the target is then not complete.
        StorageError: the source cannot be read or the target not written. The next fetch goes on from there.
    """
    created = Ledger(source).manifest().created
    with open_target(target, source, created) as here:
        copying = _Copying(source, here, on_progress)
        if checkpoints:  # before the rows are listed, as the rows that a checkpoint goes on from are older than it
            copying.changing("checkpoints", source.list(paths.CHECKPOINTS))
        parts = copying.parts()
        copying.changing("figures", _below(source, paths.PHASE))
        here.check_alone(parts)
        copying.removed += here.remove_all_but(parts, TABLES)
        copying.manifest(created)
    return Fetched(copying.files, copying.bytes, copying.unchanged, copying.removed)


@dataclass
class _Copying:
    """The steps of one fetch, and what they have done so far."""

    source: Storage
    here: FetchTarget
    on_progress: Progress
    files: int = 0
    bytes: int = 0
    removed: int = 0
    unchanged: int = 0
    _parts_brought: set[str] = field(default_factory=set)

    def parts(self) -> list[StoredFile]:
        """Copy all parts of one consistent listing, which is returned; what is compacted away meanwhile is looked for
        in a new one."""
        for _ in range(LOOKS):
            tables = _listing(self.source)
            everything = [file for folder in TABLES for file in tables[folder]]
            self.here.check_own_parts(everything)
            self.here.announce(everything)
            ends = tables.pop(paths.ENDS)
            rest = [file for files in tables.values() for file in files]
            if self._vanished("ledger", rest) or self._vanished("ends", ends):
                continue
            self.unchanged += sum(file.path not in self._parts_brought for file in everything)
            return everything
        raise StorageError(f"{self.source.url} is compacted faster than it can be copied. Try again")

    def _vanished(self, what: str, files: list[StoredFile]) -> bool:
        """Copy parts; whether any was compacted away meanwhile. Raises DamagedPartsError, StorageError."""
        found = self._copy(what, files, parts=True)
        if found.damaged:
            raise DamagedPartsError(self.source, sorted(found.damaged, key=lambda damage: damage.path))
        return bool(found.missing)

    def changing(self, what: str, files: list[StoredFile]) -> None:
        """Copy files that are replaced and deleted at the source as it goes on: each as it is now, or not at all."""
        wanted = self.here.differs(files)
        self.here.announce(wanted)
        come: list[StoredFile] = []
        size = 0

        def note(file: StoredFile) -> None:
            nonlocal size
            come.append(file)
            size += file.size
            if size >= LARGE_BYTES:
                self.here.complete(come)
                come.clear()
                size = 0

        try:
            found = self._copy(what, wanted, note, parts=False)
        finally:  # what is here need not come again, where the rest did not come
            self.here.complete(come)
        self.unchanged += len(files) - len(wanted)
        gone = {file.path for file in found.missing}
        present = [file for file in files if file.path not in gone]
        folder = paths.CHECKPOINTS if what == "checkpoints" else paths.PHASE
        self.removed += self.here.remove_all_but(present, [folder])

    def manifest(self, created: str) -> None:
        """Copy what says that this is a sweep, and how often it was launched: no less than the rows here know."""
        for path in (paths.SPACE, paths.MANIFEST):
            try:
                content = self.source.read(path)
            except MissingFileError:
                if path == paths.MANIFEST:
                    raise
                continue
            if path == paths.MANIFEST and json.loads(content)["created"] != created:
                raise StorageError(f"{self.source.url} was deleted and begun anew while it was copied. Try again")
            self.here.write(path, content)
            self._count(StoredFile(path, len(content), 0.0))

    def _copy(
        self,
        what: str,
        files: list[StoredFile],
        on_copied: Callable[[StoredFile], None] = lambda file: None,
        *,
        parts: bool,
    ) -> Transfer:
        wanted = self.here.lacks(files) if parts else files
        done, total = 0, sum(file.size for file in wanted)

        def note(file: StoredFile) -> None:
            nonlocal done
            done += file.size
            self._count(file)
            on_copied(file)
            self.on_progress(what, done, total)

        found = transfer(self.source, self.here.write, wanted, note, parts=parts)
        if parts:
            self._parts_brought |= {file.path for file in found.copied}
        return found

    def _count(self, file: StoredFile) -> None:
        self.files += 1
        self.bytes += file.size


def _listing(source: Storage) -> dict[str, list[StoredFile]]:
    """The parts by table as they stood at one moment: whatever the ends claim is among the rows.

    A compaction removes the ends that it has put together before it touches rows. So where all ends that were listed
    first are still there at the end, the rows were listed before it.
    """
    for _ in range(LOOKS):
        ends = list_parts(source, paths.ENDS)
        rows = list_parts(source, paths.ROWS)
        runs, logs = list_parts(source, paths.RUNS), list_parts(source, paths.LOGS)
        if {file.path for file in ends} <= {file.path for file in source.list(paths.ENDS)}:
            return {paths.RUNS: runs, paths.ROWS: rows, paths.LOGS: logs, paths.ENDS: ends}
    raise StorageError(f"{source.url} is compacted faster than it can be listed. Try again")


def _below(source: Storage, folder: str) -> list[StoredFile]:
    """All files in a folder and the folders in it.

    Raises:
        StorageError: it cannot be listed, or a link in it leads back to it.
    """

    def walk(folder: str) -> Iterator[StoredFile]:
        if folder.count("/") > DEEPEST:
            raise StorageError(f"{source.location(folder)} leads into itself, or lies too deep: remove it there")
        yield from source.list(folder)
        for name in source.child(folder).folders():
            yield from walk(f"{folder}/{name}")

    return list(walk(folder))
