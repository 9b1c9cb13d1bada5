"""Metrics of one evaluation, from per-sample losses and predictions (definitions: workers/schema.py)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Predictions:
    """Per-sample results of a model on one set: class [m] int64 and cross-entropy [m] float32, in nats."""

    predicted: Tensor
    loss_given: Tensor
    loss_true: Tensor


def predictions(logits: Tensor, given: Tensor, true: Tensor) -> Predictions:
    """Read logits [m, C] against given and true labels [m] int64."""
    log_probabilities = functional.log_softmax(logits.float(), dim=1)
    loss_given = -log_probabilities.gather(1, given[:, None])[:, 0]
    loss_true = loss_given if given is true else -log_probabilities.gather(1, true[:, None])[:, 0]
    return Predictions(logits.argmax(dim=1), loss_given, loss_true)


def concatenate(parts: list[Predictions]) -> Predictions:
    """Join the predictions of consecutive batches; an empty set has none."""
    if not parts:
        return Predictions(torch.empty(0, dtype=torch.int64), torch.empty(0), torch.empty(0))
    return Predictions(
        torch.cat([part.predicted for part in parts]),
        torch.cat([part.loss_given for part in parts]),
        torch.cat([part.loss_true for part in parts]),
    )


def _mean(values: Tensor) -> float | None:
    """Mean in float64, or None where there is nothing to average."""
    return values.double().mean().item() if len(values) else None


def train_metrics(result: Predictions, given: Tensor, true: Tensor) -> dict[str, float | None]:
    """Metrics on training examples with given and true labels [m] int64; shares over an empty part are None."""
    corrupted = given != true
    wrong_given = result.predicted != given
    wrong_true = result.predicted != true
    return {
        "train_loss_given": _mean(result.loss_given),
        "train_error_given": _mean(wrong_given),
        "train_loss_true": _mean(result.loss_true),
        "train_error_true": _mean(wrong_true),
        "clean_loss": _mean(result.loss_given[~corrupted]),
        "clean_error": _mean(wrong_given[~corrupted]),
        "corrupted_loss_given": _mean(result.loss_given[corrupted]),
        "corrupted_error_given": _mean(wrong_given[corrupted]),
        "memorised": _mean(~wrong_given[corrupted]),
        "recovered": _mean(~wrong_true[corrupted]),
    }


def clean_metrics(result: Predictions, true: Tensor, prefix: str) -> dict[str, float | None]:
    """`{prefix}_loss` and `{prefix}_error` on clean labels [m] int64."""
    return {f"{prefix}_loss": _mean(result.loss_true), f"{prefix}_error": _mean(result.predicted != true)}
