"""Launch means reconcile: run what the ledger lacks, then draw what it holds."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from orchestrator.console import LOG, LiveProgress, duration
from orchestrator.executor import cluster, execute, run_on_worker
from orchestrator.ledger import Ledger, Manifest
from orchestrator.plan import Plan, make_plan
from orchestrator.slots import Hardware, count_slots, local_hardware, worker_memory_bytes
from orchestrator.storage import check_writable
from search_spaces.packs import Pack
from search_spaces.runs import Run
from search_spaces.spec import FlowRecipe, SearchSpace


@dataclass(frozen=True)
class LaunchOptions:
    """Where and how to run; none of it can change a result."""

    storage: Path
    name: str
    data_folder: Path
    address: str | None = None
    workers: int | None = None
    retry_failed: bool = False


def plan_launch(space: SearchSpace, options: LaunchOptions, hardware: Hardware | None = None) -> Plan:
    """What a launch would do, without doing it; writes nothing.

    Raises:
        ValueError: (PlanError, RatioError, ResourceError) the space cannot be run here or in this sweep.
        StorageError: the storage cannot be written.
    """
    hardware = hardware or local_hardware()
    check_writable(options.storage / options.name)
    slots = count_slots(space.resources, hardware, options.workers)
    worker_bytes = worker_memory_bytes(space.resources, hardware, slots)
    ledger = Ledger(options.storage / options.name)
    return make_plan(space, ledger, slots=slots, worker_bytes=worker_bytes, retry_failed=options.retry_failed)


def launch(space: SearchSpace, options: LaunchOptions) -> Plan:
    """Run what is missing of `space`; returns the plan as it stands afterwards.

    Raises:
        ValueError, StorageError: as `plan_launch`; BetonError for missing or damaged data. The ledger is as it was.
        ConnectionError: no Ray cluster answers at the address.
        KeyboardInterrupt: stopped by Ctrl-C or SIGTERM; what was committed stays, and a new launch goes on from there.
    """
    if options.address is None:
        hardware = local_hardware()
        plan = plan_launch(space, options, hardware)
        if plan.packs:
            check_data(plan.packs, options.data_folder)
            with cluster(None):
                _execute(plan, options)
    else:
        with cluster(options.address) as hardware:
            plan = plan_launch(space, options, hardware)
            if plan.packs:
                run_on_worker(check_data, plan.packs, options.data_folder.absolute())
                _execute(plan, options)
    if plan.packs:
        return plan_launch(space, replace(options, retry_failed=False), hardware)
    ledger = Ledger(options.storage / options.name)
    before = ledger.manifest()
    if before.space != space:  # nothing to train, but other seeds or thresholds to show
        ledger.write_manifest(replace(before, space=space))
    return plan


def check_data(packs: list[Pack], folder: Path) -> None:
    """Check every beton that `packs` read before any worker starts; embedded data sets are written on the way.

    Raises:
        BetonError: a beton is missing, damaged or of another size.
    """
    from workers.betons import betons_for

    largest: dict[tuple[int, int], Run] = {}  # a mixture of many dimensions holds those of few
    for pack in packs:
        run = pack.runs[0]
        key = (run.seed, run.samples) if isinstance(run.recipe, FlowRecipe) else (0, 0)
        if key not in largest or run.width > largest[key].width:
            largest[key] = run
    for run in largest.values():
        betons_for(
            run.dataset.name,
            folder,
            seed=run.seed,
            samples=run.samples,
            dimension=run.parameters,
            signal=run.dataset.signal,
        )


def _execute(plan: Plan, options: LaunchOptions) -> None:
    """Record what is launched, then train it, with live progress on stderr."""
    ledger = Ledger(options.storage / options.name)
    missing = [run for pack in plan.packs for run in pack.runs]
    LOG.print(
        f"{len(missing)} of {len(plan.runs)} runs to train on {plan.slots} workers, "
        f"about {duration(plan.estimate.wall_seconds)} ({plan.estimate.basis})"
    )

    def next_attempt() -> int:
        attempt = record_launch(ledger, plan.space, options.name)
        ledger.add_runs(missing, plan.space.axis, attempt)
        return attempt

    progress = LiveProgress(len(missing), plan.estimate.unscaled_seconds)
    with progress.shown():
        execute(
            plan.packs,
            ledger,
            resources=plan.space.resources,
            slots=plan.slots,
            data_folder=options.data_folder,
            next_attempt=next_attempt,
            on_tally=progress.update,
        )


def record_launch(ledger: Ledger, space: SearchSpace, name: str) -> int:
    """Write the manifest of one more launch; its number is the attempt of all rows that it produces."""
    before = ledger.manifest() if ledger.exists() else None
    launches = before.launches + 1 if before else 1
    created = before.created if before else datetime.now(UTC).isoformat(timespec="seconds")
    ledger.write_manifest(Manifest(name=name, space=space, launches=launches, created=created))
    return launches


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM. Python ends a process by SIGINT, whatever its exit code, once a plain KeyboardInterrupt has
    passed through an `exec` (as in the making of a dataclass, so in many imports), even if it is caught later."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM stop a launch by raising Interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
