"""Rounds: launch, wait for a random time, strike, wait for the end, and check; again and again over the same sweep."""

from __future__ import annotations

import random
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from orchestrator.compaction import compact
from orchestrator.verify import verify
from tests.chaos.checks import check, check_complete, check_found, check_repaired, finished_runs
from tests.chaos.damage import damage
from tests.chaos.faults import INFRASTRUCTURE, KILLED, Fault
from tests.chaos.sweep import Launch, Place, table

LEAVE_SECONDS = 60.0
"""How long the processes of a launch that ended may take to be gone."""
UNDISTURBED_SECONDS = 600.0


@dataclass
class Round:
    """What happened in one round; `problems` must stay empty."""

    number: int
    kind: str
    seed: int
    folder: Path
    waited: float = 0.0
    phase: str = ""
    did: str = ""
    code: int | None = None
    seconds: float = 0.0
    leftovers: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def hit(self) -> bool:
        return bool(self.did) and self.phase != "over"


@dataclass(frozen=True)
class Reference:
    """The undisturbed sweep: its table, and how long its launch took, to the first training and in all."""

    table: pl.DataFrame
    start_seconds: float
    seconds: float


def undisturbed(place: Place, data: Path, folder: Path) -> Reference:
    """Launch once with nothing in its way."""
    launch = Launch(place, data, folder)
    launch.wait_until(launch.is_training, UNDISTURBED_SECONDS)
    start = time.monotonic() - launch.started
    code = launch.wait(UNDISTURBED_SECONDS)
    if code != 0:
        launch.clear(0)
        raise RuntimeError(f"the undisturbed launch ended with {code}: {launch.errors}")
    seconds = time.monotonic() - launch.started
    found = verify(place.ledger)
    if not found.is_complete:
        raise RuntimeError(f"the undisturbed launch is not complete: {found}")
    return Reference(table(place.ledger), start, seconds)


@dataclass
class Sweep:
    """One sweep after the other in the same place, each disturbed until it is complete.

    Args:
        place: where it lies.
        data: folder of the betons.
        folder: for what the launches say; that of a round with a problem is kept.
        reference: what must come out.
    """

    place: Place
    data: Path
    folder: Path
    reference: Reference
    finished: int = 0
    events: dict[str, int] = field(default_factory=dict)

    def play(self, round_: Round, fault: Fault, place: Place | None = None) -> Round:
        """One launch with one fault. `place` is the sweep's own, maybe with other arguments."""
        draw = random.Random(round_.seed)
        place = place or self.place
        before = finished_runs(place.ledger)
        launch = Launch(place, self.data, round_.folder)
        round_.waited = 0.0 if fault.at_start else draw.uniform(0, self._expected_seconds(len(before)))
        launch.wait(round_.waited)
        round_.phase = launch.phase()
        if round_.phase != "over":
            round_.did = fault.strike(launch, draw)
        round_.code = launch.wait(fault.bound_seconds)
        if round_.code is None:
            round_.problems.append(f"hangs: still there {fault.bound_seconds:.0f} s after the fault")
        round_.leftovers = launch.clear(LEAVE_SECONDS if round_.code is not None else 0)
        round_.seconds = time.monotonic() - launch.started
        said = launch.errors
        allowed = fault.codes if round_.did else (0,)
        if round_.code is not None and round_.code not in allowed:
            round_.problems.append(f"exit code {round_.code}, allowed are {allowed}; it said: {said[-2000:]}")
        if "Traceback" in said and round_.code != KILLED:
            round_.problems.append(f"a trace instead of a message: {said[-4000:]}")
        if round_.code == INFRASTRUCTURE and fault.must_say not in said:
            round_.problems.append(f"the message does not name {fault.must_say}: {said[-2000:]}")
        round_.problems += check(place.ledger, self.reference.table, before.keys())
        return round_

    def play_damage(self, round_: Round) -> Round:
        """Damage a file between two launches; the second one repairs it."""
        draw = random.Random(round_.seed)
        ledger = self.place.ledger
        started = time.monotonic()
        if not ledger.exists() or not ledger.storage.list("rows"):
            self._launch_undisturbed(round_, "before")
        before = finished_runs(ledger)
        round_.phase = "end" if len(before) == self.place.size.runs else "training"
        if draw.random() < 0.3:
            compact(ledger)
        damaged = damage(self.place, draw)
        assert damaged is not None
        round_.did = f"{damaged.kind}: {damaged.name}"
        round_.problems += check_found(ledger, damaged, before.keys())
        said = self._launch_undisturbed(round_, "after")
        round_.problems += check_repaired(ledger, damaged, before, said)
        round_.problems += check_complete(ledger, self.reference.table)
        round_.seconds = time.monotonic() - started
        return round_

    def is_complete(self) -> bool:
        return len(finished_runs(self.place.ledger)) == self.place.size.runs

    def finish(self, round_: Round) -> None:
        """A last launch with nothing in its way, the comparison with the reference, and a clean place for the next."""
        self._launch_undisturbed(round_, "last")
        round_.problems += check_complete(self.place.ledger, self.reference.table)
        for event in self.place.ledger.logs()["event"].to_list():
            self.events[event] = self.events.get(event, 0) + 1
        self.finished += 1
        if not round_.problems:
            self.clean()

    def clean(self) -> None:
        """Remove the sweep."""
        sweep = self.place.ledger.storage
        local = sweep.local_path("")
        if local is not None:
            shutil.rmtree(local, ignore_errors=True)
            return
        for name in ("", *sweep.folders()):
            for file in sweep.list(name):
                sweep.delete(file.path)

    def _launch_undisturbed(self, round_: Round, name: str) -> str:
        launch = Launch(self.place, self.data, round_.folder / name)
        code = launch.wait(UNDISTURBED_SECONDS)
        round_.leftovers += launch.clear(LEAVE_SECONDS)
        if code != 0:
            round_.problems.append(f"an undisturbed launch ended with {code}: {launch.errors[-4000:]}")
        return launch.errors

    def _expected_seconds(self, finished: int) -> float:
        """A bit more than a launch takes that has so many runs less to train."""
        training = (self.reference.seconds - self.reference.start_seconds) * (1 - finished / self.place.size.runs)
        return 1.1 * (self.reference.start_seconds + training)
