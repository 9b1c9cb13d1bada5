"""What the user sees: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from orchestrator.messages import Tally

JSON_SCHEMA_VERSION = 1
PLAIN_LINE_SECONDS = 10.0
"""Time between progress lines where stderr is no terminal."""

RESULTS = Console(soft_wrap=True, highlight=False, emoji=False, width=None if sys.stdout.isatty() else 140)
LOG = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)


def print_json(content: Mapping[str, Any]) -> None:
    """Write one JSON document with its schema_version to stdout; numbers that are not finite become null."""
    document = _finite({"schema_version": JSON_SCHEMA_VERSION, **content})
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def print_next(*commands: str) -> None:
    """Tell what to do next, one command a line."""
    LOG.print("\n[bold]Next[/bold]")
    for command in commands:
        LOG.print(f"  {command}", markup=False)


def duration(seconds: float) -> str:
    """`90` as "1m 30s": two units at most."""
    seconds = round(seconds)
    for unit, name, small_unit, small_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if seconds >= unit:
            return f"{seconds // unit}{name} {seconds % unit // small_unit:02d}{small_name}"
    return f"{seconds}s"


class LiveProgress:
    """Done of total, failures and time left: a bar on a terminal, a line every few seconds elsewhere."""

    def __init__(self, total: int, work: float) -> None:
        self._total, self._work = total, work
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("runs"),
            TextColumn("{task.fields[trouble]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=LOG,
        )
        self._task = self._bar.add_task("training", total=total, trouble="", left="starting workers")
        self._first: tuple[float, float] | None = None
        self._last_line = 0.0

    @contextmanager
    def shown(self) -> Iterator[LiveProgress]:
        """Show it while the block runs."""
        if not LOG.is_terminal:
            yield self
            return
        with self._bar:
            yield self

    def update(self, tally: Tally) -> None:
        """Take in the sum of what all workers have done."""
        now = time.monotonic()
        if self._first is None:
            self._first = (now, tally.work)
        ended = tally.done + tally.diverged + tally.failed
        trouble = " ".join(
            f"{count} {name}" for count, name in ((tally.failed, "failed"), (tally.diverged, "diverged")) if count
        )
        left = self._time_left(now, tally.work)
        self._bar.update(self._task, completed=ended, trouble=trouble, left=left)
        if not LOG.is_terminal and now - self._last_line >= PLAIN_LINE_SECONDS:
            self._last_line = now
            LOG.print(f"{ended}/{self._total} runs {trouble} {left}".replace("  ", " "))

    def _time_left(self, now: float, work: float) -> str:
        """From the share of estimated work done since the first report; the estimate's scale cancels."""
        assert self._first is not None
        started, before = self._first
        if work <= before or now <= started:
            return ""
        rate = (work - before) / (now - started)
        return f"ETA {duration(max(0.0, self._work - work) / rate)}"
