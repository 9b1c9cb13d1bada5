"""A pack of the Gaussian mixture: the exact gradient-flow path for several label vectors on the same vectors."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from search_spaces.runs import Run
from search_spaces.schedule import flow_times
from search_spaces.spec import FlowRecipe
from workers.betons import betons_for, true_labels
from workers.data import noisy_labels
from workers.evaluation import Row
from workers.flow import gradient_flow
from workers.loader import load_all, open_stream
from workers.member import RunEnd
from workers.subsets import digest, stratified_subset
from workers.theory import bayes_error, clean_error
from workers.train import Progress, peak_memory_bytes

BATCH = 256
CPU = torch.device("cpu")


def train_flow_pack(runs: Sequence[Run], folder: Path) -> Iterator[Progress]:
    """Solve a pack of gradient-flow runs; yields once, with every row of every run.

    The path has a closed form in the eigenvectors of the smaller Gram matrix, which all label vectors share. Test error
    and loss are exact expectations over the mixture, since the classifier is linear.
    """
    started = time.perf_counter()
    run = runs[0]
    recipe, signal = run.recipe, run.dataset.signal
    assert isinstance(recipe, FlowRecipe)
    assert signal is not None
    times = np.array(flow_times(recipe, run.evaluation))
    betons = betons_for(
        run.dataset.described, folder, seed=run.seed, samples=run.samples, dimension=run.parameters, signal=signal
    )
    pool_labels = true_labels(betons.train)
    subset = stratified_subset(pool_labels, run.samples, dataset=run.dataset.name, seed=run.seed)
    stream = open_stream(betons.train, batch_size=BATCH, resolution=1, pixel_mean=(), pixel_std=(), device=CPU)
    vectors, _ = load_all(stream, subset)
    inputs = vectors[:, : run.parameters].numpy().astype(np.float64)
    true = pool_labels[subset]
    given = np.stack([noisy_labels(member, pool_labels, subset) for member in runs], axis=1)
    targets: NDArray[np.float64] = 2.0 * given.astype(np.float64) - 1.0
    flow = gradient_flow(inputs, targets, times)

    rows: list[Row] = []
    ended: list[RunEnd] = []
    seconds = time.perf_counter() - started
    for k, member in enumerate(runs):
        corrupted = given[:, k] != true
        for t, flow_time in enumerate(times):
            row = _train_metrics(flow.predictions[t, :, k], given[:, k], true)
            row |= _test_metrics(flow.signal_weight[t, k], flow.squared_norm[t, k], signal)
            rows.append(
                row
                | {
                    "run_id": member.run_id,
                    "evaluation": t,
                    "step": t,
                    "epoch": float(flow_time),
                    "images_per_second": run.samples / seconds,
                    "wall_seconds": seconds,
                    "peak_memory_bytes": peak_memory_bytes(CPU),
                }
            )
        ended.append(
            RunEnd(
                member.run_id,
                "done",
                digest(corrupted),
                digest(subset),
                float(corrupted.mean()),
                seconds / len(runs),
                len(times),
                engine=None,
            )
        )
    yield Progress(rows, ended, 1.0)


def _train_metrics(scores: NDArray[np.float64], given: NDArray[np.int64], true: NDArray[np.int64]) -> dict[str, Any]:
    """Train metrics from scores [n] and labels [n] in {0, 1}; the loss is (score - y)^2 / 2 with y = +-1."""
    corrupted = given != true
    predicted = (scores > 0).astype(np.int64)
    loss_given = 0.5 * (scores - (2.0 * given - 1.0)) ** 2
    loss_true = 0.5 * (scores - (2.0 * true - 1.0)) ** 2

    def mean(values: NDArray[Any]) -> float | None:
        return float(values.mean()) if len(values) else None

    return {
        "train_loss_given": mean(loss_given),
        "train_error_given": mean(predicted != given),
        "train_loss_true": mean(loss_true),
        "train_error_true": mean(predicted != true),
        "clean_loss": mean(loss_given[~corrupted]),
        "clean_error": mean((predicted != given)[~corrupted]),
        "corrupted_loss_given": mean(loss_given[corrupted]),
        "corrupted_error_given": mean((predicted != given)[corrupted]),
        "memorised": mean((predicted == given)[corrupted]),
        "recovered": mean((predicted == true)[corrupted]),
    }


def _test_metrics(signal_weight: float, squared_norm: float, signal: float) -> dict[str, float]:
    """Exact clean test error, excess risk, and half squared error, of w with w.e1 and |w|^2 on x = y R e1 + z."""
    error = float(clean_error(signal_weight, squared_norm, signal))
    bayes = float(bayes_error(signal))
    loss = 0.5 * ((1 - signal * signal_weight) ** 2 + squared_norm)
    assert math.isfinite(loss)
    return {"test_loss": float(loss), "test_error": error, "excess_risk": error - bayes}
