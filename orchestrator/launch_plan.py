"""What a launch is asked to do, and the plan that it would carry out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.budget import Budget
from orchestrator.calibration import calibration_for
from orchestrator.ledger import Ledger, open_ledger
from orchestrator.plan import Plan, keep_cells, make_plan
from orchestrator.slots import Hardware, local_hardware
from orchestrator.storage import Storage
from orchestrator.worker import WorkerSettings
from search_spaces.order import order_packs
from search_spaces.runs import count_beside
from search_spaces.selectors import Selector, check_selectors
from search_spaces.spec import SearchSpace


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
        patient: wait until it is known whether another launch of the sweep, which may have died, still lives.
        on_recorded: called when the ledger knows of the launch, before it trains; for what goes beside it.
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
    patient: bool = False
    on_recorded: Callable[[], None] | None = None

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.storage.child(self.name))


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
