"""Copying files from one storage into another: small ones side by side, large ones one after the other.

Memory is bounded: a file is held whole while it is copied, so it is at most SIDE_BY_SIDE files of LARGE_BYTES, or one
larger file (a settled part has up to about 400 MB; a checkpoint is as large as the models of its run).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field

from orchestrator.parts import NAME, Damage, digest
from orchestrator.storage import MissingFileError, Storage, StorageError, StoredFile

SIDE_BY_SIDE = 8
"""An object store answers one request after tens of milliseconds, and many of them in the same time."""
LARGE_BYTES = 32 << 20
ATTEMPTS = 3
"""Times that a part is read whose content is not what its name says."""


@dataclass
class Transfer:
    """What became of the files that were to be copied.

    Attributes:
        copied: those that are here now.
        missing: those that the source no longer had.
        damaged: parts that do not hold what their names say, also when read again; nothing of them is written.
    """

    copied: list[StoredFile] = field(default_factory=list)
    missing: list[StoredFile] = field(default_factory=list)
    damaged: list[Damage] = field(default_factory=list)


def transfer(
    source: Storage,
    write: Callable[[str, bytes], None],
    files: Iterable[StoredFile],
    on_copied: Callable[[StoredFile], None] = lambda _: None,
    *,
    parts: bool,
) -> Transfer:
    """Copy `files` by `write(path, content)`. With `parts` they must hold what their names say.

    Files that vanish or are damaged hold up none of the others.

    Raises:
        StorageError: the source cannot be read, or not written here; what is copied stays.
    """
    made = Transfer()
    ordered = sorted(files, key=lambda file: file.path)
    _check_paths(source, ordered)
    small = [file for file in ordered if file.size < LARGE_BYTES]

    def note(file: StoredFile, damage: Damage | None) -> None:
        if damage:
            made.damaged.append(damage)
            return
        made.copied.append(file)
        on_copied(file)

    executor = ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="transfer")
    waiting = {executor.submit(_copy, source, write, file, parts): file for file in small}
    try:
        for future in as_completed(waiting):
            try:
                note(waiting[future], future.result())
            except MissingFileError:
                made.missing.append(waiting[future])
    finally:  # without waiting: after a failure or Ctrl-C some may hang until their connections are ended
        executor.shutdown(wait=False, cancel_futures=True)
    for file in ordered:
        if file.size >= LARGE_BYTES:
            try:
                note(file, _copy(source, write, file, parts))
            except MissingFileError:
                made.missing.append(file)
    return made


def _check_paths(source: Storage, files: Iterable[StoredFile]) -> None:
    """An object may be called anything, also what would lead out of a folder."""
    odd = [file.path for file in files if {"", ".", ".."} & set(file.path.split("/"))]
    if odd:
        raise StorageError(f"{source.location(odd[0])} cannot be copied: {odd[0]!r} is no path of a file. Delete it")


def _copy(source: Storage, write: Callable[[str, bytes], None], file: StoredFile, part: bool) -> Damage | None:
    name = NAME.fullmatch(file.path.rpartition("/")[2])
    if part and name is None:
        return Damage(file.path, "not a file of this ledger")
    for _ in range(ATTEMPTS):
        content = source.read(file.path)
        if not part or (name and digest(content) == name["digest"]):
            write(file.path, content)
            return None
    return Damage(file.path, f"its content ({len(content):,} bytes) is not what was written: cut short or changed")
