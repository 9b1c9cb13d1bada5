"""Launch means reconcile: run what the ledger lacks, then draw what it holds. It can be killed at any instant."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from orchestrator import paths
from orchestrator.compaction import compact, is_due
from orchestrator.console import LOG, LiveProgress, duration
from orchestrator.data_check import check_where_trained
from orchestrator.executor import Execution, cluster
from orchestrator.launch_plan import LaunchOptions, plan_launch
from orchestrator.lease import Lease, LeaseHeldError
from orchestrator.ledger import ATTEMPTS_PER_LAUNCH, DamagedManifestError, Ledger, LedgerError, Manifest, open_ledger
from orchestrator.overseer import Overseer
from orchestrator.parts import DamagedPartsError
from orchestrator.plan import Plan, keep_cells
from orchestrator.repair import next_launch_number, repair
from orchestrator.reuse import reuse_runs
from orchestrator.slots import Hardware, local_hardware
from orchestrator.stops import Stops
from orchestrator.worker import WorkerSettings
from search_spaces.packs import group_packs
from search_spaces.runs import expand
from search_spaces.spec import SearchSpace


@dataclass(frozen=True)
class Outcome:
    """The plan as it stands after a launch, and why it stopped before the end, if it did: by its budget or else."""

    plan: Plan
    stopped_by: str | None = None
    budget_spent: bool = False


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
            _check_data(plan, options)
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
            return Outcome(plan, self.options.budget.exhausted, budget_spent=True)
        if not self.checked:
            _check_data(plan, self.options)
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
    with Lease(
        options.ledger.storage,
        overseen.progress,  # type: ignore[arg-type]
        overseen.give_way,
        patient=options.patient,
    ):
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
    if options.on_recorded:
        options.on_recorded()
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
    stopped_by, budget_spent = overseer.stopped_by, overseer.budget_spent
    if stopped_by is None and len(admitted) < missing and after.packs:
        stopped_by, budget_spent = options.budget.runs_text, True
    elif stopped_by is None and after.packs:
        stopped_by = f"{sum(len(pack.runs) for pack in after.packs)} runs lost rows while they were trained"
    return Outcome(after, stopped_by, budget_spent)


def _check_data(plan: Plan, options: LaunchOptions) -> None:
    check_where_trained(plan.packs, options.data_folder, elsewhere=options.address is not None)


def record_launch(ledger: Ledger, space: SearchSpace, name: str) -> int:
    """Write the manifest of one more launch; returns its number."""
    number = next_launch_number(ledger)
    try:
        created = ledger.manifest().created
    except LedgerError:
        created = datetime.now(UTC).isoformat(timespec="microseconds")  # also tells sweeps of one name apart
    ledger.write_manifest(Manifest(name=name, space=space, launches=number, created=created))
    return number


def remember_space(ledger: Ledger, space: SearchSpace) -> None:
    """Write the manifest without a launch: nothing to train yet, but maybe other seeds, thresholds or cells."""
    before = ledger.manifest()
    if before.space != space:
        ledger.write_manifest(replace(before, space=space))
