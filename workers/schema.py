"""The epoch row: what is measured at every evaluation of every run, typed, with units. One place names the columns."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """One column of the epoch rows; `unit` and `text` go into the Parquet schema's metadata."""

    name: str
    type: pa.DataType
    unit: str
    text: str

    def field(self) -> pa.Field:
        return pa.field(self.name, self.type, metadata={"unit": self.unit, "description": self.text})


_LOSS = "nats; half squared error under gradient flow"
_SHARE = "fraction in [0, 1]"

ROW_COLUMNS: tuple[Column, ...] = (
    Column("run_id", pa.string(), "", "hash of everything that can change the run's result"),
    Column("attempt", pa.int64(), "", "launch x 1,000,000 + packs handed out again in it so far; the later one counts"),
    Column("evaluation", pa.int32(), "", "0, 1, ... in the order of the run's evaluations"),
    Column("step", pa.int64(), "optimiser steps", "steps taken before this evaluation"),
    Column("epoch", pa.float64(), "passes over the data; flow time under gradient flow", "training time, may be inf"),
    Column("train_loss_given", pa.float64(), _LOSS, "on given (noisy) labels, eval mode, no augmentation"),
    Column("train_error_given", pa.float64(), _SHARE, "on given (noisy) labels; interpolation is read from it"),
    Column("train_loss_true", pa.float64(), _LOSS, "same predictions against the true labels"),
    Column("train_error_true", pa.float64(), _SHARE, "same predictions against the true labels"),
    Column("clean_loss", pa.float64(), _LOSS, "over train examples whose given label is true"),
    Column("clean_error", pa.float64(), _SHARE, "over train examples whose given label is true"),
    Column("corrupted_loss_given", pa.float64(), _LOSS, "over corrupted train examples, against the given label"),
    Column("corrupted_error_given", pa.float64(), _SHARE, "over corrupted train examples, against the given label"),
    Column("memorised", pa.float64(), _SHARE, "of the corrupted train examples, predicted as the given label"),
    Column("recovered", pa.float64(), _SHARE, "of the corrupted train examples, predicted as the true label"),
    Column("val_loss", pa.float64(), _LOSS, "held-out samples, clean labels"),
    Column("val_error", pa.float64(), _SHARE, "held-out samples, clean labels"),
    Column("test_loss", pa.float64(), _LOSS, "test samples, clean labels; exact for the Gaussian mixture"),
    Column("test_error", pa.float64(), _SHARE, "test samples, clean labels; exact for the Gaussian mixture"),
    Column("excess_risk", pa.float64(), _SHARE, "test error minus Bayes error; Gaussian mixture only"),
    Column("batch_loss", pa.float64(), _LOSS, "mean training loss of the steps since the last evaluation"),
    Column("learning_rate", pa.float64(), "", "of the last step"),
    Column("images_per_second", pa.float64(), "1/s", "samples this run trained on over the pack's training seconds"),
    Column("wall_seconds", pa.float64(), "s", "since the pack began, evaluations included"),
    Column("peak_memory_bytes", pa.int64(), "bytes", "peak of the device (CUDA) or of the worker process (CPU)"),
)

ROWS = pa.schema([column.field() for column in ROW_COLUMNS])
"""Arrow schema of the epoch rows."""

TIMING_COLUMNS = ("images_per_second", "wall_seconds", "peak_memory_bytes")
"""Columns that differ when the same run is trained twice; all others are deterministic on CPU."""

RECURRING_COLUMNS = ("run_id", "attempt", "evaluation", "step", "epoch", "learning_rate", "peak_memory_bytes")
"""Columns whose values come again and again, so that a dictionary makes them small; elsewhere it is tried in vain."""
