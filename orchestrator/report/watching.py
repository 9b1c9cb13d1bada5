"""What a live page is told: the state of a sweep, its document and its curves, read when asked, and not too often.

Nothing is written. One reading is kept, so memory does not grow with time; it is taken again only when a file of the
ledger has come or gone, and never sooner than a few seconds, or three times as long as the last one took.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import polars as pl

from orchestrator import paths
from orchestrator.console import duration
from orchestrator.ledger import Ledger, LedgerError
from orchestrator.report.contents import Commands, Contents, read_contents
from orchestrator.report.curves import curve_rows, packed, thinned, thinning
from orchestrator.report.document import as_json, report_document
from orchestrator.report.downloads import Download, make
from orchestrator.report.sections import sections
from orchestrator.status import status_document
from orchestrator.storage import StorageError

REFRESH_SECONDS = 2.0
PATIENCE = 3.0
"""Seconds between readings, for each second that the last one took."""


@dataclass(frozen=True)
class Answer:
    """The body of an answer, and its entity tag."""

    body: bytes
    tag: str

    @classmethod
    def of(cls, content: str) -> Answer:
        body = content.encode()
        return cls(body, hashlib.sha256(body).hexdigest()[:16])


class Watch:
    """One sweep, read again and again. Safe to ask from several threads."""

    def __init__(self, ledger: Ledger, commands: Commands, *, refresh_seconds: float = REFRESH_SECONDS) -> None:
        self._ledger, self._commands, self._refresh = ledger, commands, refresh_seconds
        self._lock = threading.Lock()
        self._due = 0.0
        self._contents: Contents | None = None
        self._document: Answer | None = None
        self._seen: object = None
        self._state = Answer.of("{}")
        self.readings = 0
        """How often the ledger's tables were read."""

    def state(self) -> Answer:
        """Counts by status in words, the share that is done, what is wrong, and the tag of the document (JSON)."""
        with self._lock:
            self._look()
            return self._state

    def document(self) -> Answer | None:
        """The document and the texts of the page (JSON); None before there is a sweep."""
        with self._lock:
            self._look()
            return self._document

    def curves(self, cell_id: str) -> bytes | None:
        """The packed curves of a cell, or None where there is no such cell. Raises StorageError."""
        with self._lock:
            self._look()
            contents, document = self._contents, self._document
        if contents is None or document is None:
            return None
        keys = contents.cells.select("noise_rate", "width", "samples").rows()
        ids = [f"{rate!r}/{width}/{samples}" for rate, width, samples in keys]
        if cell_id not in ids:
            return None
        run_ids = contents.plan.filter(pl.col("cell") == ids.index(cell_id))["run_id"].to_list()
        return packed(thinned(self._rows(contents, run_ids), thinning(contents.snapshot)))

    def download(self, name: str) -> Download | None:
        """One of the tables, or None before there is a sweep. Raises ValueError on an unknown name."""
        with self._lock:
            self._look()
            contents = self._contents
        return None if contents is None else make(contents, name)

    def _rows(self, contents: Contents, run_ids: list[str]) -> pl.DataFrame:
        try:
            return curve_rows(contents.snapshot, run_ids)
        except FileNotFoundError:  # compacted away since the last reading
            with self._lock:
                self._due, self._seen = 0.0, None
                self._look()
                return curve_rows((self._contents or contents).snapshot, run_ids)

    def _look(self) -> None:
        """Read again, if it is time to and anything has changed."""
        started = time.monotonic()
        if started < self._due:
            return
        problem, status = None, None
        try:
            if not self._ledger.exists():
                self._contents = self._document = self._seen = None
                self._state = _state(_waiting(self._ledger, self._commands), None, None)
                self._due = started + self._refresh
                return
            status = status_document(self._ledger)
            live = frozenset(_in_training(status))
            seen = (_listing(self._ledger), live)
            if seen != self._seen:
                self._read(live)
                self._seen = seen
        except (LedgerError, StorageError, ValueError) as error:
            problem = str(error)
        words = _words(status) if status else f"{self._ledger.name} cannot be read right now."
        share = _share(status) if status else None
        self._state = _state(words, share, problem, self._document)
        now = time.monotonic()
        self._due = now + max(self._refresh, PATIENCE * (now - started))

    def _read(self, in_training: frozenset[str]) -> None:
        contents = read_contents(self._ledger, unfinished_too=True)
        running = pl.col("run_id").is_in(list(in_training)) & pl.col("status").is_in(["unfinished", "waiting", "lost"])
        plan = contents.plan.with_columns(status=pl.when(running).then(pl.lit("running")).otherwise(pl.col("status")))
        contents = Contents(**{**vars(contents), "plan": plan})
        document = report_document(contents, self._commands) | {"thinned": thinning(contents.snapshot)}
        parts = sections(contents, self._commands)
        self._document = Answer.of(f'{{"document":{as_json(document)},"parts":{json.dumps(parts)}}}')
        self._contents = contents
        self.readings += 1


def _state(words: str, share: float | None, problem: str | None, document: Answer | None = None) -> Answer:
    return Answer.of(
        json.dumps({"words": words, "share": share, "problem": problem, "document": document and document.tag})
    )


def _listing(ledger: Ledger) -> tuple[Any, ...]:
    """All that makes up the ledger: a part never changes, so names tell; damage shows in sizes and times."""
    folders = (paths.RUNS, paths.ROWS, paths.ENDS)
    files = [(file.path, file.size, file.modified) for folder in folders for file in ledger.storage.list(folder)]
    return (ledger.storage.read(paths.MANIFEST), *sorted(files))


def _in_training(status: Mapping[str, Any]) -> list[str]:
    return [run_id for each in (status["live"] or {}).get("running", []) for run_id in each["run_ids"]]


def _share(status: Mapping[str, Any]) -> float:
    runs = status["runs"]
    return float((runs["done"] + runs["diverged"]) / runs["total"])


def _words(status: Mapping[str, Any]) -> str:
    """The counts as `bo-sweep status` shows them, and whether anything runs."""
    runs, live = status["runs"], status["live"]
    counts = ", ".join(f"{runs[name]} {name}" for name in ("done", "diverged", "failed", "running", "waiting"))
    lost = f", {runs['lost']} lost" if runs["lost"] else ""
    words = f"{counts}{lost}; {_share(status):.0%} of {runs['total']} runs."
    if live is None:
        left = runs["running"] + runs["waiting"] + runs["lost"]
        return f"{words} The sweep has ended." if not left else f"{words} Nothing runs now."
    left = f", about {duration(status['eta_seconds'])} left" if status["eta_seconds"] is not None else ""
    return f"{words} Running on {live['workers']} workers{left}."


def _waiting(ledger: Ledger, commands: Commands) -> str:
    text = f"Waiting: there is no sweep {ledger.name} at {ledger.storage.url} yet."
    with suppress(StorageError):
        if ledger.storage.list(""):
            text += " Something is there, but no manifest."
    return f"{text} Start it with: {commands.launch}"
