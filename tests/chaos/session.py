"""A session: rounds of all kinds, in the places that they need, and what came out."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.chaos import faults, places
from tests.chaos.faults import ABORTED, DONE, INFRASTRUCTURE, KILLED, STOPPED, Fault
from tests.chaos.places import Nodes
from tests.chaos.rounds import Reference, Round, Sweep, undisturbed
from tests.chaos.sweep import USUAL, Place, Size

WEIGHTS = {
    "worker": 8,
    "driver": 8,
    "raylet": 8,
    "gcs": 6,
    "cluster-gcs": 1,
    "interrupt": 4,
    "interrupt-twice": 3,
    "damage": 6,
    "full-disk": 4,
    "full-disk-for-good": 1,
    "permission": 3,
    "slow-puts": 2,
    "failing-puts": 4,
}
"""All kinds, and how often each comes among the others."""
ON_TINY_DISK = ("full-disk", "full-disk-for-good", "permission")
IN_OBJECT_STORE = ("slow-puts", "failing-puts")
ON_NODES = ("raylet", "cluster-gcs")

PROCESS_FAULTS = {
    "worker": Fault(faults.kill_worker),
    "driver": Fault(faults.kill_driver, codes=(KILLED, DONE)),
    "gcs": Fault(faults.kill_gcs, codes=(DONE, INFRASTRUCTURE), bound_seconds=90),
    "interrupt": Fault(faults.interrupt, codes=(DONE, ABORTED, STOPPED), bound_seconds=90),
    "interrupt-twice": Fault(faults.interrupt_twice, codes=(DONE, ABORTED, STOPPED), bound_seconds=60),
}


def schedule(rounds: int, kinds: Sequence[str], draw: random.Random) -> list[str]:
    """So many kinds: each by its weight but at least once where there is room, in random order."""
    total = sum(WEIGHTS[kind] for kind in kinds)
    counts = {kind: max(1, int(rounds * WEIGHTS[kind] / total)) for kind in kinds}
    while sum(counts.values()) < rounds:
        counts[min(kinds, key=lambda kind: counts[kind] / WEIGHTS[kind])] += 1
    planned = [kind for kind, count in counts.items() for _ in range(count)]
    draw.shuffle(planned)
    return planned[:rounds]


@dataclass
class Session:
    """Play `kinds`, a kind a round.

    Args:
        folder: for sweeps and for what launches say.
        seed: of everything random.
        size: of the sweeps.
        tell: is given a line about every round.
        deadline: on the monotonic clock; no round begins after it.
    """

    folder: Path
    seed: int
    size: Size = USUAL
    tell: Callable[[str], None] = lambda line: None
    deadline: float = float("inf")
    rounds: list[Round] = field(default_factory=list)
    sweeps: int = 0
    events: Counter[str] = field(default_factory=Counter)
    reference: Reference | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def play(self, kinds: Sequence[str]) -> None:
        """All rounds, place by place."""
        self.reference = self.reference or self._make_reference()
        on_disk = [kind for kind in kinds if kind not in (*ON_TINY_DISK, *IN_OBJECT_STORE)]
        if on_disk:
            self._on_disk(on_disk)
        if tiny := [kind for kind in kinds if kind in ON_TINY_DISK]:
            self._on_tiny_disk(tiny)
        if stored := [kind for kind in kinds if kind in IN_OBJECT_STORE]:
            self._in_object_store(stored)

    @property
    def problems(self) -> list[str]:
        return [f"round {each.number} ({each.kind}): {problem}" for each in self.rounds for problem in each.problems]

    def _make_reference(self) -> Reference:
        self.tell("an undisturbed sweep")
        place = replace(places.folder(self.folder / "undisturbed"), size=self.size)
        reference = undisturbed(place, self.data, self.folder / "undisturbed-launch")
        self.tell(f"took {reference.seconds:.0f} s, {reference.start_seconds:.0f} s of it before the first training")
        return reference

    def _on_disk(self, kinds: Sequence[str]) -> None:
        sweep = self._sweep(places.folder(self.folder / "disturbed"))
        with ExitStack() as stack:
            nodes: Nodes | None = None

            def play(kind: str, round_: Round) -> None:
                nonlocal nodes
                if kind == "damage":
                    sweep.play_damage(round_)
                elif kind in ON_NODES:
                    nodes = nodes or stack.enter_context(places.nodes())
                    sweep.play(round_, _on_nodes(kind, nodes), nodes.use(sweep.place))
                    if kind == "cluster-gcs":
                        stack.close()
                        nodes = None
                else:
                    sweep.play(round_, PROCESS_FAULTS[kind])

            self._rounds(sweep, kinds, play)

    def _on_tiny_disk(self, kinds: Sequence[str]) -> None:
        with places.tiny_disk(self.folder / "tiny") as (place, disk):
            named = Fault(lambda *_: "", codes=(DONE, INFRASTRUCTURE), must_say=str(disk.path))
            known = {
                "full-disk": replace(named, strike=faults.fill_disk(disk, for_good=False)),
                "full-disk-for-good": replace(named, strike=faults.fill_disk(disk, for_good=True)),
                "permission": replace(named, strike=faults.forbid_writing(disk)),
            }
            sweep = self._sweep(place)

            def play(kind: str, round_: Round) -> None:
                sweep.play(round_, known[kind])
                disk.set_writable(True)
                disk.free()

            self._rounds(sweep, kinds, play)

    def _in_object_store(self, kinds: Sequence[str]) -> None:
        with places.object_store() as (place, store):
            known = {
                "slow-puts": Fault(faults.slow_puts(store), bound_seconds=600, at_start=True),
                "failing-puts": Fault(faults.failing_puts(store), bound_seconds=600, at_start=True),
            }
            sweep = self._sweep(place)

            def play(kind: str, round_: Round) -> None:
                sweep.play(round_, known[kind])
                store.set_faults()

            self._rounds(sweep, kinds, play)

    def _sweep(self, place: Place) -> Sweep:
        assert self.reference is not None
        return Sweep(replace(place, size=self.size), self.data, self.folder, self.reference)

    def _rounds(self, sweep: Sweep, kinds: Sequence[str], play: Callable[[str, Round], None]) -> None:
        round_: Round | None = None
        for kind in kinds:
            if time.monotonic() > self.deadline:
                self.tell("the time is over")
                break
            number = len(self.rounds) + 1
            round_ = Round(number, kind, self.seed * 100_000 + number, self.folder / f"round-{number:03d}-{kind}")
            self.rounds.append(round_)
            with _judged(round_):
                play(kind, round_)
                if sweep.is_complete():
                    sweep.finish(round_)
            self._after(sweep, round_)
        if round_ is not None and sweep.place.ledger.exists():
            with _judged(round_):
                sweep.finish(round_)
            self._after(sweep, round_, told=bool(round_.problems))
        self.sweeps += sweep.finished
        self.events.update(sweep.events)

    def _after(self, sweep: Sweep, round_: Round, told: bool = True) -> None:
        if told:
            self.tell(
                f"{round_.number:3d} {round_.kind:18s} at {round_.waited:5.1f} s ({round_.phase}): "
                f"{round_.did or 'missed'}; exit code {round_.code}, {round_.seconds:.0f} s"
                + "".join(f"\n    PROBLEM {problem}" for problem in round_.problems)
            )
        if not round_.problems:
            shutil.rmtree(round_.folder, ignore_errors=True)
            return
        local = sweep.place.ledger.storage.local_path("")
        if local is not None and local.exists():
            shutil.copytree(local, round_.folder / "sweep", dirs_exist_ok=True)
        sweep.clean()


@contextmanager
def _judged(round_: Round) -> Iterator[None]:
    """A round that cannot be played or judged is one with a problem; the others go on."""
    try:
        yield
    except Exception as error:
        round_.problems.append(f"{type(error).__name__}: {error}")


def _on_nodes(kind: str, nodes: Nodes) -> Fault:
    if kind == "raylet":
        return Fault(faults.lose_node(nodes))
    return Fault(faults.kill_cluster_head(nodes), codes=(DONE, INFRASTRUCTURE), bound_seconds=240)
