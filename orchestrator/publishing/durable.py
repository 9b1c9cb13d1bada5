"""How far a run in training can no longer change: up to its last checkpoint, from which it goes on after any accident.

A worker makes rows durable, saves checkpoints, and writes the events that say so with its next part (worker.py,
sink.py). Parts of one worker are numbered, so rows in parts before that of such an event are before the checkpoint.
"""

from __future__ import annotations

import re
from typing import Any

from orchestrator import paths
from orchestrator.ledger import Ledger
from orchestrator.ledger_schema import LOGS
from orchestrator.parts import Damage, consistently, list_parts, read_part
from workers.schema import ROWS

_STEM = re.compile(r"[a-z]+/\d{6}-[0-9a-f]{12}-(?P<number>\d{6})\.[0-9a-f]{16}\.parquet")
SAVED = "checkpointed"


class DurableRows:
    """Reads each part of a worker once; ask again and again while a sweep runs."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._seen: set[str] = set()
        self._saved: dict[tuple[str, int], int] = {}
        """The number of the last part that tells of a checkpoint, by run id and attempt."""
        self._rows: dict[str, dict[int, list[tuple[int, int, int]]]] = {}
        """Number of the part, first and last evaluation, by run id and attempt."""

    def counts(self) -> dict[str, int]:
        """Of each run with a checkpoint, the number of its rows that stay as they are."""
        consistently(self._read)
        found = {}
        for run_id, attempts in self._rows.items():
            attempt = max(attempts)  # the latest; whatever it went on from lies before its first row
            before = self._saved.get((run_id, attempt), 0)
            covered = [last + 1 for number, _, last in attempts[attempt] if number < before]
            found[run_id] = max(min(first for _, first, _ in attempts[attempt]), *covered, 0)
        return {run_id: count for run_id, count in found.items() if count}

    def _read(self) -> None:
        for folder, schema, take in (
            (paths.LOGS, LOGS, self._take_events),
            (paths.ROWS, ROWS, self._take_rows),
        ):
            for file in list_parts(self._ledger.storage, folder):
                name = _STEM.fullmatch(file.path)
                if name is None or file.path in self._seen:
                    continue
                table = read_part(self._ledger.storage, file.path, schema)
                if not isinstance(table, Damage):
                    take(int(name["number"]), table)
                    self._seen.add(file.path)

    def _take_events(self, number: int, table: Any) -> None:
        columns = (table[name].to_pylist() for name in ("event", "run_id", "attempt"))
        for event, run_id, attempt in zip(*columns, strict=True):
            if event == SAVED and run_id is not None:
                self._saved[run_id, attempt] = max(self._saved.get((run_id, attempt), 0), number)

    def _take_rows(self, number: int, table: Any) -> None:
        import polars as pl

        rows = pl.DataFrame(table.select(["run_id", "attempt", "evaluation"]))
        evaluation = pl.col("evaluation")
        spans = rows.group_by("run_id", "attempt").agg(first=evaluation.min(), last=evaluation.max())
        for run_id, attempt, first, last in spans.iter_rows():
            self._rows.setdefault(run_id, {}).setdefault(attempt, []).append((number, first, last))
