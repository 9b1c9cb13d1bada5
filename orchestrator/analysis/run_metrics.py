"""From evaluations to runs: what the curve of each run comes to, in one pass over any number of rows.

Rows come in batches, so memory does not grow with them. Within a batch NumPy works on whole columns: "a run" is a span
of rows, "the lowest" a reduction over spans, and "the first evaluation at which" the first position of a mask in each
span.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from orchestrator.analysis.definitions import EMC_ERROR, INTERPOLATION_ERROR, ROUNDING

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.intp]

NEEDED_MEASURED = (
    *("epoch", "train_error_given", "memorised", "recovered"),
    *("val_error", "test_loss", "test_error", "excess_risk"),
)
NEEDED_COLUMNS = ("run_id", "evaluation", *NEEDED_MEASURED)
"""Columns of the epoch rows that the metrics of a run are made from."""

BATCH_ROWS = 10_000
"""Rows that are worth one round of NumPy calls; they stay in a core's cache."""
ROW_GROUPS_AHEAD = "1"
"""Polars decodes up to 128 of them ahead: more memory, and no longer in the caches when their turn comes."""
LAST_OF = {
    "err_last": "test_error",
    "loss_last": "test_loss",
    "train_error_last": "train_error_given",
    "memorised": "memorised",
    "recovered": "recovered",
    "exact": "excess_risk",
}
"""Metrics that are a mean over the final evaluations, and of which column."""
SUMMARY = pl.Schema(
    {"run_id": pl.String, "evaluations": pl.UInt32, "broken": pl.Boolean}
    | dict.fromkeys((*LAST_OF, "err_best", "loss_best", "epoch_best", "err_valsel"), pl.Float64)
    | dict.fromkeys(("interpolation_epoch", "emc_epoch"), pl.Float64)
)
"""Columns of `summarise_runs`."""


def summarise_runs(rows: pl.LazyFrame, *, final_evaluations: int = 1) -> pl.DataFrame:
    """One row for each run, in the order in which they come: SUMMARY, null where nothing was measured.

    rows: NEEDED_COLUMNS, each run's in one piece and by evaluation, as in the files that `write_compacted` writes; runs
    may come in any order. A run that lies there twice has two rows, for the caller to choose from. final_evaluations:
    k; "last" is the mean of the final k evaluations, null if there are fewer or one of them is not defined.

    evaluations: how many rows it has. broken: its test error or test loss is NaN somewhere, or its test error is
    infinite. "Best" is the lowest finite value; epoch_best, the first epoch with it. Times may be infinite: the limit
    of gradient flow.
    """
    if final_evaluations < 1:
        raise ValueError(
            f"final_evaluations is {final_evaluations}; it must be at least 1: choose 1 for the last one alone"
        )
    os.environ.setdefault("POLARS_ROW_GROUP_PREFETCH_SIZE", ROW_GROUPS_AHEAD)
    needed = rows.select("run_id", "evaluation", pl.col(NEEDED_MEASURED).cast(pl.Float64))
    batches = needed.collect_batches(maintain_order=True)
    run_ids: list[pl.Series] = []
    columns: dict[str, list[npt.NDArray[np.generic]]] = {name: [] for name in SUMMARY if name != "run_id"}
    for runs in _whole_runs(batches):
        run_ids.append(runs.run_ids)
        for name, values in _summarise(runs, final_evaluations).items():
            columns[name].append(values)
    if not run_ids:
        return SUMMARY.to_frame()
    table = {name: np.concatenate(parts) for name, parts in columns.items()}
    summaries = pl.DataFrame({"run_id": pl.concat(run_ids, rechunk=True), **table}, schema=SUMMARY)
    return summaries.with_columns(pl.col(pl.Float64).fill_nan(None))


@dataclass(frozen=True)
class Spans:
    """Rows of whole runs, one after another."""

    frame: pl.DataFrame
    starts: Positions
    """Of each run, its first row; at least one, ascending from 0."""
    run_ids: pl.Series
    """[runs]"""

    @cached_property
    def ends(self) -> Positions:
        """Of each run, the row after its last."""
        return np.append(self.starts[1:], self.frame.height)

    def values(self, name: str) -> Floats:
        """A column, NaN where it is null; [rows]."""
        return self.frame[name].to_numpy()

    def lowest(self, values: Floats) -> Positions:
        """Row of the first lowest finite value of each run, -1 without one; [rows] in, [runs] out."""
        rows = self._lowest(values)
        if np.isfinite(values[rows]).all():
            return rows
        values = np.where(np.isfinite(values), values, np.inf)
        rows = self._lowest(values)
        return np.where(np.isfinite(values[rows]), rows, -1)

    def _lowest(self, values: Floats) -> Positions:
        length = int(self.ends[0])
        if length * len(self.starts) == len(values) and (np.diff(self.starts) == length).all():
            within: Positions = values.reshape(-1, length).argmin(axis=1)
        else:
            spans = zip(self.starts.tolist(), self.ends.tolist(), strict=True)
            within = np.array([values[start:end].argmin() for start, end in spans], np.intp)
        return self.starts + within

    def first(self, mask: Mask) -> Positions:
        """Row of the first True of each run, -1 without one; [rows] in, [runs] out."""
        becomes = np.append(True, mask[1:] > mask[:-1])
        becomes[self.starts] = mask[self.starts]
        rows = np.append(np.flatnonzero(becomes), len(mask))
        found = rows[np.searchsorted(rows, self.starts)]
        return np.where(found < self.ends, found, -1)

    def final(self, count: int) -> Positions:
        """The final `count` rows of each run, [runs, count]; rows of other runs among them where it has fewer."""
        rows: Positions = self.ends[:, None] - np.arange(count, 0, -1)
        return np.maximum(rows, 0)


def _summarise(runs: Spans, final_evaluations: int) -> dict[str, npt.NDArray[np.generic]]:
    """The columns of SUMMARY but run_id, [runs] each; NaN where they are null."""
    of = {name: runs.values(name) for name in NEEDED_MEASURED}
    epoch, train_error, test_error = of["epoch"], of["train_error_given"], of["test_error"]
    best = runs.lowest(test_error)
    evaluations, final = runs.ends - runs.starts, runs.final(final_evaluations)
    enough = evaluations >= final_evaluations
    with np.errstate(invalid="ignore"):  # the mean of +inf and -inf is not defined, and NaN says so
        last = {metric: np.where(enough, of[name][final].mean(axis=1), np.nan) for metric, name in LAST_OF.items()}
    return {
        "evaluations": evaluations,
        "broken": _broken(runs),
        **last,
        "err_best": _pick(test_error, best),
        "epoch_best": _pick(epoch, best),
        "err_valsel": _pick(test_error, runs.lowest(of["val_error"])),
        "loss_best": _pick(of["test_loss"], runs.lowest(of["test_loss"])),
        "interpolation_epoch": _pick(epoch, runs.first(train_error <= INTERPOLATION_ERROR + ROUNDING)),
        "emc_epoch": _pick(epoch, runs.first(train_error <= EMC_ERROR + ROUNDING)),
    }


def _broken(runs: Spans) -> Mask:
    """Runs with a NaN in test error or loss, or an infinite error; a null is no number, but no failure either."""
    error, loss = runs.values("test_error"), runs.values("test_loss")
    if np.isfinite((error.min(), error.max())).all() and not np.isnan(loss.max()):
        return np.zeros(len(runs.starts), np.bool_)
    bad = pl.col("test_error").is_nan() | pl.col("test_error").is_infinite() | pl.col("test_loss").is_nan()
    return runs.first(runs.frame.select(bad.fill_null(False)).to_series().to_numpy()) >= 0


def _pick(values: Floats, rows: Positions) -> Floats:
    """The values at those rows, NaN where a row is -1."""
    return np.where(rows >= 0, values[rows], np.nan)


def _whole_runs(batches: Iterable[pl.DataFrame]) -> Iterator[Spans]:
    """The same rows, cut between runs; small batches are put together. Nothing is copied where batches are neither
    small nor cut within a run."""
    held: list[pl.DataFrame] = []
    for batch in batches:
        if sum(frame.height for frame in held) >= BATCH_ROWS:
            runs = _spans(held)
            held = []
            if _goes_on(runs.frame, batch):
                last = int(runs.starts[-1])
                held = [runs.frame[last:]]
                runs = Spans(runs.frame[:last], runs.starts[:-1], runs.run_ids[:-1])
            if len(runs.starts):
                yield runs
        if batch.height:
            held.append(batch)
    if held:
        yield _spans(held)


def _spans(frames: Sequence[pl.DataFrame]) -> Spans:
    """The runs of some batches.

    Evaluations begin again with every run, and comparing integers takes a tenth of the time of comparing ids. Where a
    run lost its first rows that finds too few runs, and the ids decide.
    """
    rows = pl.concat(frames, rechunk=True) if len(frames) > 1 else frames[0]
    evaluation, run_id = rows["evaluation"].to_numpy(), rows["run_id"]
    again = np.append(True, evaluation[1:] <= evaluation[:-1])
    starts = np.flatnonzero(again)
    if (run_id[starts] != run_id[np.append(starts[1:], rows.height) - 1]).any():
        starts = np.flatnonzero(again | (run_id != run_id.shift()).fill_null(True).to_numpy())
    return Spans(rows, starts, run_id[starts])


def _goes_on(before: pl.DataFrame, after: pl.DataFrame) -> bool:
    """Whether the last run of one goes on in the other."""
    if after.is_empty() or before["run_id"][-1] != after["run_id"][0]:
        return False
    return bool(before["evaluation"][-1] < after["evaluation"][0])
