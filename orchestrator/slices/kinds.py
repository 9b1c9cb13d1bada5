"""The kinds of slices: which columns each needs, and how its tables, caption and figure are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from orchestrator.analysis.curves import mean_curves, stopping_gains
from orchestrator.analysis.slices import along_axis, axis_size, contrasts, telling_sizes
from orchestrator.slices import captions as words
from orchestrator.sweep_tables import SweepTables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEARNING = ("train_error_given", "test_error", "memorised", "recovered")
LOSSES = ("test_loss", "train_loss_given")


@dataclass(frozen=True)
class Slice:
    """One figure and the tables that it shows; `tables` by what their file's name ends in, the main one by ""."""

    figure: Figure
    tables: dict[str, pl.DataFrame]


def _descent(sweep: SweepTables) -> Slice:
    from orchestrator.figures.line_charts import descent

    done = sweep.runs.filter(pl.col("status") == "done")
    early = "err_valsel" if done["err_valsel"].null_count() < done.height else "err_best"
    table = along_axis(sweep.cells, sweep.runs, ["err_last", early, "train_error_last"])
    thresholds = sweep.thresholds
    by = "model" if sweep.axis == "width" else "sample"
    caption = words.caption(
        sweep.space,
        f"(a) Filled, solid: {_lower(words.definition('err_last'))} Open, dashed: {_lower(words.definition(early))}",
        f"(b) {words.definition('train_error_last')} Lines at 0.01 and 0.1.",
        f"Triangles: {_first(sweep.axis)} of the measured ones whose mean train error is at most 0.01 (filled) or 0.1 "
        f"(open), a row for each noise rate with the lowest on top; none where no cell gets there."
        f"{_returns(thresholds, sweep.axis)}",
        "" if early == "err_valsel" else "The oracle's minimum is biased downward by test-set noise.",
        words.seeds(table["n"]),
        "\N{DAGGER}: without its diverged runs." if table["n_diverged"].sum() else "",
        words.early_stop(sweep.space),
        words.lost(sweep.cells, sweep.beside),
    )
    title = f"{sweep.ledger.name}: {by}-wise double descent"
    figure = descent(table, thresholds, sweep.axis, title=title, caption=caption)
    return Slice(figure, {"": table, "thresholds": thresholds})


def _emc(sweep: SweepTables) -> Slice:
    from orchestrator.figures.line_charts import complexity

    epochs = along_axis(sweep.cells, sweep.runs, ["emc_epoch"])
    thresholds = sweep.thresholds
    if sweep.axis == "samples":
        what = (
            f"(a) Effective model complexity (Nakkiran et al. 2020, section 2) of width {sweep.cells['width'][0]:,}, "
            "per noise rate: the largest measured n whose train error after training is at most 0.1 (open), mean over "
            "seeds; filled, the same with 0.01. The true value lies between the mark and the other end of its bar, "
            "the next larger measured n; an arrow says that it lies beyond the measured n."
        )
    else:
        what = (
            "(a) Not EMC itself, which varies n at one width, but its counterpart on this axis: the smallest measured "
            "p/n at which the fixed n is fitted with train error at most 0.1 (open; 0.01 filled), mean over seeds. "
            "The true value lies between the mark and the other end of its bar, the next smaller measured p/n; an "
            "arrow says that it lies beyond the measured p/n."
        )
    caption = words.caption(
        sweep.space,
        what + _returns(thresholds, sweep.axis),
        f"(b) Mean first {'flow time' if sweep.flow else 'epoch'} with train error at most 0.1, as far as evaluations "
        "tell; a gap where not all seeds of a cell reach it.",
        words.seeds(epochs.filter(pl.col("mean").is_not_null())["n"]),
        words.early_stop(sweep.space),
        words.lost(sweep.cells, sweep.beside),
    )
    title = f"{sweep.ledger.name}: effective model complexity"
    figure = complexity(thresholds, epochs, sweep.axis, flow=sweep.flow, title=title, caption=caption)
    return Slice(figure, {"": thresholds, "epochs": epochs})


def _contrast(sweep: SweepTables) -> Slice:
    from orchestrator.figures.line_charts import contrast

    table = contrasts(sweep.cells, sweep.runs)
    unpaired = table.filter(pl.col("against") == "neighbour")["unpaired"].sum()
    caption = words.caption(
        sweep.space,
        "Paired contrasts: final test error at a noise rate minus that of the same seed, width and n at a lower rate. "
        "The runs share subset, initialisation, order and nested noise masks (common random numbers), so that most of "
        "the spread over seeds cancels.",
        words.seeds(table["n"], what="pairs a cell"),
        f"{unpaired} finished runs without a partner at the next lower rate are left out." if unpaired else "",
        words.lost(sweep.cells, sweep.beside),
    )
    title = f"{sweep.ledger.name}: contrasts between noise rates"
    return Slice(contrast(table, title=title, caption=caption), {"": table})


def _epoch(sweep: SweepTables) -> Slice:
    from orchestrator.figures.small_multiples import epoch_descent

    train = mean_curves(sweep.curves, ["train_error_given"], confidence=None)
    table = pl.concat([mean_curves(sweep.curves, ["test_error"]), train])
    caption = words.caption(
        sweep.space,
        "Solid, filled: test error on clean labels. Dashed, open: train error on given (noisy) labels, without "
        "augmentation (no band).",
        *_curve_words(sweep, table),
    )
    title = f"{sweep.ledger.name}: epoch-wise double descent"
    figure = epoch_descent(
        table, sweep.axis, logarithmic=sweep.logarithmic, flow=sweep.flow, title=title, caption=caption
    )
    return Slice(figure, {"": table})


def _width_epoch(sweep: SweepTables) -> Slice:
    from orchestrator.figures.epoch_map import epoch_map

    table = mean_curves(sweep.curves, ["test_error"], confidence=None).drop("low", "high")
    caption = words.caption(
        sweep.space,
        "Mean test error on clean labels at every evaluation of every width; cells end midway between neighbouring "
        "evaluations and widths, and nothing is interpolated. Hatched: not evaluated by all finished seeds.",
        words.seeds(table["n"]).split("; bands")[0].rstrip(".") + ".",
        words.early_stop(sweep.space, table),
        words.limit(sweep.space, table),
        words.lost(sweep.cells, sweep.beside),
    )
    title = f"{sweep.ledger.name}: test error by width and {'flow time' if sweep.flow else 'epoch'}"
    figure = epoch_map(table, logarithmic=sweep.logarithmic, flow=sweep.flow, title=title, caption=caption)
    return Slice(figure, {"": table})


def _learning(sweep: SweepTables) -> Slice:
    from orchestrator.figures.small_multiples import learning

    chosen = telling_sizes(sweep.thresholds, sweep.sizes, sweep.axis)
    size = axis_size(sweep.axis)
    curves = sweep.curves.filter(pl.col(size).is_in([value for value, _ in chosen]))
    table = mean_curves(curves, LEARNING)
    metrics = [name for name in LEARNING if name in table["metric"]]
    absent = [name for name in LEARNING if name not in metrics]
    caption = words.caption(
        sweep.space,
        "Train error is on given (noisy) labels, test error on clean ones. Memorised and recovered: shares of the "
        "corrupted train examples predicted as their given, wrong label and as their true one; there are none at noise "
        "rate 0.",
        f"Not measured in this sweep: {', '.join(absent)}." if absent else "",
        *_curve_words(sweep, table),
    )
    figure = learning(
        table,
        chosen,
        sweep.axis,
        metrics,
        logarithmic=sweep.logarithmic,
        flow=sweep.flow,
        title=f"{sweep.ledger.name}: learning curves",
        caption=caption,
    )
    return Slice(figure, {"": table})


def _overfit(sweep: SweepTables) -> Slice:
    from orchestrator.figures.small_multiples import overfit

    largest = sweep.curves["ratio"].max()
    curves = sweep.curves.filter(pl.col("ratio") == largest)
    tests = ["test_loss", "test_error"]
    table = mean_curves(curves, [*LOSSES, "test_error", "train_error_given"])
    stops, gains = stopping_gains(curves, tests, final_evaluations=sweep.space.analysis.last_evaluations)
    row = curves.row(0, named=True)
    caption = words.caption(
        sweep.space,
        f"Shown: width {row['width']:,} at n = {row['samples']:,} (p/n {row['ratio']:.4g}"
        + (", the largest measured)." if len(sweep.sizes) > 1 else ")."),
        "Test on clean labels, train on given (noisy) labels without augmentation; after the first figure of Wen, Teng "
        "and Zhang (arXiv 2206.00501).",
        "Last \N{MINUS SIGN} best: what stopping at a seed's lowest test value (ringed) would have gained over "
        "training to the end, mean over seeds with its 95% interval; an oracle's choice, biased upward by test-set "
        "noise.",
        *_curve_words(sweep, table),
    )
    title = f"{sweep.ledger.name}: overfit curves"
    figure = overfit(
        table,
        stops,
        gains,
        usual_epochs=sweep.space.analysis.usual_epochs,
        logarithmic=sweep.logarithmic,
        flow=sweep.flow,
        title=title,
        caption=caption,
    )
    return Slice(figure, {"": table, "best": stops, "gains": gains})


@dataclass(frozen=True)
class Kind:
    """How a kind of slice is made, what of the epoch rows it needs, and what it shows in a few words."""

    make: Callable[[SweepTables], Slice]
    measured: tuple[str, ...]
    shows: str


KINDS = {
    "model": Kind(_descent, (), "model-wise double descent: errors against p/n, by width"),
    "sample": Kind(_descent, (), "sample-wise double descent: errors against n"),
    "epoch": Kind(_epoch, ("test_error", "train_error_given"), "epoch-wise double descent: errors against epochs"),
    "width-epoch": Kind(_width_epoch, ("test_error",), "heat map of test error over width and epoch"),
    "emc": Kind(_emc, (), "effective model complexity: where and when labels are fitted"),
    "contrast": Kind(_contrast, (), "paired contrasts between noise rates"),
    "learning": Kind(_learning, LEARNING, "learning curves of a few telling cells"),
    "overfit": Kind(_overfit, (*LOSSES, "test_error", "train_error_given"), "train and test past the usual schedule"),
}


def _curve_words(sweep: SweepTables, table: pl.DataFrame) -> tuple[str, ...]:
    return (
        words.seeds(table["n"]),
        words.early_stop(sweep.space, table),
        words.limit(sweep.space, table),
        words.lost(sweep.cells, sweep.beside),
    )


def _first(axis: str) -> str:
    return "the smallest p/n" if axis == "width" else "the largest n"


def _returns(thresholds: pl.DataFrame, axis: str) -> str:
    again = thresholds.filter(pl.col("returns") > 0)["noise_rate"].unique().sort().to_list()
    rates = ", ".join(f"{rate:g}" for rate in again)
    beyond = "larger p/n" if axis == "width" else "smaller n"
    return f" At noise rate {rates}, some cells at a {beyond} are not fitted again." if again else ""


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]
