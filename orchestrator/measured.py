"""From a calibration to the time of runs: which measurements fit a sweep, and what they make of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from orchestrator.arithmetic import width_cost
from orchestrator.calibration import Calibration, Conditions, Measurement, threads_in, wants_gpu
from search_spaces.memory import evaluated_samples, trained_samples
from search_spaces.runs import Run
from search_spaces.shapes import Shape
from search_spaces.spec import FlowRecipe, Resources
from workers.device_names import cpu_name, gpu_names


@dataclass(frozen=True)
class MeasuredSpeeds:
    """What one device was measured to do under the conditions of a sweep, width by width."""

    measurements: tuple[Measurement, ...]
    _known: dict[tuple[int, Shape, int], tuple[float, float]] = field(default_factory=dict, compare=False)
    """What a sample takes, by width, shape and pack size: a plan asks for every run of a large sweep."""

    def seconds(self, run: Run, shape: Shape, pack_size: int = 1) -> float:
        """Seconds that `run` adds to its worker's time, in a pack of `pack_size` that shares one data stream.

        Each process of the shape counts as a whole worker, and a share of a GPU as that share of its speed.
        """
        key = (run.width, shape, pack_size)
        if key not in self._known:
            self._known[key] = self._sample_seconds(run, shape, pack_size)
        training, evaluation = self._known[key]
        return trained_samples(run) * training + evaluated_samples(run) * evaluation

    def _sample_seconds(self, run: Run, shape: Shape, pack_size: int) -> tuple[float, float]:
        """Seconds that the run takes for a sample in training, and in an evaluation.

        The step of each run counts in full, less what a pack was measured to gain. The stream counts once a pack, less
        what is hidden behind the steps: as large a part of the shorter of the two as in the measurement. An evaluation
        waits for the slower of forward pass, which gains as the step does, and stream.
        """
        measured = self.nearest(run, shape)
        slower = _cost(run, run.width, measured) / _cost(run, measured.width, measured)
        slower /= shape.processes * (shape.gpus or 1.0)
        slower /= measured.gain(pack_size) if shape.processes == 1 else 1.0
        load, hidden = _loading(measured)
        load *= measured.conditions.threads / (threads_in(shape) * shape.processes)
        steps = pack_size * slower / measured.step.median
        training = (steps + load - hidden * min(steps, load)) / pack_size
        return training, max(slower / measured.forward.median, load / pack_size)

    def nearest(self, run: Run, shape: Shape) -> Measurement:
        """The measurement of the width that is nearest in arithmetic to the run's, and of these in threads."""

        def distance(measured: Measurement) -> tuple[float, int, int]:
            costs = _cost(run, measured.width, measured) / _cost(run, run.width, measured)
            return abs(math.log(costs)), abs(measured.conditions.threads - threads_in(shape)), measured.width

        return min(self.measurements, key=distance)

    def basis(self, runs: Iterable[tuple[Run, Shape]]) -> str:
        """In words: which device, when, how often, and what had to be assumed for runs in their shapes."""
        kinds = {(run.width, shape): run for run, shape in runs}
        used = {(width, shape): self.nearest(run, shape) for (width, shape), run in kinds.items()}
        days = sorted({measured.measured for measured in used.values()})
        when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
        rounds = min(measured.rounds for measured in used.values())
        words = [f"measured on {next(iter(used.values())).device} on {when}, n={rounds}"]
        scaled = sorted({width for (width, _), measured in used.items() if measured.width != width})
        if scaled:
            words.append(f"scaled by arithmetic from the nearest width for {', '.join(map(str, scaled))}")
        if any(measured.both is None for measured in used.values()):
            words.append("the step alone: loading was not measured")
        elif any(measured.conditions.threads != threads_in(shape) for (_, shape), measured in used.items()):
            words.append("loading taken in proportion to threads")
        if any(0 < shape.gpus < 1 for _, shape in used):
            words.append("a share of a GPU taken as that share of its speed")
        if any(shape.processes > 1 for _, shape in used):
            words.append("several processes taken as so many times one")
        return "; ".join(words)


def speeds_for(
    calibration: Calibration, runs: Sequence[Run], resources: Resources, *, elsewhere: bool = False
) -> MeasuredSpeeds | None:
    """The measurements that fit the runs of one space; None where there are none.

    They were made under the very conditions of the runs, but for the width (and on GPUs for the threads, which only
    decode there), and on a device that is in this machine. Where the runs will not be trained here, they may be of any
    device of the kind: of that which was measured last. That is so with `elsewhere`, for a file that the user named,
    and for a GPU sweep on a machine without a GPU.
    """
    if not runs or isinstance(runs[0].recipe, FlowRecipe):
        return None
    conditions, kind = Conditions.of(runs[0], resources), "gpu" if wants_gpu(resources) else "cpu"
    free = {"threads"} if kind == "gpu" else set()
    fitting = [
        one
        for one in calibration.measurements
        if one.kind == kind and one.conditions.model_dump(exclude=free) == conditions.model_dump(exclude=free)
    ]
    if not fitting:
        return None
    here = gpu_names() if kind == "gpu" else {cpu_name()}
    local = [one for one in fitting if one.device in here]
    if not local and here and not (elsewhere or calibration.named):
        return None
    candidates = local or fitting
    device = max(candidates, key=lambda one: (one.measured, one.device)).device
    return MeasuredSpeeds(tuple(one for one in candidates if one.device == device))


def _cost(run: Run, width: int, measured: Measurement) -> float:
    return width_cost(run, width, on_gpu=measured.kind == "gpu")


def _loading(measured: Measurement) -> tuple[float, float]:
    """Seconds that the stream takes for an image, and the part of the shorter of stream and step that is hidden."""
    if measured.loader is None or measured.both is None:
        return 0.0, 1.0
    load, step, both = (1 / rate.median for rate in (measured.loader, measured.step, measured.both))
    return load, min(1.0, max(0.0, (load + step - both) / min(load, step)))
