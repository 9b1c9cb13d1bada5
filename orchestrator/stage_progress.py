"""Progress of work in stages, as a bar on a terminal; nothing elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from orchestrator.console import LOG

REDRAWN_AFTER_SECONDS = 0.1


class StageProgress:
    """One bar a stage; a stage is over when the next one begins."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=LOG,
            disable=not LOG.is_terminal,
        )
        self._stage: str | None = None
        self._task: TaskID | None = None
        self._drawn = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage == self._stage and now - self._drawn < REDRAWN_AFTER_SECONDS:
            return
        if stage != self._stage:
            self._finish()
            self._stage, self._task = stage, self._bar.add_task(stage, total=total or None)
        assert self._task is not None
        self._bar.update(self._task, completed=done, total=total or None)
        self._drawn = now

    def _finish(self) -> None:
        if self._task is not None:
            task = self._bar.tasks[self._bar.task_ids.index(self._task)]
            self._bar.update(self._task, total=task.total or 1, completed=task.total or 1)

    def __enter__(self) -> StageProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        self._bar.stop()
