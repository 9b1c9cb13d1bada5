"""Lanes: the shapes that the runs of a space are trained in, and how many workers of each run side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.estimate import guess_in_shape
from orchestrator.slots import Hardware, count_slots, process_bytes
from search_spaces.resources import Resources
from search_spaces.runs import Run
from search_spaces.shapes import Shape, shape_for


class ResourceError(ValueError):
    """The hardware cannot hold even one worker of the shape that is asked for."""


@dataclass(frozen=True)
class Lane:
    """A shape of worker.

    Attributes:
        slots: workers that run side by side, where they have the hardware to themselves.
        process_bytes: what each of their processes may fill with models.
    """

    shape: Shape
    slots: int
    process_bytes: float


@dataclass(frozen=True)
class Lanes:
    """All lanes of a space. Runs of one width and sample count, and so those of a pack, share a lane."""

    lanes: tuple[Lane, ...]
    by_size: Mapping[tuple[int, int], int]
    """The number of the lane, by width and samples."""

    def number(self, run: Run) -> int:
        """The number of a run's lane."""
        return self.by_size[run.width, run.samples]

    def lane(self, run: Run) -> Lane:
        return self.lanes[self.number(run)]

    def slots(self, number: int) -> int:
        """Workers of a lane that run side by side."""
        return self.lanes[number].slots

    def seconds(self, run: Run) -> float:
        """Seconds of a run by arithmetic: the unit in which progress is told, and packs are shared out."""
        return guess_in_shape(run, self.lane(run).shape)

    @property
    def most_slots(self) -> int:
        """Workers of the most numerous lane."""
        return max(lane.slots for lane in self.lanes)

    def average_slots(self, runs: Sequence[Run], seconds: Callable[[Run], float]) -> float:
        """Workers side by side, on average over the time of `runs` if lane follows upon lane."""
        work = [(seconds(run), self.lane(run).slots) for run in runs]
        alone = sum(each / slots for each, slots in work)
        return sum(each for each, _ in work) / alone if alone else float(self.most_slots)


def lanes_for(
    runs: Sequence[Run],
    resources: Resources,
    hardware: Hardware,
    *,
    workers: int | None = None,
    anywhere: bool = False,
) -> Lanes:
    """The lanes of all runs of a space, with at most `workers` workers each.

    `anywhere` plans for a machine that can hold the workers where this hardware cannot.

    Raises:
        ResourceError: of some shape not even one worker fits; the message says what is there.
    """
    by_size: dict[tuple[int, int], Shape] = {}
    for run in runs:
        if (run.width, run.samples) not in by_size:
            by_size[run.width, run.samples] = shape_for(run, resources)
    shapes = sorted(set(by_size.values()))
    lacking = [shape for shape in shapes if not count_slots(shape, hardware)]
    if lacking and anywhere:
        hardware = _larger(hardware, lacking)
    elif lacking:
        change = "--gpus-per-run 0 --set resources.cpus_per_worker=1 trains on CPUs"
        if hardware.gpus:
            change = "--gpus-per-run, --set resources.cpus_per_worker=1"
        raise ResourceError(
            f"one worker asks for {', '.join(f'{shape}' for shape in lacking)}. There are {hardware.cpus:g} CPUs and "
            f"{hardware.gpus:g} GPUs. Use a larger machine or --address, or change the shape: {change}"
        )
    lanes = []
    for shape in shapes:
        fitting = count_slots(shape, hardware)
        slots = min(fitting, workers) if workers else fitting
        lanes.append(Lane(shape, slots, process_bytes(shape, hardware, slots, resources.gpu_memory_gb)))
    return Lanes(tuple(lanes), {size: shapes.index(shape) for size, shape in by_size.items()})


def _larger(hardware: Hardware, shapes: Sequence[Shape]) -> Hardware:
    cpus = max(hardware.cpus, *(shape.total_cpus for shape in shapes))
    gpus = max(hardware.gpus, *(shape.total_gpus for shape in shapes))
    return Hardware(cpus, gpus, hardware.memory_bytes_per_cpu)
