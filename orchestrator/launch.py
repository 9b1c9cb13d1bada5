"""Launch means reconcile: run what the ledger lacks, then draw what it holds. It can be killed at any instant."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from orchestrator import paths
from orchestrator.budget import Budget
from orchestrator.calibration import calibration_for
from orchestrator.compaction import compact, is_due
from orchestrator.console import LOG, LiveProgress, duration
from orchestrator.executor import Execution, cluster, run_on_worker
from orchestrator.lease import Lease, LeaseHeldError
from orchestrator.ledger import ATTEMPTS_PER_LAUNCH, DamagedManifestError, Ledger, LedgerError, Manifest, open_ledger
from orchestrator.overseer import Overseer
from orchestrator.parts import DamagedPartsError
from orchestrator.plan import Plan, keep_cells, make_plan
from orchestrator.repair import next_launch_number, repair
from orchestrator.reuse import reuse_runs
from orchestrator.slots import Hardware, local_hardware
from orchestrator.stops import Stops
from orchestrator.storage import Storage
from orchestrator.worker import WorkerSettings
from search_spaces.order import order_packs
from search_spaces.packs import Pack, group_packs
from search_spaces.runs import Run, count_beside, expand
from search_spaces.selectors import Selector, check_selectors
from search_spaces.spec import FlowRecipe, SearchSpace


@dataclass(frozen=True)
class LaunchOptions:
    """Where and how to run; none of it can change a result.

    Attributes:
        storage: holds all sweeps.
        name: of this sweep.
        data_folder: where betons are, here and on the workers.
        address: of a running Ray cluster; None starts one here.
        workers: at most this many side by side.
        retry_failed: run failed runs again, those with `signature` if one is given.
        first: cells to run before all others.
        budget: where to stop.
        reuse: sweeps in the same storage whose finished runs are taken over.
        trainer: "module:function" that trains a pack; for measuring what is around it.
        calibration: file of measured speeds, for the estimate; None for that in the data folder.
    """

    storage: Storage
    name: str
    data_folder: Path
    address: str | None = None
    workers: int | None = None
    retry_failed: bool = False
    signature: str | None = None
    first: tuple[Selector, ...] = ()
    budget: Budget = field(default_factory=Budget)
    reuse: tuple[str, ...] = ()
    trainer: str = WorkerSettings.trainer
    calibration: Path | None = None

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.storage.child(self.name))


@dataclass(frozen=True)
class Outcome:
    """The plan as it stands after a launch, and why it stopped before the end, if it did."""

    plan: Plan
    stopped_by: str | None = None


def plan_launch(
    space: SearchSpace, options: LaunchOptions, hardware: Hardware | None = None, *, anywhere: bool = False
) -> Plan:
    """What a launch would do, in its order, without doing it; writes nothing. Cells that the sweep has beside its grid
    are part of it.

    `anywhere` plans a GPU sweep on a laptop: for a machine that can hold the workers where this one cannot.

    Raises:
        ValueError: (PlanError, RatioError, ResourceError) the space cannot be run here or in this sweep.
        LedgerError: no sweep to reuse.
        StorageError: the storage cannot be written, or the ledger has damaged files.
    """
    options.budget.check(space.resources)
    space = keep_cells(space, options.ledger)
    for name in options.reuse:
        open_ledger(options.storage, name)
    ledger = options.ledger
    ledger.storage.check_writable()
    plan = make_plan(
        space,
        ledger,
        hardware=hardware or local_hardware(),
        workers=options.workers,
        anywhere=anywhere,
        retry_failed=options.retry_failed,
        signature=options.signature,
        calibration=calibration_for(options.data_folder, options.calibration),
        elsewhere=options.address is not None,
    )
    check_selectors(options.first, plan.runs)
    work = plan.lanes.seconds
    ordered = order_packs(
        plan.packs,
        plan.runs[: len(plan.runs) - count_beside(space)],
        first=options.first,
        priorities=space.priorities,
        seconds=lambda pack: sum(map(work, pack.runs)),
    )
    return replace(plan, packs=ordered)


def launch(space: SearchSpace, options: LaunchOptions, stops: Stops | None = None) -> Outcome:
    """Run what is missing of `space`.

    Raises: as `session`.
    """
    with session(space, options, stops) as opened:
        return opened.reconcile(space)


@contextmanager
def session(space: SearchSpace, options: LaunchOptions, stops: Stops | None = None) -> Iterator[Session]:
    """A launch that may train several times: nobody else launches the sweep while the block runs.

    Raises:
        ValueError: as `plan_launch`; BetonError for missing or damaged data. The ledger is as it was.
        StorageError: storage cannot be written, at first or any more; what was committed stays.
        LeaseHeldError: another launch of this sweep is running.
        ConnectionError: no Ray cluster answers at the address, or the cluster is gone.
        KeyboardInterrupt: stopped at once; what was committed stays, and a new launch goes on from there.
    """
    stops = stops or Stops()
    with _hardware_now(options, stops) as hardware:
        plan = _plan_or_damage(space, options, hardware)
        if plan and plan.packs:
            _check_data(plan.packs, options)
        with _leased(options, stops) as overseen, ExitStack() as workers:
            prepared = _prepare(space, options, hardware, plan)
            try:
                yield Session(options, stops, hardware, overseen, workers, prepared, bool(plan and plan.packs))
            except KeyboardInterrupt:
                overseen.raise_error()  # what the interrupt is about, where it came between two rounds of training
                raise


@dataclass
class Session:
    """What one launch holds: hardware, the lease, workers from the first training on, and what is left of its budget.

    Attributes:
        options: of the launch. Failed runs are retried by the first training alone; the budget shrinks.
        prepared: the plan for the first training.
        checked: whether the data has been looked at.
    """

    options: LaunchOptions
    stops: Stops
    hardware: Hardware
    overseen: _Overseen
    workers: ExitStack
    prepared: Plan | None
    checked: bool
    started: float | None = None
    """When the first training began, on the monotonic clock."""

    def reconcile(self, space: SearchSpace) -> Outcome:
        """Train what is missing of `space`, as far as the budget goes."""
        plan = self.prepared or plan_launch(space, self.options, self.hardware)
        self.prepared = None
        outcome = self._train(plan)
        self.options = replace(self.options, retry_failed=False, signature=None)
        return outcome

    def _train(self, plan: Plan) -> Outcome:
        if not plan.packs:
            remember_space(self.options.ledger, plan.space)
            return Outcome(plan)
        if self.options.budget.exhausted:
            return Outcome(plan, self.options.budget.exhausted)
        if not self.checked:
            _check_data(plan.packs, self.options)
            self.checked = True
        if self.started is None:
            self.workers.enter_context(_workers_up(self.options, self.stops))
            self.started = time.monotonic()
        outcome = _run(plan, self.options, self.stops, self.hardware, self.overseen)
        trained = {run.run_id for pack in plan.packs for run in pack.runs}
        trained -= {run.run_id for pack in outcome.plan.packs for run in pack.runs}
        state = self.overseen.overseer.latest if self.overseen.overseer else None
        spent = self.options.budget.after(
            runs=len(trained),
            wall_seconds=time.monotonic() - self.started,
            gpu_seconds=state.gpu_seconds if state else 0.0,
        )
        self.options = replace(self.options, budget=spent)
        return outcome


@contextmanager
def _hardware_now(options: LaunchOptions, stops: Stops) -> Iterator[Hardware]:
    """What there is to run on; a cluster with an address is connected for as long as the block runs."""
    if options.address is None:
        yield local_hardware()
        return
    with cluster(options.address, stops.interrupt) as hardware:
        yield hardware


@contextmanager
def _workers_up(options: LaunchOptions, stops: Stops) -> Iterator[None]:
    """A Ray cluster: the connected one, or one here."""
    if options.address is not None:
        yield
        return
    with cluster(None, stops.interrupt):
        yield


def _plan_or_damage(space: SearchSpace, options: LaunchOptions, hardware: Hardware) -> Plan | None:
    """The plan, before anything is written; None where the ledger has to be repaired first."""
    try:
        return plan_launch(space, options, hardware)
    except (DamagedPartsError, DamagedManifestError):
        return None


@dataclass
class _Overseen:
    """Links the lease, which is taken before there are workers, to the overseer."""

    overseer: Overseer | None = None

    def progress(self) -> object:
        return self.overseer.as_progress() if self.overseer else {}

    def give_way(self) -> None:
        error = LeaseHeldError("another launch of this sweep has taken over; this one stops. Nothing is lost")
        if self.overseer:
            self.overseer.give_way(error)

    def raise_error(self) -> None:
        """Raise what ended the training, if anything did."""
        if self.overseer and self.overseer.error:
            raise self.overseer.error from None


@contextmanager
def _leased(options: LaunchOptions, stops: Stops) -> Iterator[_Overseen]:
    overseen = _Overseen()
    with Lease(options.ledger.storage, overseen.progress, overseen.give_way):  # type: ignore[arg-type]
        yield overseen


def _prepare(space: SearchSpace, options: LaunchOptions, hardware: Hardware, plan: Plan | None) -> Plan:
    """Repair the ledger, take over what other sweeps have, and plan again, now that nobody else writes."""
    ledger = options.ledger
    space = keep_cells(space, ledger)
    if plan is None:
        for damage in repair(ledger).moved:
            where = ledger.storage.location(damage.path)
            LOG.print(f"[bold]Damaged[/bold]: {where}: {damage.reason}. Moved to {paths.DAMAGED}/")
        record_launch(ledger, space, options.name)
    for name in options.reuse:
        source = open_ledger(options.storage, name)
        attempt = record_launch(ledger, space, options.name) * ATTEMPTS_PER_LAUNCH
        count = reuse_runs(ledger, source, expand(space), space.axis, attempt)
        LOG.print(f"{count} finished runs taken over from sweep {name}")
    plan = plan_launch(space, options, hardware)
    if plan.lost:
        LOG.print(f"{plan.lost} finished runs have lost rows and are trained again")
    return plan


def _run(plan: Plan, options: LaunchOptions, stops: Stops, hardware: Hardware, overseen: _Overseen) -> Outcome:
    """Record what is launched, then train it, with live progress on stderr."""
    ledger, space = options.ledger, plan.space
    packs = options.budget.admit(plan.packs)
    admitted = [run for pack in packs for run in pack.runs]
    missing = sum(len(pack.runs) for pack in plan.packs)
    number = record_launch(ledger, space, options.name)
    resumable = repair(ledger).resumable
    first_attempt = number * ATTEMPTS_PER_LAUNCH
    ledger.add_runs([run for pack in plan.packs for run in pack.runs], space.axis, first_attempt)
    LOG.print(
        f"{len(admitted)} of {len(plan.runs)} runs to train on {plan.lanes.most_slots} workers, "
        f"about {duration(plan.estimate.wall_seconds)} ({plan.estimate.basis})"
    )
    work = plan.lanes.seconds
    execution = Execution(
        packs,
        WorkerSettings(
            storage=ledger.storage,
            data_folder=options.data_folder.absolute(),
            launch=number,
            engine=space.resources.engine,
            usual_pack=max(len(pack.runs) for pack in group_packs(plan.runs, space.packing)),
            compile=space.resources.compile,
            cuda_graphs=space.resources.cuda_graphs,
            checkpoint_seconds=space.resources.checkpoint_seconds,
            trainer=options.trainer,
        ),
        lanes=plan.lanes,
        elastic=options.address is not None and options.workers is None,
        first_attempt=first_attempt,
        work=work,
        resumable=resumable,
    )
    progress = LiveProgress(len(admitted), sum(map(work, admitted)))
    overseer = Overseer(
        execution,
        ledger,
        number,
        options.budget,
        on_state=lambda state: progress.update(state.tally),
        interrupt=stops.interrupt,
    )
    overseen.overseer = overseer
    try:
        with progress.shown(), overseer, stops.gracefully(lambda: overseer.ask_to_stop("asked to")):
            execution.run_to_the_end()
    except BaseException:
        if overseer.error:
            raise overseer.error from None
        raise
    if overseer.error:
        raise overseer.error
    if is_due(ledger):
        compact(ledger)
    after = plan_launch(space, replace(options, retry_failed=False, signature=None), hardware)
    stopped_by = overseer.stopped_by
    if stopped_by is None and len(admitted) < missing and after.packs:
        stopped_by = options.budget.runs_text
    elif stopped_by is None and after.packs:
        stopped_by = f"{sum(len(pack.runs) for pack in after.packs)} runs lost rows while they were trained"
    return Outcome(after, stopped_by)


def _check_data(packs: list[Pack], options: LaunchOptions) -> None:
    """Check it where the workers are; in another process, as torch and FFCV would stay in this one's memory."""
    if options.address is not None:
        run_on_worker(check_data, packs, options.data_folder.absolute())
        return
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as child:
        child.submit(check_data, packs, options.data_folder).result()


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
            run.dataset.described,
            folder,
            seed=run.seed,
            samples=run.samples,
            dimension=run.parameters,
            signal=run.dataset.signal,
        )


def record_launch(ledger: Ledger, space: SearchSpace, name: str) -> int:
    """Write the manifest of one more launch; returns its number."""
    number = next_launch_number(ledger)
    try:
        created = ledger.manifest().created
    except LedgerError:
        created = datetime.now(UTC).isoformat(timespec="seconds")
    ledger.write_manifest(Manifest(name=name, space=space, launches=number, created=created))
    return number


def remember_space(ledger: Ledger, space: SearchSpace) -> None:
    """Write the manifest without a launch: nothing to train yet, but maybe other seeds, thresholds or cells."""
    before = ledger.manifest()
    if before.space != space:
        ledger.write_manifest(replace(before, space=space))
