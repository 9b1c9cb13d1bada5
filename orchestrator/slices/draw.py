"""From a ledger to slices of its sweep: which ones it can show, and their figures and tables in the phase folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import polars as pl

from orchestrator.ledger import Ledger
from orchestrator.phase_folder import write_into_phase
from orchestrator.slices.kinds import KINDS, Slice
from orchestrator.storage import open_storage
from orchestrator.sweep_tables import SweepTables, read_sweep
from search_spaces.spec import SearchSpace


@dataclass(frozen=True)
class Slices:
    """What was drawn of a sweep: tables and files by kind, and of the kinds that it cannot show, why."""

    space: SearchSpace
    tables: dict[str, dict[str, pl.DataFrame]]
    files: dict[str, list[str]]
    impossible: dict[str, str]


def draw_slices(ledger: Ledger, kinds: Sequence[str] = (), *, formats: Sequence[str] = ("png", "svg")) -> Slices:
    """Draw slices of a sweep into its phase folder, each with its tables as CSV: those named, or all that it can show.

    Raises:
        LedgerError: no finished run yet.
        ValueError: an unknown kind or format, or a kind that this sweep cannot show, with the reason.
        StorageError: a damaged file, or a folder that cannot be written.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ValueError(f"unknown kind {', '.join(unknown)}; choose from {', '.join(KINDS)}")
    allowed = ("png", "svg", "pdf")
    strange = [name for name in formats if name not in allowed]
    if strange:
        raise ValueError(f"unknown format {', '.join(strange)}; choose from {', '.join(allowed)}")
    sweep = read_sweep(ledger).along_lines()
    reasons = {kind: why for kind in KINDS if (why := why_not(kind, sweep))}
    refused = [f"{kind}: {reasons[kind]}" for kind in kinds if kind in reasons]
    if refused:
        can = [kind for kind in KINDS if kind not in reasons]
        raise ValueError(f"sweep {ledger.name!r} cannot show {'; '.join(refused)}. It can show {', '.join(can)}")
    wanted = [kind for kind in KINDS if (kind in kinds if kinds else kind not in reasons)]
    measured = tuple(dict.fromkeys(name for kind in wanted for name in KINDS[kind].measured))
    sweep = replace(sweep, measured=measured)

    tables, files = {}, {}
    for kind in wanted:
        made = KINDS[kind].make(sweep)
        tables[kind] = made.tables
        files[kind] = write_into_phase(ledger, partial(_write, kind=kind, made=made, formats=formats))
    return Slices(sweep.space, tables, files, reasons)


def why_not(kind: str, sweep: SweepTables) -> str:
    """Why a sweep cannot show a kind, and what to ask for; empty where it can."""
    axis, sizes = sweep.axis, sweep.sizes
    other = {"model": "sample", "sample": "model"}
    wanted = {"model": "width", "width-epoch": "width", "sample": "samples"}.get(kind)
    if wanted is not None and axis != wanted:
        hint = f": ask for {other[kind]}" if kind in other else ""
        return f"it needs a sweep whose axis is {wanted}, and this one's is {axis}{hint}"
    if kind in ("model", "sample", "width-epoch", "emc") and len(sizes) < 2:
        name = "width" if axis == "width" else "number of samples"
        return f"it needs at least two values along the axis, and this sweep has one {name}, {sizes[0]:,}"
    if kind == "contrast" and sweep.cells["noise_rate"].n_unique() < 2:
        return f"it needs at least two noise rates, and this sweep has {sweep.cells['noise_rate'][0]:g} alone"
    return ""


def _write(folder: Path, *, kind: str, made: Slice, formats: Sequence[str]) -> list[Path]:
    from matplotlib import rc_context

    from orchestrator.figures.page import STYLE, write_figure

    storage, paths = open_storage(folder), []
    for suffix, table in made.tables.items():
        name = f"slice-{kind}{'-' if suffix else ''}{suffix}.csv"
        storage.write(name, table.write_csv().encode())
        paths.append(folder / name)
    with rc_context(STYLE):
        return paths + write_figure(made.figure, folder / f"slice-{kind}", formats)
