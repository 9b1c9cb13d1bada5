"""Compaction: many small parts become few large ones, while others write and read.

New parts are durable before those whose rows they hold are deleted. A compaction that dies in between leaves rows
twice, which the reader's rule (snapshot.py) does not mind; two at once do no harm either, as each deletes only what its
own new parts hold. Rows are dropped only where no future end could claim them:

- of a run that ended in attempt a: the latest row of attempts up to a stays, and so do all of later attempts;
- of a run without an end, every row stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from orchestrator import paths
from orchestrator.ledger import Ledger
from orchestrator.ledger_schema import ENDS, LOGS, RUNS
from orchestrator.parquet_options import write_compacted
from orchestrator.parts import (
    DamagedPartsError,
    consistently,
    digest,
    list_parts,
    read_all,
    write_part,
    write_small,
)
from orchestrator.snapshot import CLAIMING, KEYS, is_settled, latest_ends
from orchestrator.storage import MissingFileError, StoredFile
from workers.schema import ROWS

DUE_PARTS = 64
"""Parts of rows outside of settled ones that make a compaction worth its while."""
BATCH_BYTES = 256 * 2**20
"""Compressed size of what is compacted in one go: bounds the memory that it takes."""
LARGE_BYTES = 128 * 2**20
"""Settled parts from this size on are left alone."""
FEW_SETTLED = 8
"""Smaller settled parts are put together when there are more of them."""


@dataclass(frozen=True)
class Compacted:
    """Parts before and after, over all tables."""

    before: int
    after: int


def is_due(ledger: Ledger) -> bool:
    """Whether enough small parts have come together."""
    files = ledger.storage.list(paths.ROWS)
    return sum(not is_settled(file.path) for file in files) >= DUE_PARTS


def compact(ledger: Ledger) -> Compacted:
    """Put small parts together; see the module's text.

    Raises:
        DamagedPartsError: naming every damaged file; nothing of what holds it is touched.
        StorageError: storage cannot be read or written; nothing is lost.
    """
    before = _count(ledger)
    ends = _compact_table(ledger, paths.ENDS, ENDS, latest_ends)
    _compact_table(ledger, paths.RUNS, RUNS, lambda runs: runs.unique("run_id", keep="last", maintain_order=True))
    _compact_table(ledger, paths.LOGS, LOGS, lambda logs: logs.unique(maintain_order=True).sort("time"))
    for batch in _batches(ledger):
        with suppress(MissingFileError):  # another compaction was quicker
            _compact_rows(ledger, batch, ends)
    return Compacted(before, _count(ledger))


def _count(ledger: Ledger) -> int:
    return sum(len(ledger.storage.list(folder)) for folder in (paths.RUNS, paths.ROWS, paths.ENDS, paths.LOGS))


def _compact_table(
    ledger: Ledger, folder: str, schema: pa.Schema, reduce: Callable[[pl.DataFrame], pl.DataFrame]
) -> pl.DataFrame:
    """Put all parts of one small table together; returns it."""

    def read() -> tuple[list[StoredFile], pl.DataFrame]:
        files = list_parts(ledger.storage, folder)
        table, damages = read_all(ledger.storage, files, schema)
        if damages:
            raise DamagedPartsError(ledger.storage, damages)
        return files, reduce(pl.DataFrame(table))

    files, frame = consistently(read)
    if len(files) > 1:
        written = write_part(ledger.storage, folder, _stem(paths.MERGED, files), frame.to_arrow().cast(schema))
        _delete(ledger, files, keep={written})
    return frame


def _batches(ledger: Ledger) -> list[list[StoredFile]]:
    """Parts of rows to put together, as far as they fit into one go; the small settled ones only where there are many.

    In the order of their names, so that a run's parts, which one worker wrote one after the other, meet.
    """
    files = list_parts(ledger.storage, paths.ROWS)
    chosen = [file for file in files if not is_settled(file.path)]
    small = [file for file in files if is_settled(file.path) and file.size < LARGE_BYTES]
    if len(small) > FEW_SETTLED:
        chosen += small
    batches: list[list[StoredFile]] = [[]]
    for file in chosen:
        if batches[-1] and sum(each.size for each in batches[-1]) + file.size > BATCH_BYTES:
            batches.append([])
        batches[-1].append(file)
    return [batch for batch in batches if len(batch) > 1 or any(not is_settled(file.path) for file in batch)]


def _compact_rows(ledger: Ledger, batch: Sequence[StoredFile], ends: pl.DataFrame) -> None:
    table, damages = read_all(ledger.storage, batch, ROWS)
    if damages:
        raise DamagedPartsError(ledger.storage, damages)
    settled, others = split(pl.DataFrame(table), ends)
    if len(batch) == 1 and settled.is_empty():
        return  # the same rows in another file would be no gain
    written = set()
    for word, rows, write in ((paths.SETTLED, settled, write_compacted), (paths.MERGED, others, write_small)):
        if not rows.is_empty():
            content = rows.to_arrow().cast(ROWS)
            written.add(write_part(ledger.storage, paths.ROWS, _stem(word, batch), content, write))
    _delete(ledger, batch, keep=written)


def split(rows: pl.DataFrame, ends: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of runs that are complete as claimed, sorted by run and evaluation; and all else that must stay.

    Rows that no end can claim any more are in neither.
    """
    claims = ends.select("run_id", "status", end_attempt="attempt", claimed="evaluations")
    joined = rows.unique(["run_id", "evaluation", "attempt"], keep="last").join(claims, on="run_id", how="left")
    in_time = (pl.col("attempt") <= pl.col("end_attempt")).fill_null(False)
    standing = (
        joined.filter(in_time)
        .sort("run_id", "evaluation", "attempt")
        .unique(["run_id", "evaluation"], keep="last", maintain_order=True)
    )
    claimed = pl.col("status").is_in(CLAIMING) & (pl.col("evaluation") < pl.col("claimed")).fill_null(False)
    complete = (
        standing.filter(claimed)
        .group_by("run_id")
        .agg(whole=pl.len() == pl.col("claimed").first())
        .filter("whole")
        .select("run_id")
    )
    settled = standing.filter(claimed).join(complete, on="run_id", how="semi", maintain_order="left")
    kept = pl.concat([standing, joined.filter(~in_time)])
    others = kept.join(settled, on=KEYS, how="anti").sort(KEYS)
    return settled.select(rows.columns), others.select(rows.columns)


def _stem(word: str, files: Sequence[StoredFile]) -> str:
    """The same for the same inputs: a compaction that is done twice writes the same files."""
    return f"{word}-{digest(' '.join(file.path for file in files).encode())}"


def _delete(ledger: Ledger, files: Sequence[StoredFile], keep: set[str]) -> None:
    for file in files:
        if file.path not in keep:
            ledger.storage.delete(file.path)
