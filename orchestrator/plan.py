"""The plan: what a launch would do, computed without doing it. Pure apart from reading the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator import paths
from orchestrator.calibration import Calibration
from orchestrator.estimate import Estimate, estimate
from orchestrator.lanes import Lane, Lanes, lanes_for
from orchestrator.ledger import DamagedManifestError, Ledger
from orchestrator.measured import speeds_for
from orchestrator.slots import Hardware
from orchestrator.storage import MissingFileError
from search_spaces.catalog import validate_space
from search_spaces.cells import Cell
from search_spaces.memory import run_bytes
from search_spaces.packs import Pack, group_packs
from search_spaces.runs import Run, expand, with_cells
from search_spaces.spec import SearchSpace

COMPARED_FREELY = {
    *("widths", "samples", "ratios", "seeds", "cells", "description", "packing", "resources", "analysis", "priorities")
}
"""Parts of a space that may change from launch to launch of one sweep: its grid, and how it is run and read."""


class PlanError(ValueError):
    """A space that cannot be run here or in this sweep; the message lists every problem."""


@dataclass(frozen=True)
class Plan:
    """All runs of a space, what the ledger says of them, and the packs that are left to do."""

    space: SearchSpace
    runs: list[Run]
    statuses: dict[str, str]
    """Status of the runs that ended: done, diverged or failed."""
    packs: list[Pack]
    """What a launch would train, in order."""
    estimate: Estimate
    lanes: Lanes
    """What the runs are trained on."""
    lost: int = 0
    """Runs that had ended and whose rows are not all there any more; they are new again."""

    def count(self, *statuses: str) -> int:
        """Runs of this space with one of `statuses`; "new" are those that have not ended."""
        return sum(self.statuses.get(run.run_id, "new") in statuses for run in self.runs)

    def seconds(self, pack: Pack) -> float:
        """Estimated seconds of one of `packs`, of one worker."""
        return sum(map(self.estimate.of_run, pack.runs))

    @property
    def is_complete(self) -> bool:
        return self.count("done", "diverged") == len(self.runs)

    def cells(self) -> list[dict[str, Any]]:
        """A row a cell: noise rate, width, realised p, n, p/n, and its runs by status."""
        rows: dict[tuple[float, int, int], dict[str, Any]] = {}
        for run in self.runs:
            row = rows.setdefault(
                run.cell,
                {
                    "noise_rate": run.noise.rate,
                    "target_ratio": run.target_ratio,
                    "ratio": run.ratio,
                    "width": run.width,
                    "parameters": run.parameters,
                    "samples": run.samples,
                    "new": 0,
                    "done": 0,
                    "diverged": 0,
                    "failed": 0,
                },
            )
            row[self.statuses.get(run.run_id, "new")] += 1
        return list(rows.values())


def make_plan(
    space: SearchSpace,
    ledger: Ledger,
    *,
    hardware: Hardware,
    workers: int | None = None,
    anywhere: bool = False,
    retry_failed: bool = False,
    signature: str | None = None,
    calibration: Calibration | None = None,
    elsewhere: bool = False,
) -> Plan:
    """Plan a launch of `space` into `ledger` on the hardware, with at most `workers` workers (see `lanes_for`).

    Measured speeds in `calibration` make a better estimate; `elsewhere` says that the workers are not on this machine.

    Raises:
        ResourceError: the hardware does not hold one worker.
        PlanError: runs that do not fit into memory, a sweep that holds another kind of runs, or a signature that no
            failed run has.
        RatioError: a ratio that cannot be realised.
    """
    problems = _conflicts(space, ledger)
    runs = expand(space)
    lanes = lanes_for(runs, space.resources, hardware, workers=workers, anywhere=anywhere)
    problems += _memory_problems(runs, lanes)
    if problems:
        raise PlanError("\n".join(problems))
    ended = ledger.ends() if ledger.exists() else None
    statuses: dict[str, str] = {}
    seconds: dict[str, float] = {}
    again: set[str] = set()
    lost: set[str] = set()
    if ended is not None:
        columns = (ended[name].to_list() for name in ("run_id", "status", "seconds", "signature"))
        for run_id, status, taken, cause in zip(*columns, strict=True):
            if status == "lost":
                lost.add(run_id)
                continue
            statuses[run_id] = status
            if status == "done":
                seconds[run_id] = taken
            elif status == "failed" and retry_failed and signature in (None, cause):
                again.add(run_id)
    if signature is not None and not again:
        raise PlanError(f"no failed run has the signature {signature!r}. bo-sweep status {ledger.name} --failures")
    missing = [run for run in runs if run.run_id not in statuses or run.run_id in again]
    finished = [(run, seconds[run.run_id]) for run in runs if run.run_id in seconds]
    packs = group_packs(missing, space.packing, lambda run: _room(run, lanes.lane(run)))
    return Plan(
        space=space,
        runs=runs,
        statuses=statuses,
        packs=packs,
        estimate=estimate(
            missing,
            finished,
            slots=lanes.average_slots(missing, lanes.seconds),
            resources=space.resources,
            speeds=speeds_for(calibration or Calibration(), runs, space.resources, elsewhere=elsewhere),
            pack_sizes={run.run_id: len(pack.runs) for pack in packs for run in pack.runs},
        ),
        lanes=lanes,
        lost=sum(run.run_id in lost for run in runs),
    )


def keep_cells(space: SearchSpace, ledger: Ledger) -> SearchSpace:
    """`space` with the cells beside the grid that the sweep has already: they are part of it until it is deleted.

    Those of a damaged manifest stand in `space.yaml`, which is written before it.
    """
    if not ledger.exists():
        return with_cells(space, ())
    try:
        cells = ledger.manifest().space.cells
    except DamagedManifestError:
        cells = _cells_in_yaml(ledger)
    return with_cells(space, cells)


def _cells_in_yaml(ledger: Ledger) -> tuple[Cell, ...]:
    import yaml

    try:
        where = ledger.storage.location(paths.SPACE)
        return validate_space(yaml.safe_load(ledger.storage.read(paths.SPACE)), where).cells
    except (MissingFileError, yaml.YAMLError, ValueError, AttributeError):
        return ()


def _room(run: Run, lane: Lane) -> float:
    """Runs like this one that a worker of the lane holds at once."""
    return lane.process_bytes / run_bytes(run, lane.shape.processes)


def _memory_problems(runs: Sequence[Run], lanes: Lanes) -> list[str]:
    problems = []
    for run in {(run.width, run.samples): run for run in runs}.values():
        lane = lanes.lane(run)
        if _room(run, lane) < 1:
            problems.append(
                f"width {run.width} with n = {run.samples:,} needs about "
                f"{run_bytes(run, lane.shape.processes) / 1e9:,.1f} GB; one of {lane.slots} workers has "
                f"{max(0.0, lane.process_bytes) / 1e9:,.1f} GB. Lower widths or recipe.micro_batch, use fewer workers "
                "(--workers), or give each more (--gpus-per-run, resources)"
            )
    return problems


def _conflicts(space: SearchSpace, ledger: Ledger) -> list[str]:
    """Ways in which `space` is another experiment than the one that the ledger already holds."""
    if not ledger.exists():
        return []
    before, now = (
        each.model_dump(mode="json", exclude=COMPARED_FREELY | {"name"}) for each in (ledger.manifest().space, space)
    )
    for each in (before, now):
        each["noise"].pop("rates")
        each["noise"].pop("file")  # file_sha256 says which it is; where it lies differs from machine to machine
    changed = [f"{key}: {old!r} -> {new!r}" for key in now for old, new in _differences(key, before[key], now[key])]
    if not changed:
        return []
    return [
        f"sweep {ledger.name!r} holds runs of another experiment ({'; '.join(changed)}). "
        "Only its rates, widths, samples, ratios and seeds can grow: choose a new sweep with --name"
    ]


def _differences(key: str, old: Any, new: Any) -> list[tuple[Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        inner = {name: value for name, value in new.items() if old.get(name) != value}
        return [({name: old.get(name) for name in inner}, inner)] if inner else []
    return [(old, new)] if old != new else []
