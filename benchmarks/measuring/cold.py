"""A feed opened in a fresh process: how long until it hands out its first batch.

What both ways import in any case (PyTorch, NumPy, Pillow) is there before the clock starts.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring.children import Child, read_request, write_answer
from benchmarks.measuring.feeds import View


@dataclass(frozen=True)
class ColdStart:
    """Seconds to the first batch: from the imports of the loader on, and from the start of the command."""

    loader: float
    process: float


def start_cold(way: str, source: Path, view: View, batch_size: int, folder: Path) -> ColdStart:
    """Open a feed of `benchmarks.measuring.epochs.WAYS` in a process of its own, with one worker."""
    started = time.monotonic()
    begun, ended = Child("benchmarks.measuring.cold", (way, source, view, batch_size), folder).result()
    return ColdStart(loader=ended - begun, process=ended - started)


def main() -> None:
    """The child."""
    way, source, view, batch_size = read_request()
    from benchmarks.measuring.epochs import WAYS

    begun = time.monotonic()
    batches = WAYS[way](source, view, batch_size=batch_size, workers=1)(0)
    inputs, _ = next(batches)
    ended = time.monotonic()
    assert inputs.shape == (batch_size, 3, view.resolution, view.resolution)
    write_answer((begun, ended))


if __name__ == "__main__":
    main()
