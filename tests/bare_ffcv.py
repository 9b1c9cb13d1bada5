"""All images of a feed; of FFCV as it comes in a process that imports this and nothing of ours that changes FFCV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measuring.feeds import Feed, View, open_bare_ffcv


def read_all(feed: Feed) -> NDArray[np.float32]:
    """float32 [images, 3, resolution, resolution] of the first epoch."""
    images: NDArray[np.float32] = torch.cat([inputs.clone() for inputs, _ in feed(0)]).numpy()
    return images


def read_bare(path: Path, view: View) -> NDArray[np.float32]:
    """A whole beton."""
    return read_all(open_bare_ffcv(path, view, batch_size=5, workers=1))
