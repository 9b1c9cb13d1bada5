"""The publisher: compares what the ledger says with what is published, and writes the difference, again and again.

Offline, W&B runs appear whole, once their run, cell or sweep has come to an end: a file that is synced later has nobody
who watches it grow. Online, runs in training are shown too, as far as a checkpoint goes on from.
"""

from __future__ import annotations

import functools
import itertools
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from orchestrator.ledger import Ledger
from orchestrator.publishing.cell_items import cell_items, cell_key, ended_cells
from orchestrator.publishing.columns import CELL, RUN, SUMMARY
from orchestrator.publishing.destinations import Destination, Files, Server
from orchestrator.publishing.durable import DurableRows
from orchestrator.publishing.folder import Folder, FolderError
from orchestrator.publishing.items import Item
from orchestrator.publishing.outcome import Outcome
from orchestrator.publishing.reading import Reading, is_launched, listing, read
from orchestrator.publishing.run_items import ended_items, ended_states, live_items, run_key
from orchestrator.publishing.stopping import Stopping
from orchestrator.publishing.summary_item import summary_digest, summary_item, summary_key
from orchestrator.publishing.target import CONNECTIONS, Target
from orchestrator.publishing.troubles import Troubles
from orchestrator.publishing.writer import RefusedError, StoppedError, TroubleError, Writer
from orchestrator.storage import StorageError

if TYPE_CHECKING:
    import polars as pl

Result = TypeVar("Result")

MOST_RUNS = 300
"""Runs up to which `auto` publishes each: W&B's pages show 1,000 at most, and group only 100 of them by default."""
CREATION_SECONDS = 0.5
"""Between two W&B runs on a server: below its limits even where others use the same account."""
POLL_SECONDS = 5.0
PATIENCE = 10.0
"""Seconds between readings of the ledger, for each second that the last one took."""
LIVE_SECONDS = 60.0
"""Between two looks at the runs in training."""
SUMMARY_SECONDS = 300.0
"""Between two summaries while a sweep is launched."""
GRACE_SECONDS = 30.0
"""How long `follow` waits for a launch to begin."""


@dataclass(frozen=True)
class Options:
    """How to publish.

    Attributes:
        mode: one of target.MODES.
        follow: go on until the launch has ended and all is published.
        patience_seconds: how long W&B may be away, without `follow`.
    """

    mode: str = "auto"
    follow: bool = False
    patience_seconds: float = 300.0
    poll_seconds: float = POLL_SECONDS
    live_seconds: float = LIVE_SECONDS
    summary_seconds: float = SUMMARY_SECONDS
    grace_seconds: float = GRACE_SECONDS
    creation_seconds: float = CREATION_SECONDS


class Publisher:
    """One sweep on its way to one project of W&B.

    Args:
        say: takes a line for the user.
    """

    def __init__(
        self,
        ledger: Ledger,
        target: Target,
        folder: Folder,
        options: Options,
        say: Callable[[str], None],
        stopping: Stopping,
    ) -> None:
        self._ledger, self._target, self._folder = ledger, target, folder
        self._options, self._say, self._stopping = options, say, stopping
        self._troubles = Troubles(say, None if options.follow else options.patience_seconds)
        self._ledger_troubles = Troubles(
            say, what=("The ledger cannot be read right now", "The ledger can be read again")
        )
        self._durable = DurableRows(ledger)
        self._live: dict[str, str] = {}
        self._written: set[str] = set()
        self._destination: Destination | None = None
        self._last_live = self._last_summary = float("-inf")
        self.outcome = Outcome("disabled", options.mode, folder.path)

    def run(self) -> Outcome:
        """Publish until all is there, with `follow` until the launch has ended too, or until asked to stop.

        Raises:
            LedgerError, StorageError: the ledger cannot be read.
            ConnectionError: W&B's settings do not fit, or without `follow` it takes nothing for too long.
            ValueError: W&B refuses the project, now and forever.
        """
        if self._target.connection == "disabled":
            return self.outcome
        with self._folder.locked() as lock:
            writer = Writer(lock, self._stopping.is_over)
            try:
                if self._options.follow:
                    self._follow(writer)
                else:
                    self._pass(writer, read(self._ledger), is_last=True)
            except StoppedError:
                pass
            finally:
                writer.stop()
        self.outcome.stopped = self._stopping.asked
        return self.outcome

    def _follow(self, writer: Writer) -> None:
        began, seen, launched_before = time.monotonic(), None, False
        while not self._stopping.asked:
            started = time.monotonic()
            try:
                launched, now = is_launched(self._ledger), listing(self._ledger)
                launched_before |= launched
                over = not launched and (launched_before or started - began >= self._options.grace_seconds)
                if now != seen or over or self._is_live_due(launched):
                    reading = read(self._ledger)
                    over |= not launched and not reading.unfinished
                    self._pass(writer, reading, is_last=over)
                    seen = now
                if over and listing(self._ledger) == now and not is_launched(self._ledger):
                    return
            except FolderError:
                raise
            except StorageError as error:
                self._stopping.wait(self._ledger_troubles.begin(str(error)))
                continue
            self._ledger_troubles.end()
            poll = self._options.poll_seconds
            self._stopping.wait(max(poll, PATIENCE * min(time.monotonic() - started, poll)))

    def _is_live_due(self, launched: bool) -> bool:
        is_due = time.monotonic() - self._last_live >= self._options.live_seconds
        return launched and is_due and self.outcome.connection == "online" and self.outcome.mode == "runs"

    def _pass(self, writer: Writer, reading: Reading, *, is_last: bool) -> None:
        """Bring what is published up to one reading of the ledger."""
        destination = self._destination or self._connected(writer)
        if destination is None:
            return
        mode = self._options.mode
        if mode == "auto":
            mode = "runs" if len(reading.planned) <= MOST_RUNS else "cells"
        self.outcome.mode, self.outcome.unfinished = mode, reading.unfinished
        self.outcome.there.clear()
        todo: list[Iterable[Item]] = []
        if mode == "runs":
            todo.append(self._runs(reading, destination))
        if mode == "runs" and self._is_live_due(is_launched(self._ledger)):
            self._last_live = time.monotonic()
            todo.append(self._runs_in_training(reading))
        if mode == "cells":
            todo.append(self._cells(reading, destination))
        if is_last or time.monotonic() - self._last_summary >= self._options.summary_seconds:
            self._last_summary = time.monotonic()
            todo.append(self._summary(reading, destination))
        for item in itertools.chain.from_iterable(todo):
            self._write(destination, item)
            if self._stopping.asked:
                raise StoppedError

    def _write(self, destination: Destination, item: Item) -> None:
        """Write one item; one that W&B refuses is told, counted, and not tried again by this publisher."""
        if item.id in self.outcome.refused:
            return
        try:
            written = self._patiently(functools.partial(destination.write, item))
        except RefusedError as error:
            self.outcome.refused[item.id] = f"{item.name} ({error})"
            self._say(f"Not published: {item.id}, {self.outcome.refused[item.id]}")
            return
        if item.ended:
            self.outcome.written[item.job_type] += 1
            self._written.add(item.key)
        self.outcome.url = written.url

    def _connected(self, writer: Writer) -> Destination | None:
        """Learn where to, and what is there; None where W&B's own settings say that nothing is published."""
        account = self._patiently(writer.start)
        set_so = CONNECTIONS.get(account.mode or "") if self._target.connection is None else None
        if set_so == "disabled":
            return None
        has_key = account.has_key or account.problem is not None
        connection = self._target.connection or ("online" if has_key and set_so != "offline" else "offline")
        if account.problem and connection != "offline":
            raise ConnectionError(
                f"the key for {account.base_url} cannot be used ({account.problem}): run wandb login --relogin, "
                "or set another WANDB_API_KEY, or WANDB_MODE=offline to write files and sync them later"
            )
        if connection == "online" and not account.has_key:
            raise ConnectionError(
                f"WANDB_MODE is online, and there is no key for {account.base_url}: run wandb login, or set "
                "WANDB_API_KEY. Or unset WANDB_MODE, to write files and sync them later"
            )
        self.outcome.connection = connection
        where = f"{account.base_url} {self._target.entity or account.entity or ''}/{self._target.project}"
        if connection == "online":
            self._destination = Server(
                self._folder,
                writer,
                self._target,
                where=where,
                creation_seconds=self._options.creation_seconds,
                wait=self._stopping.wait,
            )
        else:
            self._destination = Files(self._folder, writer, self._target)
        return self._destination

    def _patiently(self, call: Callable[[], Result]) -> Result:
        """What `call` gives in the end. Raises StoppedError, RefusedError, or ConnectionError where patience ends."""
        while True:
            try:
                result = call()
            except RefusedError as error:
                if error.everything:
                    raise ValueError(str(error)) from error
                raise
            except TroubleError as error:
                self._stopping.wait(self._troubles.begin(str(error)))
                if self._stopping.asked:
                    raise StoppedError from error
            else:
                self._troubles.end()
                return result

    # -- what there is to write, lazily: rows of few runs at a time ----------------------------------------------------

    def _is_new(self, destination: Destination, key: str, state: str, job_type: str) -> bool:
        known = destination.known().get(key)
        if known is not None and known.state == state:
            self.outcome.there[job_type] += key not in self._written
            return False
        return True

    def _runs(self, reading: Reading, destination: Destination) -> Iterator[Item]:
        states = ended_states(reading)
        keys = {run_id: run_key(reading.sweep_key, run_id) for run_id in states}
        new = [run_id for run_id, state in states.items() if self._is_new(destination, keys[run_id], state, RUN)]
        return ended_items(reading, new, self._target)

    def _runs_in_training(self, reading: Reading) -> Iterator[Item]:
        for item in live_items(reading, self._durable.counts(), self._target):
            if self._live.get(item.key) != item.state:
                yield item
                self._live[item.key] = item.state

    def _cells(self, reading: Reading, destination: Destination) -> Iterator[Item]:
        planned, cells = _tables(reading)
        points = ended_cells(reading, planned)
        keys = {at: cell_key(reading.sweep_key, at) for at in points}
        new = {at: state for at, state in points.items() if self._is_new(destination, keys[at], state, CELL)}
        yield from cell_items(reading, planned, cells, new, self._target)

    def _summary(self, reading: Reading, destination: Destination) -> Iterator[Item]:
        digest = summary_digest(reading)
        key = summary_key(reading.sweep_key)
        if not reading.ended or not self._is_new(destination, key, digest, SUMMARY):
            return
        folder = self._folder.staging()
        try:
            yield summary_item(reading, *_tables(reading), digest, self._target, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _tables(reading: Reading) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Planned runs and cells."""
    from orchestrator.phase_diagram import planned_cells, planned_runs

    space = reading.manifest.space
    planned = planned_runs(space, reading.ends, reading.scores)
    return planned, planned_cells(space, reading.scores, planned)
