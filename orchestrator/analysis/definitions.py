"""What is measured and what it is called: the metrics, their thresholds and the phases."""

from __future__ import annotations

from dataclasses import dataclass

INTERPOLATION_ERROR = 0.01  # train error on the given labels at which a network counts as interpolating
EMC_ERROR = 0.1  # the looser threshold of effective model complexity, Nakkiran et al., "Deep Double Descent"
CATASTROPHIC_SHARE = 0.9  # of the error of a uniform guess, 1 - 1/C
ROUNDING = 1e-8  # a rate stored as float32, or a mean of equal numbers, must still meet its own threshold

DECIDED_PHASES = ("underfit", "benign", "tempered", "catastrophic")
PHASES = (*DECIDED_PHASES, "undecided", "diverged", "missing")

INTERVAL = 0.95  # probability with which the interval of a mean is to hold it


@dataclass(frozen=True)
class Metric:
    """How a metric is called in a figure, its unit, and the one sentence that defines it there."""

    label: str
    unit: str
    definition: str


METRICS: dict[str, Metric] = {
    "err_last": Metric("final test error", "fraction", "Test error on clean labels at the end of training."),
    "err_best": Metric("best test error", "fraction", "Lowest test error over training (oracle early stopping)."),
    "err_valsel": Metric(
        "early-stopped test error",
        "fraction",
        "Test error at the evaluation with the lowest validation error (the first if tied).",
    ),
    "gap_err": Metric("benign gap", "fraction", "Final minus lowest test error over training (oracle early stopping)."),
    "gap_loss": Metric("benign gap of the loss", "loss", "Final minus lowest test loss over training (oracle)."),
    "gap_valsel": Metric(
        "held-out gap",
        "fraction",
        "Final test error minus that at the evaluation with the lowest validation error; may be negative.",
    ),
    "noise_cost": Metric(
        "noise cost",
        "fraction",
        "Final test error minus that of the clean twin (noise rate 0; same seed, width and samples).",
    ),
    "excess_risk": Metric(
        "excess risk",
        "fraction",
        "Final test error minus the Bayes error (exact) or minus the best mean error of a clean cell (proxy).",
    ),
    "train_error_last": Metric(
        "final train error", "fraction", "Error on the given (noisy) train labels at the end of training."
    ),
    "interpolates": Metric("interpolating runs", "fraction", "Share of runs whose final train error is at most 0.01."),
    "interpolation_epoch": Metric(
        "interpolation epoch",
        "epochs",
        "First epoch with train error at most 0.01; only where all runs reach it.",
    ),
    "emc_epoch": Metric(
        "EMC epoch", "epochs", "First epoch with train error at most 0.1; only where all runs reach it."
    ),
    "memorised": Metric(
        "memorised", "fraction", "Share of corrupted train examples predicted as their given, wrong label."
    ),
    "recovered": Metric("recovered", "fraction", "Share of corrupted train examples predicted as their true label."),
}

# These are censored: the mean of those runs that got there would look fast exactly where few do.
CENSORED = ("interpolation_epoch", "emc_epoch")

BOUNDARY_LEVELS = {
    **dict.fromkeys(("err_last", "err_best", "err_valsel"), 0.1),
    **dict.fromkeys(("gap_err", "gap_valsel"), 0.02),
    **dict.fromkeys(("noise_cost", "excess_risk"), 0.05),
    "train_error_last": INTERPOLATION_ERROR,
    **dict.fromkeys(("interpolates", "memorised", "recovered"), 0.5),
}
"""Where a boundary of a metric is drawn, unless a space or its user says otherwise. Of the others there is no level
that would suit every task."""
