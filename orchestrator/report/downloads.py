"""The tables that a report carries along, as files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.analysis.manifest import analysis_manifest
from orchestrator.phase_diagram import MANIFEST
from orchestrator.report.contents import Contents
from orchestrator.report.curves import CURVE_COLUMNS, MOST_ROWS, curve_rows
from workers.schema import ROWS


@dataclass(frozen=True)
class Download:
    """One file: its name, what it holds, and its content."""

    name: str
    holds: str
    content: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


HOLDS = {
    "cells.csv": "a row a cell",
    "cells.parquet": "a row a cell",
    "runs.csv": "a row a run",
    "runs.parquet": "a row a run",
    "curves.parquet": "a row an evaluation",
    MANIFEST: "runs, definitions, versions, digests",
}
"""Names of all files, and what they hold."""


def curves_fit(contents: Contents) -> bool:
    """Whether the ledger is small enough for a page to carry its curves as a table."""
    return int(contents.snapshot.counts["held"].sum()) <= MOST_ROWS


def all_tables(contents: Contents) -> list[Download]:
    """The tables that a page carries: all, but for curves that are too many."""
    names = [name for name in HOLDS if name != MANIFEST and (name != "curves.parquet" or curves_fit(contents))]
    return [make(contents, name) for name in names]


def make(contents: Contents, name: str) -> Download:
    """One of the files of HOLDS. Raises ValueError on another name."""
    makers: Mapping[str, Callable[[], bytes]] = {
        "cells.csv": lambda: contents.cells.write_csv().encode(),
        "cells.parquet": lambda: _parquet(contents.cells.to_arrow()),
        "runs.csv": lambda: contents.runs.write_csv().encode(),
        "runs.parquet": lambda: _parquet(contents.runs.to_arrow()),
        "curves.parquet": lambda: _parquet(curve_table(contents)),
    }
    if name == MANIFEST:
        return manifest_file(contents, all_tables(contents))
    if name not in makers:
        raise ValueError(f"unknown file {name!r}; choose from {', '.join(makers)}")
    return Download(name, HOLDS[name], makers[name]())


def manifest_file(contents: Contents, files: Sequence[Download]) -> Download:
    """By which runs, definitions and code the tables were made, and their digests; the same ledger gives the same."""
    name, space, planned = contents.manifest.name, contents.space, contents.planned
    about = analysis_manifest(name, space, planned, contents.runs, contents.ends, contents.cells, ())
    about["files"] = {file.name: file.sha256 for file in files}
    return Download(MANIFEST, HOLDS[MANIFEST], json.dumps(about, indent=1).encode())


def curve_table(contents: Contents) -> pa.Table:
    """run_id and CURVE_COLUMNS of every run of the diagram, with the ledger's types, units and full precision."""
    rows = curve_rows(contents.snapshot, contents.plan["run_id"].to_list())
    schema = pa.schema([ROWS.field(name) for name in ("run_id", *CURVE_COLUMNS)])
    return rows.to_arrow().cast(schema)


def read_parquet(content: bytes) -> pl.DataFrame:
    """A Parquet file of `make`, as a frame."""
    return pl.DataFrame(pq.read_table(pa.BufferReader(content)))


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", compression_level=9)
    return bytes(sink.getvalue())
