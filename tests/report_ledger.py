"""A ledger without training for tests of the report: every fate that a run can have, and names that attack a page."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.ledger import Ledger, Manifest
from search_spaces.catalog import load_space
from search_spaces.runs import Run, expand
from search_spaces.spec import SearchSpace
from tests.waiting import PATIENCE_SECONDS
from workers.schema import ROW_COLUMNS

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ATTACK = "</script><img src=x onerror=\"document.title='owned'\"><!--<script>&amp;'\"\u2028"
EPOCHS = (0.1, 0.5, 1.0, 4.0, 20.0, 60.0)
SPACE = ("widths=[2, 4, 8, 32]", "noise.rates=[0, 0.2, 0.4]", "seeds=3")

Fate = Callable[[Run], str]


def fate_of(run: Run) -> str:
    """One cell that diverged, one that failed, one not begun, one under way, one with a lost seed; the rest is done."""
    by_cell = {(32, 0.4): "diverged", (2, 0.4): "failed", (4, 0.4): "waiting", (8, 0.4): "unfinished"}
    if (run.width, run.noise.rate, run.seed) == (32, 0.2, 2):
        return "diverged"
    return by_cell.get((run.width, run.noise.rate), "done")


def rows_of(run: Run, evaluations: int = len(EPOCHS)) -> list[dict[str, Any]]:
    """Curves that fall with time and width, rise with noise, and differ by seed; exact in no base."""
    found = []
    for evaluation, epoch in enumerate(EPOCHS[:evaluations]):
        height = math.exp(-epoch / 5) * 0.9
        error = height + run.noise.rate * (0.3 + epoch / 120) / (1 + math.log10(run.ratio + 1)) + 0.01 * run.seed / 3
        values: dict[str, Any] = {column.name: error for column in ROW_COLUMNS}
        values |= {"run_id": run.run_id, "attempt": 1, "evaluation": evaluation, "step": evaluation, "epoch": epoch}
        values |= {"train_error_given": height if epoch < 60 else 0.0, "test_error": error, "test_loss": 2 * error}
        values |= {"peak_memory_bytes": 1, "excess_risk": None}
        values |= {} if run.noise.rate else {"memorised": None, "recovered": None}
        found.append(values)
    return found


def end_of(run: Run, status: str) -> dict[str, Any]:
    failed = status == "failed"
    return {
        "run_id": run.run_id,
        "attempt": 1,
        "status": status,
        "evaluations": None if failed else len(EPOCHS),
        "seconds": 12.5,
        "noise_rate_realised": run.noise.rate,
        "mask_hash": "m",
        "subset_hash": "s",
        "device": f"cpu {ATTACK}",
        "node": f"host {ATTACK}",
        "error": f"Traceback\n  {ATTACK}" if failed else None,
        "signature": f"RuntimeError {ATTACK}" if failed else None,
        "versions": f"bo-sweep 0, code 123456789abc {ATTACK}",
    }


def make_ledger(folder: Path, space: SearchSpace | None = None, fate: Fate = fate_of) -> Ledger:
    """A sweep in `folder`, each run with its fate: done, diverged, failed, unfinished (half its rows) or waiting."""
    space = space or load_space("digits-grid", [*SPACE, f"description={json.dumps(ATTACK)}"])
    ledger = Ledger(folder)
    runs = expand(space)
    ledger.write_manifest(Manifest(folder.name, space, launches=1, created="2026-01-01T00:00:00"))
    ledger.add_runs(runs, space.axis, 1)
    write_runs(ledger, runs, fate)
    return ledger


def write_runs(ledger: Ledger, runs: list[Run], fate: Fate, stem: str = "pack") -> None:
    """Rows, then ends, of those runs."""
    fates = {run: fate(run) for run in runs}
    ended = {run: status for run, status in fates.items() if status in ("done", "diverged", "failed")}
    begun = {run: 3 for run, status in fates.items() if status == "unfinished"}
    begun |= {run: len(EPOCHS) for run, status in ended.items() if status != "failed"}
    rows = [row for run, evaluations in begun.items() for row in rows_of(run, evaluations)]
    if rows:
        ledger.write_rows(f"{stem}-rows", rows)
    if ended:
        ledger.write_ends(f"{stem}-ends", [end_of(run, status) for run, status in ended.items()])


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser; skips where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for found in map(shutil.which, names) if found), None)
    if path is None:
        pytest.skip(f"no browser ({', '.join(names)}) is installed: make browser")
    from playwright.sync_api import sync_playwright

    options: Any = {"args": ["--no-sandbox", "--disable-gpu"], "timeout": 1000 * PATIENCE_SECONDS}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, **options)
        yield browser
        browser.close()
