"""How one run came to be, and whether it comes out the same again."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from orchestrator import paths
from orchestrator.ledger import Ledger, LedgerError
from orchestrator.provenance import versions
from search_spaces.runs import Run, expand
from search_spaces.spec import SearchSpace
from workers.schema import ROWS, TIMING_COLUMNS


@dataclass(frozen=True)
class Origin:
    """Everything that a run needs to be trained again, and what it was trained with."""

    run: Run
    space: SearchSpace
    command: str
    facts: dict[str, Any]


@dataclass
class Comparison:
    """Rows of two trainings of one run. `differences` holds the largest absolute one of each column that differs."""

    rows_before: int
    rows_now: int
    differences: dict[str, float] = field(default_factory=dict)

    @property
    def is_identical(self) -> bool:
        return self.rows_before == self.rows_now and not self.differences


def origin_of(ledger: Ledger, run_id: str) -> Origin:
    """Look a run up by its id, or by the first characters of it if they are unique.

    Raises:
        LedgerError: no such run in this sweep, or several.
    """
    space = ledger.manifest().space
    found = [run for run in expand(space) if run.run_id.startswith(run_id)]
    if len(found) != 1:
        what = f"{len(found)} runs begin with" if found else "no run of the sweep's space is"
        raise LedgerError(
            f"{what} {run_id!r}: give the whole id of 16 digits, as it stands in the table and in "
            f"bo-sweep status {ledger.name}"
        )
    (run,) = found
    ends = ledger.ends().filter(pl.col("run_id") == run.run_id)
    end = ends.row(0, named=True) if ends.height else {}
    facts = {
        "status": end.get("status", "waiting"),
        **{name: getattr(run, name, None) for name in ("width", "samples", "parameters", "ratio", "seed")},
        "noise": f"{run.noise.model} {run.noise.rate:g}",
        "data": f"{run.dataset.name} {run.dataset.described.version}",
        **{
            name: end.get(name)
            for name in (
                "subset_hash",
                "mask_hash",
                "noise_rate_realised",
                "evaluations",
                "pack_size",
                "engine",
                "reused_from",
            )
        },
        **{name: end.get(name) for name in ("attempt", "device", "node", "seconds")},
        "trained with": end.get("versions"),
        "here": versions(),
    }
    engine = end.get("engine")
    return Origin(run, only_run(space, run, engine), _command(ledger, space, run, engine), facts)


def only_run(space: SearchSpace, run: Run, engine: str | None) -> SearchSpace:
    """The space that holds this run alone, to be trained by the engine that trained it."""
    content = space.model_dump(mode="json")
    content |= {"widths": [run.width], "samples": [run.samples], "ratios": None, "seeds": [run.seed]}
    content["noise"]["rates"] = [run.noise.rate]
    if engine:
        content["resources"]["engine"] = engine
    return SearchSpace.model_validate(content)


def compare(before: Ledger, now: Ledger, run_id: str) -> Comparison:
    """Compare all but the timing columns of a run's rows in two ledgers.

    Raises:
        StorageError: a ledger that cannot be read.
    """
    first, second = (_rows(ledger, run_id) for ledger in (before, now))
    comparison = Comparison(first.height, second.height)
    both = first.join(second, on="evaluation", suffix="_now")
    for name in first.columns:
        if name in ("evaluation", "run_id"):
            continue
        old, new = both[name].cast(pl.Float64), both[f"{name}_now"].cast(pl.Float64)
        unequal = both.select((old.ne_missing(new) & ~(old.is_nan() & new.is_nan()).fill_null(False)).alias("x"))["x"]
        if unequal.any():
            largest = (old - new).abs().filter(unequal).max()
            comparison.differences[name] = float(largest) if isinstance(largest, float) else float("nan")
    return comparison


def _rows(ledger: Ledger, run_id: str) -> pl.DataFrame:
    names = [name for name in ROWS.names if name not in (*TIMING_COLUMNS, "attempt")]
    rows = ledger.snapshot(ROWS.names).rows().filter(pl.col("run_id") == run_id).select(names)
    return rows.collect().sort("evaluation")


def _command(ledger: Ledger, space: SearchSpace, run: Run, engine: str | None) -> str:
    local = ledger.storage.local_path(paths.SPACE)
    where = str(local) if local else ledger.storage.location(paths.SPACE)
    overrides = {"widths": f"[{run.width}]", "samples": f"[{run.samples}]", "noise.rates": f"[{run.noise.rate!r}]"}
    if space.ratios is not None:
        overrides["ratios"] = "null"
    overrides["seeds"] = f"[{run.seed}]"
    if engine:
        overrides["resources.engine"] = engine
    sets = [part for key, value in overrides.items() for part in ("--set", f"{key}={value}")]
    return shlex.join(["bo-sweep", "launch", _relative(where), *sets, "--name", f"run-{run.run_id}"])


def _relative(where: str) -> str:
    path = Path(where)
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return where
