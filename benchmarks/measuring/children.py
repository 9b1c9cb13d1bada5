"""Child processes: each measurement starts in a fresh one, as a user's command does."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
LOG_LINES = 20


class ChildError(RuntimeError):
    """A child process failed; the message holds the end of its output."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for everything that one measurement writes; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bo-sweep-bench-") as folder:
        yield Path(folder)


class Child:
    """`python -m MODULE REQUEST ANSWER`, both pickle files in `folder`; its output goes to a file beside them."""

    def __init__(self, module: str, request: Any, folder: Path, *, waits: bool = False) -> None:
        folder.mkdir(parents=True)
        self._answer, self._log = folder / "answer.pickle", folder / "output.txt"
        (folder / "request.pickle").write_bytes(pickle.dumps(request))
        self.module = module
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(folder / "request.pickle"), str(self._answer)],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_ADDRESS": "local"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if waits else log,
                stderr=log,
            )

    def wait_until_ready(self) -> None:
        """Return when the child has written its first line."""
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            self._fail()

    def go(self) -> None:
        """Let a waiting child go on."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()

    def result(self) -> Any:
        """Wait for the end; returns what the child answered. Raises ChildError where it failed."""
        try:
            self._process.communicate()
        except BaseException:  # stopped: a launch then shuts its Ray down, which a kill would leave behind
            self._process.terminate()
            self._process.wait()
            raise
        if self._process.returncode or not self._answer.exists():
            self._fail()
        return pickle.loads(self._answer.read_bytes())

    def _fail(self) -> None:
        code = self._process.wait()
        last = "\n".join(self._log.read_text(errors="replace").splitlines()[-LOG_LINES:])
        raise ChildError(f"{self.module} ended with code {code}:\n{last}")


def read_request() -> Any:
    """In the child: what is asked."""
    return pickle.loads(Path(sys.argv[1]).read_bytes())


def write_answer(answer: Any) -> None:
    """In the child: what came out."""
    Path(sys.argv[2]).write_bytes(pickle.dumps(answer))
