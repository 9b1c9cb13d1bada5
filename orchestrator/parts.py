"""Parts: the immutable Parquet files of a ledger, each with a digest of its content in its name.

A part appears whole or not at all, is never changed, and goes only once another part holds the same rows. So it can be
checked by its name alone, cached for ever, and read while others write and compact.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from orchestrator.ledger_schema import ADDED_LATER
from orchestrator.storage import MissingFileError, Storage, StorageError, StoredFile
from workers.schema import RECURRING_COLUMNS, ROWS

Result = TypeVar("Result")

NAME = re.compile(r"(?P<stem>[a-z0-9-]+)\.(?P<digest>[0-9a-f]{16})\.parquet")
LOOKS = 100
"""Listings tried until two agree, or until no part of a listing vanishes under a reader."""
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Damage:
    """A file in a ledger that is not what its name says; `reason` in plain words."""

    path: str
    reason: str


class DamagedPartsError(StorageError):
    """Files that are never read as data; all of them are named."""

    def __init__(self, storage: Storage, damages: Iterable[Damage]) -> None:
        self.damages = list(damages)
        named = "\n".join(f"  {storage.location(damage.path)}: {damage.reason}" for damage in self.damages)
        super().__init__(
            f"{len(self.damages)} damaged files in the ledger:\n{named}\n"
            "Run the same launch again: it moves them to damaged/ and redoes just what is lost"
        )


def digest(content: bytes | pa.Buffer) -> str:
    """16 hex digits of XXH3-64: finds any accident to a file; no protection against intent."""
    return xxhash.xxh3_64_hexdigest(content)


def write_small(table: pa.Table, sink: Any) -> None:
    """Write a table as Parquet, for parts that will be compacted soon."""
    dictionary = list(RECURRING_COLUMNS) if table.schema.equals(ROWS) else True
    pq.write_table(table, sink, compression="zstd", compression_level=1, use_dictionary=dictionary)


def write_part(
    storage: Storage,
    folder: str,
    stem: str,
    table: pa.Table,
    write: Callable[[pa.Table, Any], None] = write_small,
) -> str:
    """Make `table` durable as one part; returns its path. The same stem and content give the same path.

    Raises:
        StorageError: storage cannot be written; no part of the table is there then.
    """
    sink = pa.BufferOutputStream()
    write(table, sink)
    content = sink.getvalue()
    path = f"{folder}/{stem}.{digest(content)}.parquet"
    storage.write(path, content)
    return path


def list_parts(storage: Storage, folder: str) -> list[StoredFile]:
    """All files of a folder, in the order of their names, as they stood at one moment.

    A listing made while parts are compacted can miss the new part as well as an old one; two that agree cannot.
    """
    seen = storage.list(folder)
    for _ in range(LOOKS):
        again = storage.list(folder)
        if {file.path for file in again} == {file.path for file in seen}:
            return again
        seen = again
    return seen  # written to faster than it can be listed: each listing is complete but for compaction


def consistently(read: Callable[[], Result]) -> Result:
    """What `read` gives, once no part vanishes (is compacted away) between its listing and its reading."""
    for _ in range(LOOKS):
        try:
            return read()
        except (MissingFileError, FileNotFoundError):
            continue
    return read()


def read_part(storage: Storage, path: str, schema: pa.Schema) -> pa.Table | Damage:
    """The table of one part, or what is wrong with it.

    Raises:
        MissingFileError: it was compacted away.
        StorageError: storage cannot be read.
    """
    name = NAME.fullmatch(path.rpartition("/")[2])
    if name is None:
        return Damage(path, "not a file of this ledger")
    content = storage.read(path)
    if digest(content) != name["digest"]:
        return Damage(path, f"its content ({len(content):,} bytes) is not what was written: cut short or changed")
    return _parse(pa.BufferReader(content), path, schema)


def read_all(storage: Storage, files: Iterable[StoredFile], schema: pa.Schema) -> tuple[pa.Table, list[Damage]]:
    """The tables of all sound `files` as one of `schema`, in their order, and what is wrong with the others.

    Raises:
        MissingFileError, StorageError: as `read_part`.
    """
    tables, damages = [], []
    for file in files:
        found = read_part(storage, file.path, schema)
        damages.append(found) if isinstance(found, Damage) else tables.append(found)
    return pa.concat_tables(tables) if tables else schema.empty_table(), damages


def read_parts(storage: Storage, folder: str, schema: pa.Schema) -> pa.Table:
    """All parts of a folder as one table, at one moment.

    Raises:
        DamagedPartsError: naming every damaged one.
        StorageError: storage cannot be read.
    """
    table, damages = consistently(lambda: read_all(storage, list_parts(storage, folder), schema))
    if damages:
        raise DamagedPartsError(storage, damages)
    return table


def _parse(source: pa.NativeFile, path: str, schema: pa.Schema) -> pa.Table | Damage:
    try:
        with pq.ParquetFile(source) as file:
            lacking = set(schema.names) - set(file.schema_arrow.names)
            if lacking - ADDED_LATER:  # left to itself, Arrow reads a column that is not there as nulls
                names = ", ".join(sorted(lacking - ADDED_LATER))
                return Damage(path, f"not a file of this ledger: it lacks {names}")
            table = file.read(columns=schema.names)
            for name in lacking:
                table = table.append_column(schema.field(name), pa.nulls(len(table), schema.field(name).type))
            return table.select(schema.names).cast(schema)
    except (OSError, pa.ArrowException) as error:
        return Damage(path, f"unreadable ({error})")


def checked_file(storage: Storage, file: StoredFile) -> Path | Damage:
    """A local file with the content of a part, for reading in place; a part of an object store is kept in a cache.

    The digest is taken once for each state (size and time of change) of a local file, and once a download.

    Raises:
        MissingFileError, StorageError: as `read_part`.
    """
    name = NAME.fullmatch(file.path.rpartition("/")[2])
    if name is None:
        return Damage(file.path, "not a file of this ledger")
    local = storage.local_path(file.path)
    if local is None:
        local = _cache("parts") / f"{name['digest']}-{file.size}.parquet"
        if not _is_intact(local, name["digest"]):
            content = storage.read(file.path)
            if digest(content) != name["digest"]:
                return Damage(file.path, "its content is not what was written: cut short or changed")
            _keep(local, content)
        return local
    try:
        intact = _is_intact(local, name["digest"])
    except FileNotFoundError as error:
        raise MissingFileError(f"{local} is gone") from error
    except OSError as error:
        raise StorageError(f"cannot read {local}: {error.strerror or error}") from error
    return local if intact else Damage(file.path, "its content is not what was written: cut short or changed")


def _is_intact(path: Path, expected: str) -> bool:
    """Whether the file's content has that digest; remembered for as long as the file is not touched."""
    if not path.exists() and _cache("parts") in path.parents:
        return False
    state = path.stat()
    memo = digest(f"{path.resolve()} {state.st_ino} {state.st_size} {state.st_mtime_ns} {expected}".encode())
    marker = _cache("verified") / memo
    if marker.exists():
        return True
    if file_digest(path) != expected:
        return False
    with suppress(OSError):  # a home that cannot be written costs the next reader the same second again, nothing else
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    return True


def file_digest(path: Path) -> str:
    """The digest of a file, read in small pieces."""
    hasher = xxhash.xxh3_64()
    with open(path, "rb", buffering=0) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            hasher.update(chunk)
    return hasher.hexdigest()


def _cache(kind: str) -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bo-sweep" / kind


def _keep(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_bytes(content)
    os.replace(temporary, path)
