"""The overseer: a thread of the launch that looks at the workers twice a second and does what the launch owes them.

It shows progress, holds the launch to its budget, writes the ends of runs that are given up, forgives what was lost
with a node, and keeps the ledger compact. It ends the launch where another one has taken over or the cluster is gone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from orchestrator import compaction
from orchestrator.budget import Budget
from orchestrator.console import LOG
from orchestrator.executor import LOOK_SECONDS, Execution
from orchestrator.failures import death
from orchestrator.head import ClusterLostError
from orchestrator.ledger import Ledger
from orchestrator.messages import GivenUp, State
from orchestrator.provenance import versions
from orchestrator.storage import StorageError

NODES_SECONDS = 2.0
COMPACTION_SECONDS = 30.0
"""Between two looks at whether the ledger is due for compaction."""
LEAVE_SECONDS = 10.0
"""How long its threads are waited for at the end; they may be stuck in a call to a cluster that is gone."""


@dataclass
class Overseer:
    """Use it as a context manager around `Execution.run_to_the_end`.

    Args:
        execution: to look at.
        ledger: of the sweep.
        launch: number of the launch.
        budget: of the launch.
        on_state: told every state, for showing.
        interrupt: gets the main thread out of whatever it waits for.
    """

    execution: Execution
    ledger: Ledger
    launch: int
    budget: Budget
    on_state: Callable[[State], None]
    interrupt: Callable[[], None]

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        self.stopped_by: str | None = None
        self.budget_spent = False
        self.error: Exception | None = None
        self.latest: State | None = None
        self._written: set[str] = set()
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._oversee, name="overseer", daemon=True)
        self._keeper = threading.Thread(target=self._keep_compact, name="compaction", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._keeper.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._left.set()
        self._thread.join(LEAVE_SECONDS)
        self._keeper.join(COMPACTION_SECONDS)

    def ask_to_stop(self, reason: str) -> None:
        """Let workers save what they have and leave."""
        if self.stopped_by is None:
            self.stopped_by = reason
            LOG.print(f"Stopping: {reason}. Workers save what they have; a second Ctrl-C stops at once.")

    def give_way(self, error: Exception) -> None:
        """End the launch now, with `error`."""
        if self.error is None:
            self.error = error
            self.interrupt()

    def as_progress(self) -> Mapping[str, Any]:
        """What viewers in other processes are shown."""
        state = self.latest
        if state is None:
            return {"workers": 0, "running": []}
        return {
            "workers": state.workers,
            "waiting": state.waiting_runs,
            "running": [asdict(running) for running in state.running],
            "tally": asdict(state.tally),
            "gpu_hours": state.gpu_seconds / 3600,
            "seconds": time.monotonic() - self.started,
            "stopping": self.stopped_by,
        }

    def _oversee(self) -> None:
        looked_at_nodes = 0.0
        while not self._left.wait(LOOK_SECONDS):
            try:
                state = self.execution.look()
                self._take_in(state)
                if time.monotonic() - looked_at_nodes >= NODES_SECONDS:
                    looked_at_nodes = time.monotonic()
                    self.execution.forgive_lost_nodes()
            except StorageError as error:
                self.ask_to_stop(str(error))
                self.execution.drain()
            except Exception as error:  # Ray raises many kinds when a cluster goes
                if not self._left.is_set():
                    lost = (
                        error if isinstance(error, ClusterLostError) else ClusterLostError(f"the Ray cluster: {error}")
                    )
                    self.give_way(lost)
                return

    def _take_in(self, state: State) -> None:
        self.latest = state
        self.on_state(state)
        wall_seconds = time.monotonic() - self.started
        spent = self.budget.spent(wall_seconds=wall_seconds, gpu_seconds=state.gpu_seconds)
        if spent:
            self.budget_spent = self.budget_spent or self.stopped_by is None
            self.ask_to_stop(spent)
        if state.trouble and self.error is None:
            self.error = StorageError(state.trouble)
        if self.stopped_by:
            self.execution.drain()
        given_up = [each for each in state.given_up if each.run.run_id not in self._written]
        if given_up:
            self._write_ends(given_up)
        if state.given_up:
            self.execution.confirm_given_up([each.run.run_id for each in state.given_up])

    def _write_ends(self, given_up: list[GivenUp]) -> None:
        ends = []
        for each in given_up:
            failure = death(self.execution.last_words(each.died_with)) if each.died_with else each.failure
            node = each.died_with.host if each.died_with else None
            ends.append(failure.end(each.run, each.attempt) | {"node": node, "versions": versions()})
        self.ledger.write_ends(f"{self.launch:06d}-given-up-{given_up[0].attempt}", ends)
        self._written |= {each.run.run_id for each in given_up}

    def _keep_compact(self) -> None:
        while not self._left.wait(COMPACTION_SECONDS):
            try:
                if compaction.is_due(self.ledger):
                    compaction.compact(self.ledger)
            except StorageError as error:  # nothing is lost; the next launch names and repairs what is damaged
                LOG.print(f"Compaction: {error}")
