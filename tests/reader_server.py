"""The server of a reader pod in a process here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.k8s.fetching.claim_storage import ClaimStorage
from tests.test_fetch import ROOT


@contextmanager
def served(root: Path, *options: str) -> Iterator[str]:
    """The server of the reader pod in a process of its own; gives its address."""
    command = [sys.executable, "-m", "orchestrator.k8s.fetching.file_server", str(root), "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
    assert process.returncode == 0


@contextmanager
def served_folder(root: Path) -> Iterator[ClaimStorage]:
    root.mkdir(exist_ok=True)
    with served(root) as address:
        yield ClaimStorage(address, "claim results")
