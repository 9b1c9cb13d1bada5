"""Writing to storage so that a file is either whole or not there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


class StorageError(Exception):
    """Storage that cannot be written or read; the message says which path, why, and what to do."""


def write_bytes(path: Path, content: bytes) -> None:
    """Write `path` atomically: beside it, flushed to disk, renamed.

    Raises:
        StorageError: the folder cannot be written, or the disk is full; nothing half-written stays behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path}: {error.strerror or error}. Free space or choose --storage") from error


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as Parquet, atomically. Raises StorageError as `write_bytes` does."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_bytes(path, sink.getvalue().to_pybytes())


def read_tables(folder: Path, schema: pa.Schema) -> pa.Table:
    """All Parquet files of `folder`, in the order of their names, as one table of `schema`; empty where none are.

    Raises:
        StorageError: a file that is no Parquet file, or lacks columns; it is named.
    """
    tables = []
    for path in sorted(folder.glob("*.parquet")) if folder.is_dir() else []:
        try:
            tables.append(_read_table(path, schema))
        except (OSError, pa.ArrowException) as error:
            raise StorageError(
                f"{path} is damaged ({error}). Move it away and run the same launch again: it redoes what is lost"
            ) from error
    return pa.concat_tables(tables) if tables else schema.empty_table()


def _read_table(path: Path, schema: pa.Schema) -> pa.Table:
    with pq.ParquetFile(path) as file:
        lacking = sorted(set(schema.names) - set(file.schema_arrow.names))
        if lacking:  # left to itself, Arrow reads a column that is not there as nulls
            raise pa.ArrowInvalid(f"not a file of this ledger: it lacks {', '.join(lacking)}")
        return file.read(columns=schema.names).select(schema.names).cast(schema)


def check_writable(folder: Path) -> None:
    """Make sure that `folder` can be created and written, leaving nothing behind.

    Raises:
        StorageError: with the path and the reason.
    """
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        if not existing.is_dir():
            raise NotADirectoryError(20, f"{existing} is not a folder")
        with tempfile.TemporaryFile(dir=existing) as probe:
            probe.write(b"0")
            probe.flush()
    except OSError as error:
        raise StorageError(
            f"storage {folder} cannot be written: {error.strerror or error}. Choose another folder with --storage"
        ) from error
