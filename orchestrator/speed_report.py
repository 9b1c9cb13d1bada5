"""Measured speeds of workers as text for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.bottleneck import Advice
from orchestrator.calibration import Rate
from orchestrator.worker_speed import Bench
from search_spaces.spec import SearchSpace

COLUMNS = ("loader", "step", "both", "forward")
FOUND: dict[str | None, str] = {
    "loader": "loading is what training waits for",
    "step": "the training step is what takes the time",
    None: "the step alone was measured, on random images",
}


def report(space: SearchSpace, benches: Sequence[Bench]) -> RenderableType:
    """A table of images/s, a row a width, then the bottleneck of each and what to change."""
    first = benches[0].measurement
    assert first is not None
    conditions = first.conditions
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("width", *COLUMNS, "slower", "pack"):
        table.add_column(name, justify="right", no_wrap=True)
    for bench in benches:
        rates = (_rate_text(getattr(bench.measurement, name)) for name in COLUMNS)
        assert bench.measurement is not None
        pack = f"{bench.measurement.pack_gain:.2f} x ({bench.measurement.pack_size} runs)"
        table.add_row(str(bench.width), *rates, (bench.advice and bench.advice.slower) or "", pack)
    lines = [
        f"{space.name} on {first.device}: images/s as median (min..max), n={first.rounds}",
        f"{conditions.architecture}, {conditions.resolution} px, batches of {conditions.batch_size}, "
        f"{conditions.precision}, augmentation {conditions.augmentation}, {_threads(conditions.threads)}",
    ]
    return Group(Text("\n".join(lines)), table, Text("\n".join(("", *_conclusions(benches)))))


def _conclusions(benches: Sequence[Bench]) -> list[str]:
    """What to do, once for all widths that share it."""
    widths: dict[Advice, list[int]] = {}
    for bench in benches:
        assert bench.advice is not None
        widths.setdefault(bench.advice, []).append(bench.width)
    lines = []
    for advice, which in widths.items():
        lines.append(f"Width {', '.join(map(str, which))}: {FOUND[advice.slower]}. What to change:")
        lines += [f"  - {step}" for step in advice.steps]
    return lines


def _rate_text(rate: Rate | None) -> str:
    return "not measured" if rate is None else f"{rate.median:,.0f} ({rate.min:,.0f}..{rate.max:,.0f})"


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"
