"""Files that appear whole or not at all, whoever else writes beside this process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; flushed and renamed to `path` at the end, removed after an error."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.unfinished")
    try:
        yield unfinished
        flush(unfinished)
        unfinished.rename(path)
        flush(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Wait until what was written to a file, or renamed in a folder, is on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time write in `folder`. The lock goes with the process, however that ends."""
    with open(folder / ".lock", "a") as file:
        with contextlib.suppress(OSError):  # no locks on this file system: two processes then write the same bytes
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
