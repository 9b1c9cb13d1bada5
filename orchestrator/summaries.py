"""Plans and diagrams as text for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from orchestrator.analysis import Diagram
from orchestrator.console import LOG, RESULTS, duration
from orchestrator.plan import Plan

STATUSES = ("new", "done", "diverged", "failed")


def plan_document(plan: Plan) -> dict[str, Any]:
    """The plan as JSON: counts, cells, packs and the estimate."""
    return {
        "space": plan.space.name,
        "runs": {"total": len(plan.runs)} | {status: plan.count(status) for status in STATUSES},
        "to_train": sum(len(pack.runs) for pack in plan.packs),
        "packs": [{"pack_id": pack.pack_id, "run_ids": [run.run_id for run in pack.runs]} for pack in plan.packs],
        "cells": plan.cells(),
        "estimate": {
            "slots": plan.slots,
            "slot_seconds": plan.estimate.slot_seconds,
            "wall_seconds": plan.estimate.wall_seconds,
            "basis": plan.estimate.basis,
        },
    }


def print_plan(plan: Plan) -> None:
    """The plan as a table: a row a ratio, with what each noise rate still needs."""
    space = plan.space
    counts = ", ".join(f"{plan.count(status)} {status}" for status in STATUSES if plan.count(status))
    RESULTS.print(f"[bold]{space.name}[/bold]: {len(plan.runs)} runs ({counts})")
    table = Table(box=None, header_style="bold", pad_edge=False)
    rates = [f"{rate:g}" for rate in space.noise.rates]
    rates[0] = f"noise {rates[0]}"
    for name in ("width", "p", "n", "p/n", "target", *rates):
        table.add_column(name, justify="right", no_wrap=True)
    columns: dict[tuple[int, int], dict[float, dict[str, Any]]] = {}
    for cell in plan.cells():
        columns.setdefault((cell["width"], cell["samples"]), {})[cell["noise_rate"]] = cell
    for by_rate in columns.values():
        any_cell = next(iter(by_rate.values()))
        target = f"{any_cell['target_ratio']:g}" if any_cell["target_ratio"] else ""
        size = (f"{any_cell[key]:,}" for key in ("width", "parameters", "samples"))
        table.add_row(*size, f"{any_cell['ratio']:.4g}", target, *(_cell_text(by_rate[r]) for r in space.noise.rates))
    RESULTS.print(table)
    to_train = sum(len(pack.runs) for pack in plan.packs)
    if not to_train:
        RESULTS.print("Nothing to train.")
        return
    per_worker = f"{space.resources.cpus_per_worker:g} CPUs, {space.resources.gpus_per_worker:g} GPUs"
    RESULTS.print(
        f"To train: {to_train} runs in {len(plan.packs)} packs, on {plan.slots} workers ({per_worker} each)\n"
        f"Estimate: {duration(plan.estimate.wall_seconds)} wall time, "
        f"{duration(plan.estimate.slot_seconds)} of one worker. Basis: {plan.estimate.basis}"
    )


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
    from orchestrator.tables import cell_lines

    for metric in metrics or ("err_last", "noise_cost"):
        RESULTS.print(cell_lines(diagram.cells, metric, width=RESULTS.width))
        RESULTS.print()
    for path in diagram.files:
        RESULTS.print(str(path), markup=False)
    missing = diagram.cells.filter(diagram.cells["n"] == 0).height
    if missing:
        LOG.print(f"{missing} of {diagram.cells.height} cells have no finished run yet; they are hatched.")
