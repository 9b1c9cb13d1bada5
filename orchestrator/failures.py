"""What went wrong with a run: its kind, its signature and its last lines."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from search_spaces.runs import Run

ERROR_LINES = 30
OUT_OF_MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "cublas_status_alloc_failed")

Kind = Literal["error", "out of memory", "transient"]


@dataclass(frozen=True)
class Failure:
    """Why a pack did not finish.

    Attributes:
        kind: "error" happens again at every try; "out of memory" may not in a smaller pack; "transient" (a worker that
            died, a file system that hiccuped) may not at the next try.
        signature: the same for failures of one cause.
        lines: the last lines of a trace or of a log.
    """

    kind: Kind
    signature: str
    lines: str

    def end(self, run: Run, attempt: int) -> dict[str, Any]:
        """The end of a run that is given up for this reason."""
        return {
            "run_id": run.run_id,
            "attempt": attempt,
            "status": "failed",
            "seconds": 0.0,
            "error": self.lines,
            "signature": self.signature,
        }


def failure_of(error: BaseException) -> Failure:
    """Read an exception that training raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].name}" if frames else ""
    lines = "".join(traceback.format_exception(error)).splitlines()[-ERROR_LINES:]
    return Failure(_kind(error), f"{type(error).__name__}{place}", "\n".join(lines))


def _kind(error: BaseException) -> Kind:
    text = str(error).lower()
    if is_lost_peer(error):
        return "transient"
    if isinstance(error, MemoryError) or any(words in text for words in OUT_OF_MEMORY_WORDS):
        return "out of memory"
    if isinstance(error, OSError) and not isinstance(error, (FileNotFoundError, PermissionError, NotADirectoryError)):
        return "transient"
    return "error"


def is_lost_peer(error: BaseException) -> bool:
    """Whether it only says that another process of a group went away, or did not answer.

    NCCL's errors have a class of their own; gloo's are RuntimeErrors that name its source file.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    text = str(error)
    return bool(names & {"DistError", "DistBackendError"}) or "/gloo/" in text or "Connection closed by peer" in text


def death(last_lines: str) -> Failure:
    """A worker process that ended without a Python error; `last_lines` of its stderr, if they are known."""
    said = f"It last wrote:\n{last_lines}" if last_lines.strip() else "It wrote nothing before."
    return Failure(
        "transient",
        "WorkerDiedError",
        "the worker process died without a Python error; out of memory (see the kernel's log) and crashes in native "
        f"code are the usual causes. {said}",
    )
