"""Finding a phase boundary of real networks: `launch --refine` against a dense grid of digits.

Where the final test error of the tiny ResNet crosses 0.2, at six noise rates from 0.05 to 0.3: real launches, trained
for 30 epochs. The reference is the surface of a dense grid, 12 widths, 7 rates and 2 seeds, 168 runs; the search starts
from 24 of them and has 40 more. Regular grids of fewer cells are taken out of the dense one, so they share its runs and
come out too well. One launch of each: an error is that of one noise rate, the distance in log p/n from the reference.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.measuring.children import scratch_folder
from benchmarks.measuring.figures import Figure
from orchestrator.analysis.observations import root
from orchestrator.analysis.surface import crossings
from orchestrator.ledger import Ledger
from orchestrator.refine.proposer import Key, fit_outcomes
from orchestrator.refine.rounds import outcomes_in
from search_spaces.runs import count_beside, expand
from search_spaces.spec import SearchSpace

LEVEL, SEEDS, BUDGET = 0.2, 2, 40
WIDTHS = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32)
RATES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
COARSE_WIDTHS, COARSE_RATES = (2, 5, 12, 32), (0.0, 0.15, 0.3)
REGULAR = {
    "4 widths, 3 rates": (COARSE_WIDTHS, COARSE_RATES),
    "6 widths, 4 rates": (WIDTHS[::2], RATES[::2]),
    "12 widths, 4 rates": (WIDTHS, RATES[::2]),
}
SHORT = ("recipe.epochs=30", "evaluation.points=4")
QUICK = ("recipe.epochs=1", "evaluation.points=2")


def measure(quick: bool) -> Iterator[Figure]:
    """The distance of each boundary from that of the dense grid."""
    widths, rates = (COARSE_WIDTHS, COARSE_RATES) if quick else (WIDTHS, RATES)
    short, budget = (QUICK, 4) if quick else (SHORT, BUDGET)
    with scratch_folder() as scratch, threadpool_limits(1):
        dense = launched(scratch, "dense", widths, rates, short)
        refine = ("--refine", f"err_last={LEVEL}", "--budget", str(budget))
        searched = launched(scratch, "searched", COARSE_WIDTHS, COARSE_RATES, short, *refine)
        yield from compare(dense, searched)


def compare(dense: Ledger, searched: Ledger) -> Iterator[Figure]:
    """Figures of two finished sweeps."""
    space, all_runs = dense.manifest().space, outcomes_of(dense)
    reference = located(space, all_runs)
    found = searched.manifest().space
    runs = len(expand(found))
    what = f"search, {runs} runs ({count_beside(found)} beside the grid): distance in log p/n"
    distances = _distances(located(found, outcomes_of(searched)), reference)
    if distances:  # after one epoch, in a quick look, no curve may cross the level
        yield Figure(what, distances, details={"runs": runs})
    for name, (widths, rates) in REGULAR.items():
        if not set(widths) <= set(space.widths or ()) or not set(rates) <= set(space.noise.rates):
            continue  # a quick look has no dense grid
        some = {key: value for key, value in all_runs.items() if key[0] in rates and key[1] in widths}
        what = f"grid, {name}, {len(some)} of the {len(all_runs)} runs: distance in log p/n"
        yield Figure(what, _distances(located(space, some), reference), details={"runs": len(some)})


def launched(
    scratch: Path, name: str, widths: Sequence[int], rates: Sequence[float], short: Sequence[str], *options: str
) -> Ledger:
    """The ledger of a sweep that was trained by the command."""
    sets = (f"widths={list(widths)}", f"noise.rates={list(rates)}", f"seeds={SEEDS}", *short)
    command = [sys.executable, "-m", "orchestrator.cli", "launch", "digits-grid", "--name", name, "--no-figures"]
    command += ["--storage", str(scratch), *(part for each in sets for part in ("--set", each)), *options]
    subprocess.run(command, check=True)
    return Ledger(scratch / name)


def outcomes_of(ledger: Ledger) -> dict[Key, float | None]:
    """The final test error of every run."""
    return outcomes_in(ledger, ledger.manifest().space, "err_last")


def located(space: SearchSpace, outcomes: Mapping[Key, float | None]) -> np.ndarray:
    """Log p/n where the surface last falls below LEVEL, for each of RATES but 0; nan where it does not."""
    surface = fit_outcomes(space, outcomes, LEVEL)
    logs = surface.observations.points[:, 0]
    grid = np.linspace(logs.min(), logs.max(), 1000)
    found = []
    for rate in RATES[1:]:
        mean, _ = surface.mean_and_doubt(np.column_stack([grid, np.full(len(grid), rate)]))
        found.append(float(crossings(grid, mean[:, None], float(root(LEVEL)))[1][0]))
    return np.where(np.isfinite(found), found, np.nan)


def _distances(found: np.ndarray, reference: np.ndarray) -> tuple[float, ...]:
    """Where both cross."""
    distances = np.abs(found - reference)
    return tuple(distances[np.isfinite(distances)].tolist())
