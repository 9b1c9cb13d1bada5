"""Metrics of one evaluation, from per-sample losses and predictions (definitions: workers/schema.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Predictions:
    """Per-sample results on one set: class [m] int64 and cross-entropy [m] float32, in nats; of several models, all
    with their number in front, [models, m]."""

    predicted: Tensor
    loss_given: Tensor
    loss_true: Tensor

    def __getitem__(self, chosen: Tensor | int) -> Predictions:
        """Those of the samples that a mask, bool [m], chooses; of several models, those of one."""
        return Predictions(self.predicted[chosen], self.loss_given[chosen], self.loss_true[chosen])


def predictions(logits: Tensor, given: Tensor, true: Tensor) -> Predictions:
    """Read logits [m, C] against given and true labels [m] int64; of several models, logits [models, m, C] against
    given labels [models, m], or [m] where they share them."""
    log_probabilities = functional.log_softmax(logits.float(), dim=-1)

    def loss(labels: Tensor) -> Tensor:
        return -log_probabilities.gather(-1, labels.expand(logits.shape[:-1])[..., None])[..., 0]

    loss_given = loss(given)
    return Predictions(logits.argmax(dim=-1), loss_given, loss_given if given is true else loss(true))


def concatenate(parts: Sequence[Predictions], device: torch.device) -> Predictions:
    """Join the predictions of consecutive batches; an empty set has none, on the device."""
    if not parts:
        none = torch.empty(0, device=device)
        return Predictions(none.long(), none, none)
    return Predictions(
        torch.cat([part.predicted for part in parts], dim=-1),
        torch.cat([part.loss_given for part in parts], dim=-1),
        torch.cat([part.loss_true for part in parts], dim=-1),
    )


def _mean(values: Tensor) -> float | None:
    """Mean in float64, or None where there is nothing to average."""
    return values.double().mean().item() if len(values) else None


@dataclass(frozen=True)
class Labelled:
    """Predictions on training examples, with their given and true labels [m] int64."""

    result: Predictions
    given: Tensor
    true: Tensor


def train_metrics(fixed: Labelled, beyond: Labelled | None = None) -> dict[str, float | None]:
    """Metrics on training examples; shares over an empty part are None.

    Args:
        fixed: the train set, or the part of it that every evaluation goes through.
        beyond: the corrupted examples that are not in that part: they count in the metrics of corrupted examples only,
            which so are over all of them.
    """
    result, given, true = fixed.result, fixed.given, fixed.true
    corrupted = given != true
    wrong_given = result.predicted != given
    wrong_true = result.predicted != true
    mislabelled = Labelled(result[corrupted], given[corrupted], true[corrupted])
    if beyond is not None:
        mislabelled = Labelled(
            concatenate([mislabelled.result, beyond.result], given.device),
            torch.cat([mislabelled.given, beyond.given]),
            torch.cat([mislabelled.true, beyond.true]),
        )
    return {
        "train_loss_given": _mean(result.loss_given),
        "train_error_given": _mean(wrong_given),
        "train_loss_true": _mean(result.loss_true),
        "train_error_true": _mean(wrong_true),
        "clean_loss": _mean(result.loss_given[~corrupted]),
        "clean_error": _mean(wrong_given[~corrupted]),
        "corrupted_loss_given": _mean(mislabelled.result.loss_given),
        "corrupted_error_given": _mean(mislabelled.result.predicted != mislabelled.given),
        "memorised": _mean(mislabelled.result.predicted == mislabelled.given),
        "recovered": _mean(mislabelled.result.predicted == mislabelled.true),
    }


def clean_metrics(result: Predictions, true: Tensor, prefix: str) -> dict[str, float | None]:
    """`{prefix}_loss` and `{prefix}_error` on clean labels [m] int64."""
    return {f"{prefix}_loss": _mean(result.loss_true), f"{prefix}_error": _mean(result.predicted != true)}
