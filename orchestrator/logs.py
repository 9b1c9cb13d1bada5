"""Python's warnings and log records of a worker, kept with the run that was in training."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.sink import Sink
    from orchestrator.worker import Current

QUIET = ("ray", "numba", "matplotlib")
"""Libraries whose own records are not about a run."""


class SinkHandler(logging.Handler):
    """Puts records of level warning and above into a sink."""

    def __init__(self, sink: Sink, current: Callable[[], Current]) -> None:
        super().__init__(logging.WARNING)
        self._sink, self._current = sink, current

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.split(".")[0] in QUIET:
            return
        current = self._current()
        level = "error" if record.levelno >= logging.ERROR else "warning"
        run_ids: list[str | None] = [run.run_id for run in current.runs]
        for run_id in run_ids or [None]:
            self._sink.log(record.name, record.getMessage(), run_id=run_id, attempt=current.attempt, level=level)


@contextmanager
def logged_to(sink: Sink, current: Callable[[], Current]) -> Iterator[None]:
    """Keep warnings and log records in `sink` while the block runs."""
    handler = SinkHandler(sink, current)
    root = logging.getLogger()
    show = warnings.showwarning
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        warnings.showwarning = show
        root.removeHandler(handler)
