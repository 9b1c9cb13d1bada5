"""What a dashboard says about itself: how to read its panels, and what they cannot tell. Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.analysis.definitions import CATASTROPHIC_SHARE, INTERPOLATION_ERROR, METRICS
from orchestrator.phase_diagram import describe
from search_spaces.spec import SearchSpace

FIGURES = (
    "The figures of `bo-sweep phase`, each with its caption, as they were when the summary was last published. The "
    "boundary is there where the space asks for one."
)
FAILURES = "Failed runs, most frequent cause first: `runs` counts those that failed with the same signature."
RUN_CURVES = (
    "One line a cell, averaged by W&B over its seeds; the band is their standard error. Only in sweeps whose runs were "
    "published one by one. W&B averages at most 100 runs of a group and thins curves of more than 10,000 points."
)
CELL_CURVES = (
    "Means over seeds, made from all rows of the ledger; the histories have the ends of their 95 % intervals as well "
    "(`..._low`, `..._high`). Only in sweeps that were published by cells. A cell is there when its seeds have ended."
)


def introduction(sweep: str, space: SearchSpace) -> str:
    """What was run, where the numbers are from, and what a cell is."""
    return "\n\n".join(
        (
            describe(space),
            "Each cell is a noise rate (the share of used training examples whose label is wrong) and a realised p/n "
            "(trainable parameters over used training examples). Errors are fractions; test labels are clean. "
            f"Here p/n is realised by {'the width' if space.axis == 'width' else 'the number of samples'}: ratios "
            "reached by width and by subset size are different experiments.",
            f"Everything comes from the ledger, which stays the only truth; `bo-sweep wandb publish {sweep}` brings "
            f"this up to date, and `bo-sweep report {sweep}` shows all of it on one page without W&B.",
        )
    )


def phase_diagram(space: SearchSpace, metrics: Sequence[str]) -> str:
    """Definitions of phases and metrics, and the caveats."""
    limits = space.analysis
    rule = (
        f"**Phase**: underfit (U), train error above {INTERPOLATION_ERROR:g}; catastrophic (C), final error at least "
        f"{CATASTROPHIC_SHARE:.0%} of a uniform guess; benign (B), gap at most {limits.tau:g} and noise cost at most "
        f"{limits.tau_cost:g}; tempered (T), otherwise; undecided (?), where no phase holds in {limits.confidence:.0%} "
        "of bootstrap resamples of the seeds, or with one seed. Diverged (\N{DAGGER}): every planned run did."
    )
    defined = [f"**{METRICS[metric].label}**: {METRICS[metric].definition}" for metric in metrics]
    caveat = (
        "The gap is biased upward by test-set noise in the oracle's minimum (its value at noise rate 0 is the floor), "
        "and it also closes when the *best* error gets worse: final error and noise cost come first."
    )
    empty = "Grey cells have no such number: no finished run, or none that gives it. Nothing is interpolated."
    lines = "\n".join(f"- {line}" for line in (rule, *defined))
    return f"{lines}\n\n{_MEANS} {empty} {caveat}"


def slices(space: SearchSpace) -> str:
    """What the lines and bands are."""
    return (
        f"Means of cells against p/n, a line for each noise rate. {_MEANS} Bands are these intervals; a line has a gap "
        "where a cell has no finished run. Cells beside the rows and columns of the grid are in the table only. "
        f"Where the train error (on given, noisy labels) falls to {INTERPOLATION_ERROR:g}, networks interpolate: "
        "around there the test error peaks if descent is double."
    )


_MEANS = "Means over finished seeds, with 95 % intervals: Student's t, or the studentised bootstrap from 10 seeds."
