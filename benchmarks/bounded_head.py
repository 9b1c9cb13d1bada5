"""The head of a sweep: what a pack costs beside its training, and whether memory and files stay bounded.

10,000 packs of one run each, whose trainer only makes up ten rows (benchmarks/measuring/stub.py), through `launch` as a
command makes it: planning, Ray, Tune, coordinator, workers, ledger on a local disk. Cost per pack is wall time from the
first worker's first pack until the last end is durable. Memory (RSS) is of the process that launches and of the
coordinator's; its slope is least squares over the last half of the packs. Beside it, in turn: plain Ray Tune with
warm actors (`reuse_actors=True`) and its default loggers, a trial a run, the same ten rows reported to it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil

from benchmarks.measuring.children import Child, read_request, scratch_folder, write_answer
from benchmarks.measuring.figures import Figure, Goal, pair_up
from benchmarks.measuring.machine import in_turn
from orchestrator import paths
from orchestrator.console import LOG
from orchestrator.launch_plan import LaunchOptions
from orchestrator.storage import Storage, open_storage
from search_spaces.catalog import load_space
from search_spaces.spec import SearchSpace

TEN_THOUSAND = (
    "widths=[1,2,3,4,5,6,7,8,9,10]",
    "noise.rates=[0,0.02,0.04,0.06,0.08,0.1,0.12,0.14,0.16,0.18,0.2,0.22,0.24,0.26,0.28,0.3,0.32,0.34,0.36,0.38]",
    "seeds=50",
    "packing=off",
)
FIVE_HUNDRED = ("widths=[1,2,3,4,5]", *TEN_THOUSAND[1:2], "seeds=5", "packing=off")
TRIALS, QUICK_TRIALS = 200, 20
"""Of plain Tune, whose cost is linear in them."""
ROUNDS = 3
SAMPLE_SECONDS = 0.25
GOAL_MILLISECONDS, GOAL_MEGABYTES = 2.0, 1.0
MEGABYTE = 1e6


@dataclass(frozen=True)
class Weights:
    """Memory of one process over time: RSS in MB when so many packs had been handed out."""

    packs: tuple[float, ...]
    megabytes: tuple[float, ...]

    def slope(self) -> float:
        """MB per 1,000 packs over the last half of them, by least squares."""
        packs, megabytes = np.array(self.packs), np.array(self.megabytes)
        late = packs >= packs.max() / 2
        return float(1000 * np.polyfit(packs[late], megabytes[late], 1)[0])


@dataclass(frozen=True)
class Head:
    """One launch."""

    seconds: float
    """From the first worker's first pack until the last end was durable."""
    start_up: float
    """From the start of the command until then."""
    winding_up: float
    """From the last end until `launch` returned."""
    driver: Weights
    coordinator: Weights
    files: int
    files_compacted: int
    compaction: float
    """Seconds."""


@dataclass(frozen=True)
class Plain:
    """One fit of plain Tune; `seconds` are from the first trial's first line to the return of `fit`."""

    seconds: float
    driver: Weights


def measure(quick: bool) -> Iterator[Figure]:
    """Costs per pack, then memory, then files."""
    space = load_space("digits-grid", FIVE_HUNDRED if quick else TEN_THOUSAND)
    packs = len(space.widths or ()) * len(space.noise.rates) * len(space.seeds)
    trials = QUICK_TRIALS if quick else TRIALS
    heads: list[Head] = []
    plains: list[Plain] = []
    for number in range(1 if quick else ROUNDS):
        with scratch_folder() as scratch:
            taken = in_turn(
                {"head": lambda: launch_stubs(space, scratch), "plain": lambda: fit_plain(trials, scratch)}, number
            )
        heads.append(taken["head"])
        plains.append(taken["plain"])
        LOG.print(
            f"round {number + 1}: {1e3 * heads[-1].seconds / packs:.2f} ms a pack, plain Tune "
            f"{1e3 * plains[-1].seconds / trials:.1f} ms a trial"
        )
    costs = tuple(1e3 * head.seconds / packs for head in heads)
    in_all = tuple(1e3 * (head.start_up + head.seconds + head.winding_up) / packs for head in heads)
    plain = tuple(1e3 * each.seconds / trials for each in plains)
    details = {"rounds": [asdict(head) for head in heads], "plain": [asdict(each) for each in plains]}
    goal = Goal(GOAL_MILLISECONDS, is_least=False)
    flat = Goal(GOAL_MEGABYTES, is_least=False)

    yield Figure(f"{packs:,} packs: wall time per pack, workers up", costs, "ms", goal, details)
    yield Figure(f"{packs:,} packs: wall time per pack, all of the command", in_all, "ms")
    yield Figure(f"plain Tune, warm actors, {trials} trials: wall time per trial", plain, "ms")
    yield Figure("wall time per pack / per trial of plain Tune", pair_up(costs, plain))
    for name in ("driver", "coordinator"):
        weights = [getattr(head, name) for head in heads]
        slopes = tuple(each.slope() for each in weights)
        yield Figure(f"memory of the {name}, per 1,000 packs over the last half", slopes, "MB", flat)
        yield Figure(f"memory of the {name} at the end", tuple(each.megabytes[-1] for each in weights), "MB")
    yield Figure(
        "memory of plain Tune, per 1,000 trials over the last half", tuple(p.driver.slope() for p in plains), "MB"
    )
    yield Figure("files in storage, before compaction", tuple(float(head.files) for head in heads))
    yield Figure("files in storage, after compaction", tuple(float(head.files_compacted) for head in heads))
    yield Figure("compaction", tuple(head.compaction for head in heads), "s")


def launch_stubs(space: SearchSpace, scratch: Path) -> Head:
    """Launch `space` with the stub trainer in a fresh process, then compact what it left."""
    from benchmarks.measuring.stub import TRAINER, first_packs
    from orchestrator.compaction import compact

    data_folder, storage = scratch / "data", open_storage(scratch / "sweeps")
    options = LaunchOptions(storage, space.name, data_folder, trainer=TRAINER)
    started = time.time()
    driver, coordinator, returned = Child(
        "benchmarks.bounded_head", ("head", space, options), scratch / "head"
    ).result()
    up = min(float(path.read_text()) for path in first_packs(data_folder).iterdir())
    ledger = options.ledger
    durable = max(file.modified for file in ledger.storage.list(paths.ENDS))
    files = count_files(ledger.storage)
    before = time.monotonic()
    compact(ledger)
    return Head(
        seconds=durable - up,
        start_up=up - started,
        winding_up=returned - durable,
        driver=Weights(*driver),
        coordinator=Weights(*coordinator),
        files=files,
        files_compacted=count_files(ledger.storage),
        compaction=time.monotonic() - before,
    )


def count_files(storage: Storage) -> int:
    """All files of a sweep."""
    return len(storage.list()) + sum(len(storage.list(folder)) for folder in storage.folders())


def fit_plain(trials: int, scratch: Path) -> Plain:
    """Plain Tune in a fresh process."""
    seconds, driver = Child(
        "benchmarks.bounded_head", ("plain", trials, scratch / "plain-tune"), scratch / "plain"
    ).result()
    return Plain(seconds, Weights(*driver))


# -- in the child -------------------------------------------------------------------------------------------------


@dataclass
class Sampler:
    """Notes the memory of this process, and of its coordinator where there is one, four times a second."""

    times: list[float] = field(default_factory=list)
    driver: list[float] = field(default_factory=list)
    coordinator: list[float] = field(default_factory=list)
    counted: list[tuple[float, float]] = field(default_factory=list)
    """Moments and how many packs had been handed out by then."""

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Sample while the block runs."""
        stop = threading.Event()
        thread = threading.Thread(target=self._sample, args=(stop,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _sample(self, stop: threading.Event) -> None:
        this, actor = psutil.Process(), None
        while not stop.wait(SAMPLE_SECONDS):
            actor = actor or next(filter(_is_coordinator, this.children(recursive=True)), None)
            try:
                coordinator = actor.memory_info().rss / MEGABYTE if actor else float("nan")
            except psutil.NoSuchProcess:
                return
            self.times.append(time.monotonic())
            self.driver.append(this.memory_info().rss / MEGABYTE)
            self.coordinator.append(coordinator)

    def weights(self, which: list[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Packs handed out, and memory, of every moment between the first count and the last."""
        moments, counts = map(np.array, zip(*self.counted, strict=True))
        times, megabytes = np.array(self.times), np.array(which)
        within = (times >= moments[0]) & (times <= moments[-1]) & np.isfinite(megabytes)
        return tuple(np.interp(times[within], moments, counts).tolist()), tuple(megabytes[within].tolist())


def _is_coordinator(process: psutil.Process) -> bool:
    try:
        return any("Coordinator" in word for word in process.cmdline())
    except psutil.Error:
        return False


def head_child(space: SearchSpace, options: LaunchOptions) -> Any:
    """Launch; answers the memory of driver and coordinator, and when `launch` had returned."""
    from orchestrator import launch
    from orchestrator.executor import Execution
    from orchestrator.messages import State

    sampler = Sampler()

    class Watched(Execution):
        """Counts packs whenever the launch looks at them anyway."""

        def look(self) -> State:
            state = super().look()
            sampler.counted.append((time.monotonic(), float(-state.waiting_runs)))
            return state

    with mock.patch.object(launch, "Execution", Watched), sampler.sampling():
        plan = launch.launch(space, options).plan
    returned = time.time()
    if not plan.is_complete:
        raise SystemExit(f"only {plan.count('done')} of {len(plan.runs)} runs are done")
    sampler.counted = [(moment, len(plan.runs) + minus) for moment, minus in sampler.counted]
    return sampler.weights(sampler.driver), sampler.weights(sampler.coordinator), returned


def plain_child(trials: int, results: Path) -> Any:
    """What a careful researcher writes; answers seconds from the first trial on, and the memory of this process."""
    import ray
    from ray import tune

    from benchmarks.measuring.stub import EVALUATIONS, first_packs, sign_in, stub_rows

    def trainable(config: dict[str, Any]) -> None:
        sign_in(results)
        for row in stub_rows(EVALUATIONS):
            tune.report(row)

    sampler = Sampler()

    class Count(tune.Callback):  # type: ignore[misc]
        def on_trial_complete(self, *arguments: Any, **info: Any) -> None:
            sampler.counted.append((time.monotonic(), float(len(sampler.counted))))

    ray.init("local")
    tuner = tune.Tuner(
        trainable,
        param_space={"number": tune.grid_search(list(range(trials)))},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(results), name="plain", callbacks=[Count()]),
    )
    with sampler.sampling():
        grid = tuner.fit()
    ended = time.time()
    if grid.errors:
        raise SystemExit(f"{len(grid.errors)} trials failed: {grid.errors[0]}")
    up = min(float(path.read_text()) for path in first_packs(results).iterdir())
    return ended - up, sampler.weights(sampler.driver)


def main() -> None:
    """The child."""
    task, *arguments = read_request()
    write_answer(head_child(*arguments) if task == "head" else plain_child(*arguments))


if __name__ == "__main__":
    main()
