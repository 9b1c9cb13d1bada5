"""The report of a ledger as one file: read, analyse, put together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from orchestrator import paths
from orchestrator.ledger import Ledger
from orchestrator.parts import consistently
from orchestrator.report.assembly import assemble
from orchestrator.report.contents import Commands, Contents, read_contents
from orchestrator.report.curves import curve_rows, packed_cells, thinned, thinning
from orchestrator.report.document import report_document
from orchestrator.report.downloads import all_tables, manifest_file
from orchestrator.report.sections import sections
from orchestrator.storage import open_storage

REPORT = f"{paths.PHASE}/report.html"


@dataclass(frozen=True)
class Report:
    """A report that was written: where, its size in bytes, and what it shows."""

    location: str
    size: int
    contents: Contents


def write_report(ledger: Ledger, commands: Commands, to: Path | None = None) -> Report:
    """Write the report of a sweep to `to`, or into its phase folder. The same ledger gives the same bytes.

    commands: the commands that the page names.

    Raises:
        LedgerError: no such sweep, or no finished run yet.
        ValueError: runs that must not be pooled, or a folder that does not exist.
        StorageError: a damaged file, or a folder that cannot be written.
    """
    if to is not None and not to.absolute().parent.is_dir():
        raise ValueError(f"--to {to}: its folder does not exist; make it, or choose another")
    contents, page = consistently(lambda: _page(ledger, commands))
    if to is None:
        ledger.storage.write(REPORT, page)
        return Report(ledger.storage.location(REPORT), len(page), contents)
    open_storage(to.absolute().parent).write(to.name, page)
    return Report(str(to), len(page), contents)


def _page(ledger: Ledger, commands: Commands) -> tuple[Contents, bytes]:
    contents = read_contents(ledger)
    tables = all_tables(contents)
    files = [*tables, manifest_file(contents, tables)]
    every = thinning(contents.snapshot)
    run_ids = contents.plan["run_id"].to_list()
    curves = packed_cells(thinned(curve_rows(contents.snapshot, run_ids), every), contents.plan)
    document: dict[str, Any] = report_document(contents, commands) | {"thinned": every}
    texts = sections(contents, commands, tables)
    return contents, assemble(contents.manifest.name, document, texts, files=files, curves=curves)


def empty_cells(contents: Contents) -> int:
    """Cells without a finished run."""
    return contents.cells.filter(pl.col("n") == 0).height
