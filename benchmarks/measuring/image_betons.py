"""Betons of made-up images, written by FFCV's own writer, so that every way of reading can be held against it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

SIDE = 32
"""Of small images, in pixels."""


def write_images(path: Path, samples: Any, **options: Any) -> None:
    """A beton of `samples` (indexed: pixels and label) with fields "image" and "label".

    Args:
        options: what FFCV's image field is told.
    """
    import numpy as np

    from workers import quiet_ffcv as ffcv

    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {"image": ffcv.RGBImageField(**options), "label": ffcv.IntField()}
    np.random.seed(0)  # FFCV draws from it which images become JPEG
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):  # its progress bar
        ffcv.DatasetWriter(str(path), fields, num_workers=1).from_indexed_dataset(samples)


def write_small_images(path: Path, count: int, classes: int = 10) -> None:
    """Random ones of CIFAR's size, raw: those cost the same whatever they show."""
    from benchmarks.gpu.data import cifar_images

    labels = (number % classes for number in range(count))
    write_images(path, list(zip(cifar_images(count), labels, strict=True)), write_mode="raw")
