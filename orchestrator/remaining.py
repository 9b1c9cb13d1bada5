"""What is left of a launch that is carried out elsewhere, by its ledger alone."""

from __future__ import annotations

from orchestrator.entry_point import LaunchRequest
from orchestrator.ledger import DamagedManifestError, Ledger
from orchestrator.parts import DamagedPartsError
from orchestrator.plan import Plan, keep_cells, make_plan
from orchestrator.slots import Hardware
from orchestrator.storage import Storage


def plan_in(request: LaunchRequest, storage: Storage) -> Plan | None:
    """What the ledger in `storage` says of the runs of a launch, whatever the hardware; cells beside the grid included.

    None where there is no such sweep yet, or where its files are damaged, which a launch puts right.

    Raises:
        ValueError: (PlanError) the sweep holds another kind of runs.
        StorageError: storage cannot be read.
    """
    ledger = Ledger(storage.child(request.sweep))
    if not ledger.exists():
        return None
    boundless = Hardware(cpus=1e6, gpus=1e6, memory_bytes_per_cpu=1e12)  # whether it fits is not the question here
    try:
        return make_plan(keep_cells(request.space, ledger), ledger, hardware=boundless, anywhere=True)
    except (DamagedPartsError, DamagedManifestError):
        return None


def ledger_complete(request: LaunchRequest, storage: Storage) -> bool:
    """Whether all runs of a launch are done (or have diverged) in `storage`, so that there is nothing to submit.

    Failed runs are not done, and a refinement may place further cells.

    Raises: as `plan_in`.
    """
    plan = plan_in(request, storage) if request.refine is None else None
    return plan is not None and plan.is_complete
