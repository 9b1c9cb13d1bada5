"""The sink of one worker: rows, ends and events wait in memory and become durable together, in large parts.

An evaluation or an end counts as acknowledged only when `flush` has returned: it is told to the coordinator then, and
not before. What a kill takes away was never acknowledged, and is trained again from the last checkpoint.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from orchestrator import paths
from orchestrator.ledger import Ledger, as_table
from orchestrator.storage import StorageError
from workers.schema import ROWS

FLUSH_SECONDS = 5.0
FLUSH_ROWS = 100_000
TABLE_ROWS = 1024
PATIENCE_SECONDS = 120.0
"""How long a flush goes on trying while storage fails."""
RETRY_SECONDS = (0.5, 15.0)


@dataclass
class Sink:
    """Buffers of one worker process in one launch.

    Args:
        ledger: where everything goes.
        launch: number of the launch.
        worker: host and process, for the log.
    """

    ledger: Ledger
    launch: int
    worker: str
    rows: list[Mapping[str, Any]] = field(default_factory=list)
    tables: list[pa.Table] = field(default_factory=list)
    """Rows that came before those in `rows`, in the smaller form in which they are written."""
    ends: list[Mapping[str, Any]] = field(default_factory=list)
    events: list[Mapping[str, Any]] = field(default_factory=list)
    parts: int = 0
    flushed: float = field(default_factory=time.monotonic)
    _id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    def check_shared(self) -> None:
        """Make sure that this host has the storage into which the launch writes: rows in a folder of its own are lost.

        Tried again for PATIENCE_SECONDS: NFS remembers for up to a minute what was not there.

        Raises:
            StorageError: the manifest that the launch has written is not to be seen.
        """
        started = time.monotonic()
        while True:
            try:
                if self.ledger.exists():
                    return
                where = self.ledger.storage.location(paths.MANIFEST)
                failure = StorageError(
                    f"the node {self.worker.partition('/')[0]} does not see {where}, which the launch has written: "
                    "mount that folder there too, or give one that all nodes share, s3:// or gs:// with --storage"
                )
            except StorageError as error:
                failure = error
            if time.monotonic() - started + RETRY_SECONDS[0] > PATIENCE_SECONDS:
                raise failure
            time.sleep(RETRY_SECONDS[0])

    def add(self, rows: Sequence[dict[str, Any]], ends: Sequence[dict[str, Any]], attempt: int) -> None:
        """Take in rows and ends of one attempt; nothing of it is durable yet."""
        for row in rows:
            row["attempt"] = attempt
        for end in ends:
            end["attempt"] = attempt
        self.rows += rows
        self.ends += ends
        if len(self.rows) >= TABLE_ROWS:  # while they are in the processor's caches
            self._to_table()

    def _to_table(self) -> None:
        if self.rows:
            self.tables.append(as_table(self.rows, ROWS))
            self.rows = []

    def log(self, event: str, message: str, *, run_id: str | None, attempt: int, level: str = "info") -> None:
        """Take in an event of a run, or of the whole worker where `run_id` is None."""
        self.events.append(
            {
                "time": datetime.now(UTC),
                "attempt": attempt,
                "worker": self.worker,
                "run_id": run_id,
                "level": level,
                "event": event,
                "message": message,
            }
        )

    @property
    def is_due(self) -> bool:
        """Whether something has waited long enough, or enough waits."""
        if not (self.rows or self.tables or self.ends):
            return False
        full = len(self.tables) * TABLE_ROWS >= FLUSH_ROWS
        return full or time.monotonic() - self.flushed >= FLUSH_SECONDS

    def flush(self) -> list[Mapping[str, Any]]:
        """Make all of it durable, rows before the ends that claim them; returns those ends, now acknowledged.

        A storage that fails is tried again for PATIENCE_SECONDS; the same parts get the same names, so that a try whose
        answer was lost does no harm.

        Raises:
            StorageError: it failed for all that time. Everything still waits here.
        """
        started = time.monotonic()
        pause, longest = RETRY_SECONDS
        while True:
            try:
                self._write()
                break
            except StorageError:
                if time.monotonic() - started + pause > PATIENCE_SECONDS:
                    raise
                time.sleep(pause)
                pause = min(2 * pause, longest)
        acknowledged = self.ends
        self.tables, self.ends, self.events = [], [], []
        self.parts += 1
        self.flushed = time.monotonic()
        return acknowledged

    def _write(self) -> None:
        stem = f"{self.launch:06d}-{self._id}-{self.parts:06d}"
        self._to_table()
        if self.tables:
            self.ledger.write_rows(stem, pa.concat_tables(self.tables))
        if self.ends:
            self.ledger.write_ends(stem, self.ends)
        if self.events:
            self.ledger.write_logs(stem, self.events)
