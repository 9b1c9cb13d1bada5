"""The executor: fans packs out over Ray Tune workers. Disposable; all that counts is in the ledger.

Tune sees few, long trials: each trains an assignment of several packs in a warm worker process (`reuse_actors`), so
that the cost of a trial, of imports and of FFCV's compilation is paid a few times a sweep and not once a run.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.estimate import guess_seconds
from orchestrator.ledger import Ledger
from orchestrator.slots import Hardware, local_hardware
from orchestrator.worker import Tally, WorkerSettings, failed_end, train_packs
from search_spaces.packs import Pack
from search_spaces.runs import Run
from search_spaces.spec import Resources

WAVE_TRIALS = 1000
"""Trials in one Tuner: its driver's memory and snapshots grow with them (see also Ray issue 64231)."""
ASSIGNMENT_SECONDS = (4.0, 120.0)
"""Bounds of the expected length of one trial."""
ASSIGNMENTS_PER_SLOT = 16
CONNECT_SECONDS = 5.0
OBJECT_STORE_BYTES = 256 * 2**20

RAY_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard files for each trial: the ledger has it all
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # an interrupt is ours to handle
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",  # Tune's own snapshots are never read
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_worker_niceness": "0",  # training is what the machine is for; Ray would give it way to everything else
    # glibc hands freed activations back to the kernel and faults them in again at the next step: 10 to 15 % of a step.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
}


class WorkerDiedError(Exception):
    """A worker process ended without a Python error, for example killed for its memory."""


@contextmanager
def cluster(address: str | None) -> Iterator[Hardware]:
    """Connect to the Ray cluster at `address`, or start one here on all CPUs; yields its hardware.

    Raises:
        ConnectionError: no cluster answers at `address`.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in RAY_ENVIRONMENT.items()})
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address:
        check_address(address)
        package_root = Path(__file__).resolve().parent.parent
        modules = [str(package_root / name) for name in ("orchestrator", "workers", "search_spaces")]
        options |= {"address": address, "runtime_env": {"py_modules": modules}}
    else:
        options |= {
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "num_cpus": local_hardware().cpus,
        }
    try:
        with _without_rays_sigterm_handler():
            ray.init(**options)
        yield _hardware(ray.nodes())
    finally:
        ray.shutdown()


@contextmanager
def _without_rays_sigterm_handler() -> Iterator[None]:
    """Put our handler of SIGTERM back after `ray.init`, which installs one that raises SystemExit."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as exit_:
        raise KeyboardInterrupt from exit_
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def run_on_worker(function: Callable[..., None], *arguments: Any) -> None:
    """Call `function` once on the connected cluster; what it raises is raised here."""
    import ray

    try:
        ray.get(ray.remote(num_cpus=0)(function).remote(*arguments))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None


def check_address(address: str) -> None:
    """Raise ConnectionError if nothing listens at a `host:port`; Ray itself would go on trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # "auto" and the like
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ConnectionError(
            f"no Ray cluster answers at {address}: {error}. Give the address that `ray start --head` prints, or leave "
            "--address out to start one here"
        ) from error


def _hardware(nodes: Sequence[dict[str, Any]]) -> Hardware:
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    cpus = sum(node.get("CPU", 0.0) for node in resources)
    gpus = sum(node.get("GPU", 0.0) for node in resources)
    memory = min((node["memory"] / node["CPU"] for node in resources if node.get("CPU")), default=0.0)
    return Hardware(cpus, gpus, memory)


def execute(
    packs: Sequence[Pack],
    ledger: Ledger,
    *,
    resources: Resources,
    slots: int,
    data_folder: Path,
    next_attempt: Callable[[], int],
    on_tally: Callable[[Tally], None],
) -> None:
    """Train `packs` on the connected cluster until each of their runs has an end in the ledger.

    A run whose worker dies is tried once more, in a pack and trial of its own, and then recorded as failed.

    Args:
        packs: in the order wanted.
        resources: what one worker gets.
        slots: workers side by side.
        data_folder: where betons are on the workers.
        next_attempt: gives the number of a new attempt; later attempts win.
        on_tally: told the sum over all workers whenever one reports.
    """
    left = list(packs)
    isolated = False
    while left:
        settings = WorkerSettings(
            sweep_folder=ledger.paths.folder.resolve(),
            data_folder=data_folder.resolve(),
            attempt=next_attempt(),
            gpus=resources.gpus_per_worker,
            threads=max(1, int(resources.cpus_per_worker)),
        )
        board = TallyBoard(on_tally)
        assignments = [[pack] for pack in left] if isolated else make_assignments(left, slots, resources)
        for start in range(0, len(assignments), WAVE_TRIALS):
            _run_wave(assignments[start : start + WAVE_TRIALS], settings, resources, slots, board)
        statuses = ledger.statuses()
        orphans = [run for pack in left for run in pack.runs if run.run_id not in statuses]
        if isolated and orphans:
            _record_deaths(ledger, orphans, settings.attempt)
            return
        left = [Pack((run,)) for run in orphans]
        isolated = True


def make_assignments(packs: Sequence[Pack], slots: int, resources: Resources) -> list[list[Pack]]:
    """Cut packs into trials of similar expected length: seed by seed, and within a seed the longest first.

    The first seed of every cell comes before the second, and every wave ends with short trials, so that no worker waits
    long for the last one.
    """

    def seconds(pack: Pack) -> float:
        return sum(guess_seconds(run, resources.gpus_per_worker) for run in pack.runs)

    seeds = list(dict.fromkeys(pack.runs[0].seed for pack in packs))
    rank = {seed: position for position, seed in enumerate(seeds)}
    ordered = sorted(packs, key=lambda pack: (rank[pack.runs[0].seed], -seconds(pack)))
    low, high = ASSIGNMENT_SECONDS
    target = min(high, max(low, sum(map(seconds, packs)) / (slots * ASSIGNMENTS_PER_SLOT)))
    assignments: list[list[Pack]] = []
    room = 0.0
    for pack in ordered:
        if not assignments or seconds(pack) > room:
            assignments.append([])
            room = target
        assignments[-1].append(pack)
        room -= seconds(pack)
    return assignments


class TallyBoard:
    """Sums the latest tally of every trial."""

    def __init__(self, on_tally: Callable[[Tally], None]) -> None:
        self._latest: dict[str, Tally] = {}
        self._on_tally = on_tally

    def update(self, trial_id: str, report: dict[str, Any]) -> None:
        self._latest[trial_id] = Tally.from_report(report)
        total = Tally()
        for tally in self._latest.values():
            total.done += tally.done
            total.diverged += tally.diverged
            total.failed += tally.failed
            total.work += tally.work
        self._on_tally(total)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks into snapshots that nobody reads; the display stays out of them."""
        return {"_latest": {}, "_on_tally": None}


def _run_wave(
    assignments: Sequence[Sequence[Pack]],
    settings: WorkerSettings,
    resources: Resources,
    slots: int,
    board: TallyBoard,
) -> None:
    """One Tuner over `assignments`; trials that die leave their runs without an end."""
    from ray import tune

    class Reports(tune.Callback):  # type: ignore[misc]
        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            if "work" in result:
                board.update(trial.trial_id, result)

    def trial(config: dict[str, Any], wave: Sequence[Sequence[Pack]]) -> None:
        train_packs(wave[config["assignment"]], settings, tune.report)

    shape = {"cpu": resources.cpus_per_worker, "gpu": resources.gpus_per_worker}
    with tempfile.TemporaryDirectory(prefix="bo-sweep-tune-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(trial, wave=assignments), shape),
            param_space={"assignment": tune.grid_search(list(range(len(assignments))))},
            tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=slots),
            run_config=tune.RunConfig(storage_path=scratch, name="wave", verbose=0, callbacks=[Reports()]),
        )
        tuner.fit()


def _record_deaths(ledger: Ledger, orphans: Sequence[Run], attempt: int) -> None:
    error = WorkerDiedError(
        "the worker process died twice without a Python error; out of memory is the usual cause (see the kernel's log)"
    )
    ends = [failed_end(run, error) for run in orphans]
    ledger.write_ends(f"deaths-{attempt:06d}", attempt, ends)
