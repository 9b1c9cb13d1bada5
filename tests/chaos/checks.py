"""What must hold after every round, whatever happened in it."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import polars as pl
from polars.testing import assert_frame_equal

from orchestrator.ledger import Ledger
from orchestrator.parts import DamagedPartsError
from orchestrator.verify import Verification, verify
from tests.chaos.damage import Damaged
from tests.chaos.sweep import table

OF_ENDS = ("status", "mask_hash", "subset_hash", "noise_rate_realised")
"""Columns that only a run that ended has."""
FINISHED = ("done", "diverged")


def finished_runs(ledger: Ledger) -> dict[str, int]:
    """The attempt in which each finished run ended, by run id."""
    if not ledger.exists():
        return {}
    ends = ledger.ends().filter(pl.col("status").is_in(FINISHED))
    return dict(zip(ends["run_id"].to_list(), ends["attempt"].to_list(), strict=True))


def check(ledger: Ledger, reference: pl.DataFrame, before: AbstractSet[str]) -> list[str]:
    """Problems: what verify finds, rows unlike the reference's, and runs that had finished (`before`) and have not."""
    if not ledger.exists():
        return [f"{len(before)} finished runs are gone with the whole sweep"] if before else []
    problems = list(verify(ledger).problems)
    gone = before - finished_runs(ledger).keys()
    if gone:
        problems.append(f"runs that had finished are not any more: {', '.join(sorted(gone))}")
    return problems + unlike(table(ledger), reference)


def unlike(found: pl.DataFrame, reference: pl.DataFrame) -> list[str]:
    """Where rows are not those of the reference. Of a run without an end some may be missing."""
    is_finished = pl.col("status").is_in(FINISHED)
    finished = found.filter(is_finished)
    unfinished = found.filter(~is_finished).drop(*OF_ENDS)
    expected = reference.join(finished.select("run_id").unique(), on="run_id", how="semi")
    partly = reference.join(unfinished, on=["run_id", "evaluation"], how="semi").drop(*OF_ENDS)
    problems = []
    for what, left, right in (("finished", finished, expected), ("unfinished", unfinished, partly)):
        try:
            assert_frame_equal(left, right, check_exact=True, check_row_order=False)
        except AssertionError as error:
            problems.append(f"rows of {what} runs are not those of the undisturbed sweep: {error}")
    return problems


def check_complete(ledger: Ledger, reference: pl.DataFrame) -> list[str]:
    """Problems at the end of a sweep: it is not clean, not complete, or not the reference row for row."""
    found: Verification = verify(ledger)
    problems = list(found.problems)
    if not found.is_complete:
        problems.append(f"not complete: {found.counts}")
    try:
        assert_frame_equal(table(ledger), reference, check_exact=True)
    except AssertionError as error:
        problems.append(f"the table is not that of the undisturbed sweep: {error}")
    return problems


def check_found(ledger: Ledger, damaged: Damaged, finished: AbstractSet[str]) -> list[str]:
    """Problems if a damage is not found and named, if anything else is, or if its file is read as data."""
    named = verify(ledger).problems
    lost = damaged.runs & finished
    problems = [
        f"verify says after damage ({damaged.kind}, {damaged.name}): {problem}"
        for problem in named
        if damaged.name not in problem and "their rows are not all there" not in problem
    ]
    if damaged.kind == "deleted":
        statuses = ledger.statuses()
        told = {run for run, status in statuses.items() if status == "lost"}
        if told != lost:
            problems.append(f"{damaged.name} was deleted: lost are {sorted(lost)}, but told as lost {sorted(told)}")
        if bool(lost) != bool(named):
            problems.append(f"{damaged.name} was deleted with {len(lost)} runs, but verify says {named}")
        return problems
    if not any(damaged.name in problem for problem in named):
        problems.append(f"verify does not name {damaged.name} ({damaged.kind}): {named}")
    try:
        ledger.load()
    except DamagedPartsError as error:
        if damaged.name not in str(error):
            problems.append(f"load does not name {damaged.name}: {error}")
    else:
        problems.append(f"load reads on although {damaged.name} is damaged ({damaged.kind})")
    return problems


def check_repaired(ledger: Ledger, damaged: Damaged, before: dict[str, int], said: str) -> list[str]:
    """Problems if a launch did not put the damaged file aside, or trained other runs again than the lost ones."""
    problems = []
    if damaged.kind != "deleted":
        if not ledger.storage.exists(f"damaged/rows-{damaged.name}"):
            problems.append(f"{damaged.name} was not moved to damaged/")
        if damaged.name not in said:
            problems.append(f"the launch does not name {damaged.name}")
    after = finished_runs(ledger)
    again = {run for run, attempt in before.items() if after.get(run) != attempt}
    lost = damaged.runs & before.keys()
    if again != lost:
        problems.append(f"lost with {damaged.name} were {sorted(lost)}, but trained again were {sorted(again)}")
    return problems
