"""Writing tables and figures into a sweep's phase folder, wherever its storage is."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from orchestrator import paths
from orchestrator.ledger import Ledger


def write_into_phase(ledger: Ledger, write: Callable[[Path], list[Path]]) -> list[str]:
    """Let `write` put its files into a local folder; gives where they are in the end, in its order.

    In an object store they are made in a temporary folder, and sent when all of them are there.

    Raises:
        StorageError: a file cannot be written.
    """
    if ledger.storage.local_path(paths.PHASE) is not None:
        return [str(path) for path in write(Path(ledger.storage.location(paths.PHASE)))]
    with tempfile.TemporaryDirectory(prefix="bo-sweep-phase-") as folder:
        files = []
        for path in write(Path(folder)):
            name = f"{paths.PHASE}/{path.name}"
            ledger.storage.write(name, path.read_bytes())
            files.append(ledger.storage.location(name))
    return files
