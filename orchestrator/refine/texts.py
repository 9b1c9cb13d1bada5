"""What a refinement found, in words and as JSON."""

from __future__ import annotations

import math
from typing import Any

from orchestrator.refine.proposer import Proposal, side
from orchestrator.refine.target import Target

CROSSINGS = {"enter": "rises above it", "exit": "falls below it"}


def band_text(proposal: Proposal) -> str:
    """How well the boundary is known."""
    if proposal.half_width is None:
        return "no boundary inside the measured ratios yet"
    return f"band ±{proposal.half_width:.3f} in log p/n where widest"


def verdict_text(target: Target, proposal: Proposal, beside: int) -> str:
    """How a refinement ended, with `beside` runs beside the grid; in a sentence."""
    band, used = band_text(proposal), f"{beside} runs beside the grid"
    asked = f"asked: {target.precision:g}"
    if proposal.state == "found":
        return f"Found: {target} with {used}; {band} ({asked})."
    if proposal.state == "outside":
        sides = {side(row) for row in proposal.rows}
        where = f"{sides.pop()} the level everywhere"
        if sides:
            where = "on one side of the level at each noise rate"
        return (
            f"No boundary: within the measured ratios {target.metric} is {where}, so {target} is not crossed there. "
            "Widen the grid, or choose another level."
        )
    if proposal.state == "spent":
        return f"Within budget: {used} of {target.budget}, none is left; {band} ({asked})."
    return f"Nothing left to place near {target}: {used}; {band} ({asked})."


def boundary_texts(proposal: Proposal) -> list[str]:
    """A line a noise rate: where the boundary is, with its 90 % band, or on which side of it all ratios are."""
    lines = []
    for row in proposal.rows:
        edges = []
        for name, edge in row.inside.items():
            low, middle, high = (math.exp(edge.log_ratio + sign * edge.half_width) for sign in (-1, 0, 1))
            edges.append(f"{CROSSINGS[name]} at p/n {middle:.3g} ({low:.3g} to {high:.3g})")
        lines.append(f"  noise {row.noise_rate:g}: {', '.join(edges) if edges else side(row)}")
    return lines


def preview_lines(target: Target, proposal: Proposal | None) -> list[str]:
    """What a refinement would do next, for --dry-run."""
    if proposal is None:
        return [f"Cells near {target} are placed once these runs have ended."]
    if not proposal.cells:
        return [verdict_text(target, proposal, target.budget - proposal.runs_left), *boundary_texts(proposal)]
    runs = sum(len(cell.seeds) for cell in proposal.cells)
    lines = [f"Next near {target}: {runs} of {proposal.runs_left} runs that the budget has left; {band_text(proposal)}"]
    for cell in proposal.cells:
        seeds = " ".join(map(str, cell.seeds))
        lines.append(f"  noise {cell.noise_rate:g}, width {cell.width}, n = {cell.samples:,}: seeds {seeds}")
    return lines


def proposal_document(target: Target, proposal: Proposal) -> dict[str, Any]:
    """A proposal as JSON, under "refine"; widths of bands are of log p/n."""
    return {
        "refine": {
            "metric": target.metric,
            "level": target.level,
            "precision": target.precision,
            "budget": target.budget,
            "runs_left": proposal.runs_left,
            "state": proposal.state,
            "half_width": proposal.half_width,
            "rows": [row.document() for row in proposal.rows],
            "next_cells": [cell.model_dump(mode="json") for cell in proposal.cells],
        }
    }
