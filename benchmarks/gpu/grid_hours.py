"""The GPU-hours of the whole cifar10-grid, with packs and without, by the speeds that were measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.gpu.verdicts import Line, lacking
from search_spaces.memory import evaluated_samples, trained_samples
from search_spaces.packs import Pack, group_packs
from search_spaces.runs import Run, expand

GRID = "cifar10-grid"
FORWARD = 1 / 3
"""Of the arithmetic of a training step: what an evaluation costs for each sample."""


@dataclass(frozen=True)
class Speeds:
    """Samples x models a second of one width: one model alone in one process, and packs by their number of models."""

    alone: float
    packed: Mapping[int, float]

    def of(self, models: int) -> float:
        """Of the largest measured pack that is not larger."""
        if models == 1:
            return self.alone
        return self.packed[max((size for size in self.packed if size <= models), default=min(self.packed))]


def grid_hours(measured: Mapping[int, Speeds]) -> Iterator[Line]:
    """Every run alone; packs of runs that differ in their noise; and packs of all seeds too, with one data stream."""
    title = f"{GRID}, GPU-hours"
    try:
        from search_spaces.catalog import load_space
    except ImportError:
        yield lacking(title, "PyYAML")
        return
    if not measured:
        return
    runs, shared = expand(load_space(GRID)), expand(load_space(GRID, ["recipe.shared_stream=true"]))
    alone = hours([Pack((run,)) for run in runs], measured)
    between = sorted({run.width for run in runs} - set(measured))
    how = "steps alone, no data stream; evaluations count a third of a trained sample"
    if between:
        how += f"; widths {', '.join(map(str, between))} between measured ones, or as the nearest"
    yield Line(f"{title}: {len(runs)} runs, one process a run", f"{alone:,.1f} h ({how})")
    for name, members in (("by noise rate", runs), ("with recipe.shared_stream", shared)):
        packs = group_packs(members, "auto")
        packed = hours(packs, measured)
        largest = max(len(pack.runs) for pack in packs)
        what = f"{title}: {len(packs)} packs of up to {largest}, {name}"
        yield Line(what, f"{packed:,.1f} h (one process a run takes {alone / packed:.2f} times as long)")


def hours(packs: Sequence[Pack], measured: Mapping[int, Speeds]) -> float:
    """Of all packs, one after another."""
    seconds = 0.0
    for pack in packs:
        work = sum(work_of(run) for run in pack.runs)
        seconds += work / between_widths(measured, pack.runs[0].width, len(pack.runs))
    return seconds / 3600


def work_of(run: Run) -> float:
    """In trained samples."""
    return trained_samples(run) + FORWARD * evaluated_samples(run)


def between_widths(measured: Mapping[int, Speeds], width: int, models: int) -> float:
    """Samples x models a second: between measured widths linear in their logarithms, beyond them as the nearest."""
    widths = sorted(measured)
    found = np.interp(np.log(width), np.log(widths), [np.log(measured[each].of(models)) for each in widths])
    return float(np.exp(found))
