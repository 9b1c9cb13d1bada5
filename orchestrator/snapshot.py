"""What a ledger says at one moment: which rows count, and whether what its ends claim is there.

The rule, for each run: its latest end, of attempt a, claims evaluations 0 to m-1 as the latest attempts up to a left
them. Rows of later attempts wait for their own end. A run without an end has the latest row of every evaluation.

Parts whose name begins with "settled" hold just what ends claim, so they are scanned in place and never loaded whole.
All other rows are few, and are resolved in memory by that rule, together with what settled parts hold of the same runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl
import pyarrow as pa

from orchestrator import paths
from orchestrator.ledger_schema import ENDS
from orchestrator.parts import Damage, DamagedPartsError, checked_file, consistently, list_parts, read_all
from orchestrator.storage import Storage
from workers.schema import ROWS

KEYS = ("run_id", "evaluation", "attempt")
CLAIMING = ("done", "diverged")
"""Statuses whose ends claim rows."""


@dataclass(frozen=True)
class Snapshot:
    """The ends and the rows of a ledger.

    Attributes:
        ends: the latest end of every run that has one.
        settled: local files of settled parts.
        recent: rows of all other parts, as they lie there.
        columns: of the rows; KEYS are always among them.
    """

    ends: pl.DataFrame
    settled: Sequence[Path]
    recent: pl.DataFrame
    columns: tuple[str, ...]

    @cached_property
    def settled_counts(self) -> pl.DataFrame:
        """Rows in settled parts, by run: run_id, held."""
        return _counts(self._scan()) if self.settled else _counts(self.recent.lazy().limit(0))

    @cached_property
    def unclear(self) -> pl.DataFrame:
        """Runs that have rows outside of settled parts, or another number of rows in these than they claim."""
        claims = self.ends.select("run_id", pl.col("evaluations").alias("claimed"))
        counts = self.settled_counts.join(claims, on="run_id", how="left")
        odd = counts.filter(pl.col("claimed").ne_missing(pl.col("held")))
        return pl.concat([self.recent.select("run_id"), odd.select("run_id")]).unique()

    @cached_property
    def counts(self) -> pl.DataFrame:
        """Rows that count, by run: run_id, held."""
        clear = self.settled_counts.join(self.unclear, on="run_id", how="anti")
        return pl.concat([clear, _counts(self.resolved.lazy())])

    def summarise(self, summary: Callable[[pl.LazyFrame], pl.DataFrame]) -> pl.DataFrame:
        """What `summary` makes of the rows that count, in one pass over them.

        `summary` gives a row a run, with `run_id` and `evaluations`, the number of its rows.
        """
        if not self.settled:
            return summary(self.resolved.lazy())
        found = summary(self._scan())
        held = pl.col("evaluations").sum().cast(pl.Int32).alias("held")
        self.__dict__["settled_counts"] = found.group_by("run_id").agg(held)  # the same scan has counted them
        clear = found.join(self.unclear, on="run_id", how="anti", maintain_order="left")
        return pl.concat([clear, summary(self.resolved.lazy())])

    def rows(self) -> pl.LazyFrame:
        """Every row that counts, each (run, evaluation) once; sorted by run and evaluation within each source."""
        resolved = self.resolved.lazy()
        if not self.settled:
            return resolved
        return pl.concat([self.clear(), resolved])

    def clear(self) -> pl.LazyFrame:
        """Rows of runs that lie in settled parts alone, exactly as claimed."""
        scan = self._scan()
        return scan if self.unclear.is_empty() else scan.join(self.unclear.lazy(), on="run_id", how="anti")

    @cached_property
    def resolved(self) -> pl.DataFrame:
        """Rows of all other runs, by the rule."""
        rows = self.recent
        if self.settled and not self.unclear.is_empty():
            among = self._scan().join(self.unclear.lazy(), on="run_id", how="semi").collect(engine="streaming")
            rows = pl.concat([among, rows])
        return resolve(rows, self.ends)

    def judged_ends(self) -> pl.DataFrame:
        """The ends, with `held`, the rows that count; status "lost" where an end claims rows that are not there."""
        held = self.ends.join(self.counts, on="run_id", how="left", maintain_order="left")
        held = held.with_columns(pl.col("held").fill_null(0))
        lost = pl.col("status").is_in(CLAIMING) & pl.col("held").ne_missing(pl.col("evaluations"))
        return held.with_columns(pl.when(lost).then(pl.lit("lost")).otherwise(pl.col("status")).alias("status"))

    def _scan(self) -> pl.LazyFrame:
        return pl.scan_parquet(list(self.settled), hive_partitioning=False).select(self.columns)


def _counts(rows: pl.LazyFrame) -> pl.DataFrame:
    grouped = rows.group_by("run_id").agg(pl.len().cast(pl.Int32).alias("held"))
    return grouped.collect(engine="streaming")


def resolve(rows: pl.DataFrame, ends: pl.DataFrame) -> pl.DataFrame:
    """The rows that count, sorted by run and evaluation. `ends` are the latest ones; the rule stands above."""
    claims = ends.select("run_id", pl.col("attempt").alias("end_attempt"), pl.col("evaluations").alias("claimed"))
    joined = rows.join(claims, on="run_id", how="left")
    within = (pl.col("end_attempt").is_null() | (pl.col("attempt") <= pl.col("end_attempt"))) & (
        pl.col("claimed").is_null() | (pl.col("evaluation") < pl.col("claimed"))
    )
    return (
        joined.filter(within)
        .drop("end_attempt", "claimed")
        .sort("run_id", "evaluation", "attempt")
        .unique(["run_id", "evaluation"], keep="last", maintain_order=True)
    )


def latest_ends(ends: pl.DataFrame) -> pl.DataFrame:
    """The end of the latest attempt of every run."""
    return ends.sort("run_id", "attempt", maintain_order=True).unique("run_id", keep="last", maintain_order=True)


def take_snapshot(storage: Storage, columns: Sequence[str] = KEYS) -> Snapshot:
    """Read the ends, and `columns` of the rows.

    Raises:
        DamagedPartsError: naming every damaged or foreign file.
        StorageError: storage cannot be read.
    """
    snapshot, damages = examine(storage, columns)
    if damages:
        raise DamagedPartsError(storage, damages)
    return snapshot


def examine(storage: Storage, columns: Sequence[str] = KEYS) -> tuple[Snapshot, list[Damage]]:
    """As `take_snapshot`, from the sound files alone, and what is wrong with the others.

    Ends are listed first: whatever they claim was durable before them, so it is in the later listing of rows.
    """
    return consistently(lambda: _examine(storage, tuple(dict.fromkeys((*KEYS, *columns)))))


def _examine(storage: Storage, columns: tuple[str, ...]) -> tuple[Snapshot, list[Damage]]:
    ends, end_damages = read_all(storage, list_parts(storage, paths.ENDS), ENDS)
    files = list_parts(storage, paths.ROWS)
    in_place = [file for file in files if is_settled(file.path)]
    others = [file for file in files if not is_settled(file.path)]
    recent, row_damages = read_all(storage, others, pa.schema([ROWS.field(name) for name in columns]))
    settled = [checked_file(storage, file) for file in in_place]
    damages = [*end_damages, *row_damages, *(each for each in settled if isinstance(each, Damage))]
    local = [each for each in settled if isinstance(each, Path)]
    return Snapshot(latest_ends(pl.DataFrame(ends)), local, pl.DataFrame(recent), columns), damages


def is_settled(path: str) -> bool:
    """Whether a part of rows holds finished runs only."""
    return path.startswith(f"{paths.ROWS}/{paths.SETTLED}-")
