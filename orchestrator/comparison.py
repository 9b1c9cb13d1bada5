"""Two sweeps held against each other on their common cells: what differs, by how much, and how sure that is."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from orchestrator.analysis.compare import RULES, Rule, differences, match_cells
from orchestrator.analysis.definitions import METRICS
from orchestrator.ledger import Ledger
from orchestrator.phase_diagram import HEAT_MAPS, describe
from orchestrator.phase_folder import write_into_phase
from orchestrator.storage import open_storage
from orchestrator.sweep_tables import SweepTables, read_sweep
from search_spaces.spec import SearchSpace

COMPARED = ("dataset", "architecture", "axis", "noise", "recipe", "evaluation")
"""Parts of a space that can change a result; widths, samples, rates and seeds are what the cells are made of."""
FORMATS = ("png", "svg", "pdf")


@dataclass(frozen=True)
class Comparison:
    """What came out: `table` has a row for each cell and metric, with cells that one sweep alone has."""

    names: tuple[str, str]
    rule: Rule
    recipe: list[tuple[str, Any, Any]]
    """Keys in which the two spaces differ, with either value."""
    table: pl.DataFrame
    files: list[str]


def compare_sweeps(
    a: Ledger,
    b: Ledger,
    metrics: Sequence[str] = HEAT_MAPS,
    *,
    match: Literal["auto", "size", "ratio"] = "auto",
    tolerance: float = 0.0,
    formats: Sequence[str] = ("png", "svg"),
) -> Comparison:
    """Compare two sweeps, and write table and figure into the phase folder of the first.

    match: which cells are the same: "size" (noise rate, width and samples), "ratio" (noise rate and realised p/n, at
    most `tolerance` apart, relatively), or "auto": by size where both have one architecture and sizes in common.

    Raises:
        LedgerError: one has no finished run yet.
        ValueError: an unknown metric or format, or no common cell; it says what each of the two has.
        StorageError: a damaged file, or a folder that cannot be written.
    """
    problems = [f"unknown metric {name!r}; choose from {', '.join(METRICS)}" for name in metrics if name not in METRICS]
    problems += [f"unknown format {name}; choose from {', '.join(FORMATS)}" for name in formats if name not in FORMATS]
    if problems:
        raise ValueError("; ".join(problems))
    metrics = list(dict.fromkeys(metrics))
    first, second = read_sweep(a), read_sweep(b)
    names = _names(a, b)
    rule, matched = _match(first, second, names, match, tolerance)
    recipe = recipe_differences(first.space, second.space)
    same_noise = not any(key.startswith("noise.") for key, _, _ in recipe)
    data = [key for key, _, _ in recipe if key.startswith("dataset.") and key != "dataset.validation_samples"]
    common = differences(matched, first.runs, second.runs, metrics, same_noise=same_noise, same_data=not data)
    table = _with_alone(common, matched, metrics)

    def write(folder: Path) -> list[Path]:
        return _write(folder, table, metrics, formats, names, title, caption)

    title = f"{names[1]} minus {names[0]}"
    caption = _caption(first.space, second.space, names, rule, recipe, table, metrics)
    return Comparison(names, rule, recipe, table, write_into_phase(a, write))


def recipe_differences(a: SearchSpace, b: SearchSpace) -> list[tuple[str, Any, Any]]:
    """Dotted keys of COMPARED whose values differ, with either value; None where one has no such key."""
    one, two = (_flat(space.model_dump(mode="json", include=set(COMPARED))) for space in (a, b))
    ignored = ("noise.rates", "noise.file")  # rates are cells; of a label file its content counts, not its path
    keys = [key for key in dict.fromkeys([*one, *two]) if key not in ignored]
    return [(key, one.get(key), two.get(key)) for key in keys if one.get(key) != two.get(key)]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _names(a: Ledger, b: Ledger) -> tuple[str, str]:
    """What the two are called: by their names, or by their places where the names are the same."""
    if a.name != b.name:
        return a.name, b.name
    if a.storage.url == b.storage.url:
        raise ValueError(f"{a.name!r} is to be compared with itself; give two sweeps")
    return a.storage.url, b.storage.url


def _match(
    a: SweepTables, b: SweepTables, names: tuple[str, str], match: str, tolerance: float
) -> tuple[Rule, pl.DataFrame]:
    both = pl.col("width_a").is_not_null() & pl.col("width_b").is_not_null()
    rules: tuple[Rule, ...] = ("size", "ratio") if a.space.architecture == b.space.architecture else ("ratio",)
    if match != "auto":
        rules = ("size",) if match == "size" else ("ratio",)
    if tolerance < 0 or (tolerance > 0 and "ratio" not in rules):
        raise ValueError(f"tolerance is {tolerance:g}; it must be at least 0, and goes with cells matched by p/n")
    for rule in rules:
        matched = match_cells(a.cells, b.cells, rule, tolerance=tolerance)
        if matched.filter(both).height:
            return rule, matched
    tried = " or ".join(RULES[rule] for rule in rules)
    each = "; ".join(f"{name} has {_has(sweep)}" for name, sweep in zip(names, (a, b), strict=True))
    raise ValueError(
        f"the two sweeps have no common cell ({tried}): {each}. Launch one of them with sizes and noise rates of the "
        "other, or match by p/n with a tolerance"
    )


def _has(sweep: SweepTables) -> str:
    def values(name: str) -> str:
        return ", ".join(
            f"{value:.4g}" if name == "ratio" else f"{value:g}" for value in sweep.cells[name].unique().sort()
        )

    return (
        f"noise rates {values('noise_rate')}, widths {values('width')}, samples {values('samples')}, "
        f"p/n {values('ratio')} ({sweep.space.architecture} on {sweep.space.dataset.name})"
    )


def _with_alone(common: pl.DataFrame, matched: pl.DataFrame, metrics: Sequence[str]) -> pl.DataFrame:
    """The differences, and a row with nulls for each metric of each cell that one sweep alone has."""
    alone = matched.filter(pl.col("width_a").is_null() | pl.col("width_b").is_null())
    where = pl.when(pl.col("width_b").is_null()).then(pl.lit("a only")).otherwise(pl.lit("b only"))
    rows = alone.with_columns(cells=where).join(pl.DataFrame({"metric": metrics}), how="cross")
    counts = [pl.lit(0, pl.UInt32).alias(name) for name in ("n_a", "n_b")]
    rows = rows.with_columns(*counts, interval=pl.lit("none"), decided=pl.lit(False))
    order = pl.col("metric").replace_strict({name: place for place, name in enumerate(metrics)})
    return pl.concat([common.with_columns(cells=pl.lit("both")), rows], how="diagonal").sort(
        order, "noise_rate", "place"
    )


def _write(
    folder: Path,
    table: pl.DataFrame,
    metrics: Sequence[str],
    formats: Sequence[str],
    names: tuple[str, str],
    title: str,
    caption: str,
) -> list[Path]:
    from matplotlib import rc_context

    from orchestrator.figures.compare_figure import difference_maps
    from orchestrator.figures.page import STYLE, write_figure

    stem = "compare-" + "-".join(Path(name.partition("?")[0]).name for name in names)
    storage, parquet = open_storage(folder), io.BytesIO()
    table.write_parquet(parquet)
    storage.write(f"{stem}.csv", table.write_csv().encode())
    storage.write(f"{stem}.parquet", parquet.getvalue())
    with rc_context(STYLE):
        figure = difference_maps(table, metrics, title=title, caption=caption)
        drawn = write_figure(figure, folder / stem, formats)
    return [folder / f"{stem}.csv", folder / f"{stem}.parquet", *drawn]


def _caption(
    a: SearchSpace,
    b: SearchSpace,
    names: tuple[str, str],
    rule: Rule,
    recipe: list[tuple[str, Any, Any]],
    table: pl.DataFrame,
    metrics: Sequence[str],
) -> str:
    letters = [f"({letter}) " for letter in "abcdefghijklmnop"] if len(metrics) > 1 else [""]
    definitions = " ".join(
        f"{letter}{METRICS[name].definition}" for letter, name in zip(letters, metrics, strict=False)
    )
    kinds = table.filter(pl.col("difference").is_not_null())
    counts = {kind: kinds.filter(pl.col("interval") == kind).height for kind in ("paired", "Welch", "none")}
    how = {
        "paired": "paired by seed (same data, subset and noise mask)",
        "Welch": "unpaired (Welch's t)",
        "none": "without an interval (fewer than two seeds)",
    }
    said = ", ".join(f"{count} {how[kind]}" for kind, count in counts.items() if count) or "none"
    seeds = [*kinds["n_a"], *kinds["n_b"]] or [0]
    n = f"{min(seeds)}" if min(seeds) == max(seeds) else f"{min(seeds)} to {max(seeds)}"
    differs = ", ".join(f"{key} {_say(one)} / {_say(two)}" for key, one, two in recipe) or "nothing"
    mixed = (
        " One sweep reaches its p/n by width and the other by samples: equal p/n is not the same model or data."
        if a.axis != b.axis
        else ""
    )
    return (
        f"A: {names[0]}: {describe(a)} B: {names[1]}: {describe(b)} "
        f"Differences B \N{MINUS SIGN} A of means over seeds on cells with the {RULES[rule]}; A and B differ in "
        f"{differs}.{mixed} {definitions} Of {kinds.height} differences (n = {n} seeds a side) {said}; "
        "95% intervals, not corrected for the number of cells."
    )


def _say(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
