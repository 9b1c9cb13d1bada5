"""Opening a report in a browser, by the size of its sweep.

A generated sweep of 500 cells and 1,500 runs, of 32 and of 200 evaluations each, all numbers with all of their digits;
headless Chromium opens the file anew in every round, without a network. Times are the page's own, from the start of the
navigation (or the click) to two frames after the last change, so what is counted has been painted.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.measuring.children import scratch_folder
from benchmarks.measuring.figures import Figure, Goal
from benchmarks.measuring.machine import when_free

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from orchestrator.ledger import Ledger

ROUNDS, QUICK_ROUNDS = 12, 2
GOAL_SECONDS = 2.0
EVALUATIONS = (32, 200)
WIDTHS, RATES, SEEDS = range(4, 104, 4), 20, 3
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
STOPWATCH = """() => {
  const note = (name) => { window[name] ??= performance.now(); };
  const after = (name) => requestAnimationFrame(() => requestAnimationFrame(() => note(name)));
  new MutationObserver(() => {
    if (document.documentElement.dataset.ready) after("mapDrawn");
    if (document.getElementById("curves")?.dataset.drawn) after("curvesDrawn");
  }).observe(document, { subtree: true, childList: true, attributes: true });
}"""
"""Runs before the page's own script, beside it: notes when the map and when the curves stood on the screen."""

CLICK = """() => {
  const now = performance.now();
  document.querySelector('[data-cell="0.2/60/500"]').click();
  return now;
}"""


def measure(quick: bool) -> Iterator[Figure]:
    """Seconds to the map and to a cell's curves, the file's size, and the seconds that writing it takes."""
    from playwright.sync_api import sync_playwright

    path = next((found for found in map(shutil.which, BROWSERS) if found), None)
    if path is None:
        raise OSError(f"no browser ({', '.join(BROWSERS)}) is installed: make browser")
    with scratch_folder() as scratch, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for evaluations in EVALUATIONS:
            yield from _of_one(browser, scratch, evaluations, QUICK_ROUNDS if quick else ROUNDS)
        browser.close()


def _of_one(browser: Browser, scratch: Path, evaluations: int, rounds: int) -> Iterator[Figure]:
    from orchestrator.report.contents import Commands
    from orchestrator.report.page import write_report

    ledger = generated_sweep(scratch / f"sweep-{evaluations}", evaluations)
    commands = Commands(*(f"bo-sweep {name} sweep" for name in ("reproduce", "logs", "launch")))
    started = time.perf_counter()
    report = write_report(ledger, commands, scratch / f"{evaluations}.html")
    written = time.perf_counter() - started
    taken = [when_free(lambda: opened(browser, Path(report.location).as_uri())) for _ in range(rounds)]
    goal = Goal(GOAL_SECONDS, is_least=False)
    name = f"500 cells, 1,500 runs of {evaluations} evaluations"
    yield Figure(f"{name}: heat map drawn", tuple(each["map"] for each in taken), "s", goal)
    yield Figure(f"{name}: opened at a cell, its curves drawn", tuple(each["curves"] for each in taken), "s", goal)
    yield Figure(f"{name}: from a click to another cell's curves", tuple(each["click"] for each in taken), "s")
    yield Figure(f"{name}: file", (report.size / 1e6,), "MB")
    yield Figure(f"{name}: read, analyse and write", (written,), "s")


def opened(browser: Browser, address: str) -> dict[str, float]:
    """Seconds until the map and a cell's curves stand on a fresh page, and from a click to the curves of another."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.add_init_script(f"({STOPWATCH})()")
    page.goto(f"{address}#cell=0.2%2F40%2F500")
    page.locator("#curves[data-drawn='0.2/40/500']").wait_for()
    page.wait_for_timeout(500)
    found = {name: page.evaluate(f"() => window.{name}Drawn") / 1e3 for name in ("map", "curves")}
    page.evaluate("() => { window.curvesDrawn = undefined; }")
    clicked = page.evaluate(CLICK)
    page.locator("#curves[data-drawn='0.2/60/500']").wait_for()
    page.wait_for_timeout(200)
    found["click"] = (page.evaluate("() => window.curvesDrawn") - clicked) / 1e3
    page.close()
    return found


def generated_sweep(folder: Path, evaluations: int) -> Ledger:
    """A finished sweep of 500 cells and 1,500 runs without training."""
    import pyarrow.compute as pc

    from benchmarks.measuring.generated import epoch_rows
    from orchestrator.ledger import Ledger, Manifest
    from search_spaces.catalog import load_space
    from search_spaces.runs import expand

    rates = [round(0.02 * i, 2) for i in range(RATES)]
    space = load_space("digits-grid", [f"widths={list(WIDTHS)}", f"noise.rates={rates}", f"seeds={SEEDS}"])
    runs = expand(space)
    ledger = Ledger(folder)
    ledger.write_manifest(Manifest("sweep", space, launches=1, created="2026-01-01T00:00:00"))
    ledger.add_runs(runs, space.axis, 1_000_000)
    rows = epoch_rows([run.run_id for run in runs], np.random.default_rng(0))
    ledger.write_rows("rows", rows.filter(pc.less(rows["evaluation"], evaluations)))
    facts: dict[str, Any] = {"attempt": 1_000_000, "status": "done", "evaluations": evaluations, "seconds": 10.0}
    facts |= {"mask_hash": "m", "subset_hash": "s", "device": "cpu", "versions": "generated"}
    ends = [facts | {"run_id": run.run_id, "noise_rate_realised": run.noise.rate} for run in runs]
    ledger.write_ends("ends", ends)
    return ledger
