"""Plans and diagrams as text for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from orchestrator.console import LOG, RESULTS, duration
from orchestrator.phase_diagram import Diagram
from orchestrator.plan import Plan
from search_spaces.memory import run_bytes
from search_spaces.packs import Pack
from search_spaces.runs import grid_points
from search_spaces.shapes import why_several

STATUSES = ("new", "done", "diverged", "failed")


def plan_document(plan: Plan) -> dict[str, Any]:
    """The plan as JSON: counts, cells, packs and the estimate."""
    return {
        "space": plan.space.name,
        "runs": {"total": len(plan.runs)} | {status: plan.count(status) for status in STATUSES},
        "to_train": sum(len(pack.runs) for pack in plan.packs),
        "packs": [_pack_document(plan, pack) for pack in plan.packs],
        "cells": plan.cells(),
        "shapes": [
            {"width": width, "samples": samples} | asdict(plan.lanes.lanes[number].shape)
            for (width, samples), number in plan.lanes.by_size.items()
        ],
        "estimate": {
            "slots": plan.lanes.most_slots,
            "slot_seconds": plan.estimate.slot_seconds,
            "wall_seconds": plan.estimate.wall_seconds,
            "gpu_hours": plan.estimate.gpu_hours,
            "basis": plan.estimate.basis,
        },
    }


def _pack_document(plan: Plan, pack: Pack) -> dict[str, Any]:
    """A pack as JSON; they come in the order of launch."""
    run = pack.runs[0]
    return {
        "pack_id": pack.pack_id,
        "run_ids": [run.run_id for run in pack.runs],
        "width": run.width,
        "parameters": run.parameters,
        "samples": run.samples,
        "ratio": run.ratio,
        "seeds": _seeds(pack),
        "noise_rates": _rates(pack),
        "seconds": plan.seconds(pack),
    }


def _seeds(pack: Pack) -> list[int]:
    return list(dict.fromkeys(run.seed for run in pack.runs))


def _rates(pack: Pack) -> list[float]:
    return list(dict.fromkeys(run.noise.rate for run in pack.runs))


def print_packs(plan: Plan) -> None:
    """The packs that are left to do, in the order of launch."""
    if not plan.packs:
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("pack", "runs", "width", "n", "p/n", "seeds", "noise", "time"):
        table.add_column(name, justify="left" if name in ("pack", "noise") else "right", no_wrap=True)
    for pack in plan.packs:
        run = pack.runs[0]
        table.add_row(
            pack.pack_id,
            f"{len(pack.runs)}",
            f"{run.width:,}",
            f"{run.samples:,}",
            f"{run.ratio:.4g}",
            " ".join(map(str, _seeds(pack))),
            " ".join(f"{rate:g}" for rate in _rates(pack)),
            duration(plan.seconds(pack)),
        )
    RESULTS.print()
    RESULTS.print(table)
    RESULTS.print("In the order of launch, time of one worker. The last ones are cut where workers would idle.")


def print_plan(plan: Plan) -> None:
    """The plan as a table: a row a ratio, with what each noise rate still needs."""
    space = plan.space
    counts = ", ".join(f"{plan.count(status)} {status}" for status in STATUSES if plan.count(status))
    RESULTS.print(f"[bold]{space.name}[/bold]: {len(plan.runs)} runs ({counts})")
    table = Table(box=None, header_style="bold", pad_edge=False)
    rates = [f"{rate:g}" for rate in space.noise.rates]
    rates[0] = f"noise {rates[0]}"
    on_gpus = _gpu_columns(plan)
    for name in ("width", "p", "n", "p/n", "target", *rates, *(("GPUs", "GB", "hours") if on_gpus else ())):
        table.add_column(name, justify="right", no_wrap=True)
    columns: dict[tuple[int, int], dict[float, dict[str, Any]]] = {}
    grid = grid_points(space)
    beside = []
    for cell in plan.cells():
        if (cell["noise_rate"], cell["width"], cell["samples"]) not in grid:
            beside.append(cell)
            continue
        columns.setdefault((cell["width"], cell["samples"]), {})[cell["noise_rate"]] = cell
    for size, by_rate in columns.items():
        any_cell = next(iter(by_rate.values()))
        target = f"{any_cell['target_ratio']:g}" if any_cell["target_ratio"] else ""
        numbers = [f"{any_cell[key]:,}" for key in ("width", "parameters", "samples")]
        done = [_cell_text(by_rate[rate]) for rate in space.noise.rates]
        table.add_row(*numbers, f"{any_cell['ratio']:.4g}", target, *done, *on_gpus.get(size, []))
    RESULTS.print(table)
    for cell in beside:
        place = f"noise {cell['noise_rate']:g}, width {cell['width']:,}, p/n {cell['ratio']:.4g}"
        RESULTS.print(f"beside the grid: {place}: {_cell_text(cell)}")
    to_train = sum(len(pack.runs) for pack in plan.packs)
    if not to_train:
        RESULTS.print("Nothing to train.")
        return
    hours = f", {plan.estimate.gpu_hours:,.1f} GPU-hours" if plan.estimate.gpu_hours else ""
    RESULTS.print(
        f"To train: {to_train} runs in {len(plan.packs)} packs, on {_workers_text(plan)}\n"
        f"Estimate: {duration(plan.estimate.wall_seconds)} wall time, "
        f"{duration(plan.estimate.slot_seconds)} of one worker{hours}. Basis: {plan.estimate.basis}"
    )


def _workers_text(plan: Plan) -> str:
    """How many workers of which shape there are, and why some runs get several GPUs."""
    counts = [f"{lane.slots} worker{'s' if lane.slots > 1 else ''} of {lane.shape}" for lane in plan.lanes.lanes]
    reasons = {}
    for run in plan.runs:
        reason = why_several(run, plan.lanes.lane(run).shape, plan.space.resources)
        if reason and (run.width, run.samples) not in reasons:
            reasons[run.width, run.samples] = f"  width {run.width}: {reason}"
    return "\n".join([" or ".join(counts), *reasons.values()])


def _gpu_columns(plan: Plan) -> dict[tuple[int, int], list[str]]:
    """GPUs of a run, gigabytes that it takes of each, and hours by arithmetic, by width and samples."""
    found = {}
    for run in plan.runs:
        shape = plan.lanes.lane(run).shape
        if shape.gpus and (run.width, run.samples) not in found:
            gigabytes, hours = run_bytes(run, shape.processes) / 1e9, plan.lanes.seconds(run) / 3600
            found[run.width, run.samples] = [f"{shape.total_gpus:g}", f"{gigabytes:.1f}", f"{hours:.1f}"]
    return found


def _cell_text(cell: dict[str, Any]) -> str:
    """Finished of planned seeds, for example "2/3", with what went wrong."""
    total = sum(cell[status] for status in STATUSES)
    trouble = "".join(f" {cell[status]} {status}" for status in ("failed", "diverged") if cell[status])
    return f"{cell['done'] + cell['diverged']}/{total}{trouble}"


def diagram_document(diagram: Diagram) -> dict[str, Any]:
    """Cells and files of an analysis as JSON."""
    return {
        "sweep": diagram.space.name,
        "cells": diagram.cells.to_dicts(),
        "files": [str(path) for path in diagram.files],
    }


def print_diagram(diagram: Diagram, metrics: Sequence[str] = ()) -> None:
    """The first metrics as tables on stdout, and where the figures are."""
    from orchestrator.analysis.tables import cell_lines

    for metric in metrics or ("err_last", "noise_cost"):
        RESULTS.print(cell_lines(diagram.cells, metric, width=RESULTS.width))
        RESULTS.print()
    for path in diagram.files:
        RESULTS.print(str(path), markup=False)
    beside = diagram.cells.filter(~diagram.cells["in_grid"]).height
    if beside:
        LOG.print(f"Cells beside the grid: {beside}. They are in the boundary figures and in cells.csv.")
    missing = diagram.cells.filter(diagram.cells["n"] == 0).height
    if missing:
        LOG.print(f"{missing} of {diagram.cells.height} cells have no finished run yet; no figure gives them a colour.")
