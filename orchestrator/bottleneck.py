"""What holds a measured worker back, its data stream or its training step, and what to change about it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator.arithmetic import width_cost
from orchestrator.calibration import Measurement, Rate, wants_gpu
from search_spaces.runs import Run
from search_spaces.spec import Recipe, SearchSpace

SIDE_OVER_RESOLUTION = 400 / 224
"""Of the ImageNet file that ffcv-imagenet trains its ResNet18 from, the smaller of its two."""
Slower = Literal["loader", "step"]

SPREAD_ALLOWED = 0.25
"""Largest minus smallest speed over the median; beyond it something else was running."""
IDLE_SHARE = 0.25
"""A GPU that does less of the published multiply-adds than this has room for several runs."""


@dataclass(frozen=True)
class Advice:
    """Which of the two is slower, None where only the step was measured, and what to do, a sentence each."""

    slower: Slower | None
    steps: tuple[str, ...]


def judge(
    measurement: Measurement,
    space: SearchSpace,
    run: Run,
    *,
    data_folder: Path,
    pack_size: int,
    cpus: float,
    jpegs: bool,
) -> Advice:
    """What to change about a worker.

    Args:
        measurement: of `run`, which is one of `space`.
        data_folder: where the data set belongs.
        pack_size: runs of this width that a launch would put into one pack.
        cpus: CPUs of this machine.
        jpegs: whether images of the data set are stored as JPEG.
    """
    unsteady = _unsteady(measurement)
    if measurement.loader is None:
        missing = (
            f"{space.dataset.name} is not in the data folder. Prepare it, then measure again: "
            f"{prepare_command(space, data_folder)}"
        )
        return Advice(None, (missing, *unsteady))
    if measurement.loader.median < measurement.step.median:
        return Advice("loader", (*_faster_loading(measurement, space, pack_size, cpus, jpegs), *unsteady))
    return Advice("step", (*_faster_step(measurement, space, run), *unsteady))


def _faster_loading(
    measurement: Measurement, space: SearchSpace, pack_size: int, cpus: float, jpegs: bool
) -> tuple[str, ...]:
    assert measurement.loader is not None
    behind = measurement.step.median / measurement.loader.median
    now = space.resources.cpus_per_worker
    wanted = math.ceil(now * behind)
    steps = []
    gain = measurement.gain(pack_size)
    if pack_size / gain >= behind:
        return (f"nothing: a pack of {pack_size} runs shares one stream, and its steps take longer than its loading",)
    if pack_size > 1:
        steps.append(
            f"packs of {pack_size} runs share one stream here, and would need {math.ceil(behind * gain)} to hide "
            "loading: more noise rates cost little more time"
        )
    elif space.packing == "off" or space.packing == 1:
        steps.append("let runs that differ in their noise alone share one stream: --set packing=auto")
    if wanted <= cpus:
        steps.append(
            f"give a worker more CPUs to decode with: --set resources.cpus_per_worker={wanted} (now {now:g}), "
            "even if fewer workers then fit on the machine"
        )
    elif now < cpus:
        steps.append(
            f"give a worker more CPUs: --set resources.cpus_per_worker={cpus:g} (now {now:g}), "
            f"which is all that this machine has, and so fewer workers; {wanted} would keep up with the step"
        )
    if jpegs:
        side = 16 * round(SIDE_OVER_RESOLUTION * space.dataset.input_resolution / 16)
        facts = space.dataset.described
        gigabytes = 3 * side**2 * (facts.train_samples + facts.test_samples) / 1e9
        steps.append(
            f"store images as pixels, which need no decoding and take up to {gigabytes:,.0f} GB (less with a smaller "
            f"side), for a sweep of its own with --data OTHER: {prepare_command(space, 'OTHER')} --raw {side}"
        )
    return tuple(steps) or ("take a machine with more or faster CPUs: a worker has all of this one already",)


def _faster_step(measurement: Measurement, space: SearchSpace, run: Run) -> tuple[str, ...]:
    assert isinstance(space.recipe, Recipe)
    steps = []
    gpus, threads = space.resources.gpus_per_worker, measurement.conditions.threads
    if wants_gpu(space.resources):
        reached = measurement.step.median * width_cost(run, run.width, on_gpu=True)
        if space.recipe.precision == "fp32":
            steps.append("bfloat16 is faster on GPUs, for a sweep of its own: --set recipe.precision=bf16")
        if reached < IDLE_SHARE:
            if gpus == 1:
                steps.append(
                    f"one run keeps {reached:.0%} of an A100's published speed busy: let several workers share a GPU: "
                    "--set resources.gpus_per_worker=0.25"
                )
        elif not isinstance(gpus, str) and gpus < 1:
            steps.append(
                "one run keeps a whole GPU busy, so that sharing it gains nothing: --set resources.gpus_per_worker=1"
            )
        steps.append("more GPUs train more runs side by side; each run is as fast as its GPU")
    else:
        if threads > 1:
            steps.append(
                "small networks gain little from more threads, and more workers help more: "
                "--set resources.cpus_per_worker=1"
            )
        steps.append("more CPUs train more runs side by side; loading is not what they wait for")
    return tuple(steps)


def _unsteady(measurement: Measurement) -> tuple[str, ...]:
    rates = (measurement.loader, measurement.step, measurement.both, measurement.forward)
    if all(rate is None or _spread(rate) <= SPREAD_ALLOWED for rate in rates):
        return ()
    return (f"rounds differ by over {SPREAD_ALLOWED:.0%}: measure again on a free machine, or with more --seconds",)


def _spread(rate: Rate) -> float:
    return (rate.max - rate.min) / rate.median


def prepare_command(space: SearchSpace, out: Path | str) -> str:
    """The command that writes the betons of the space's data set to `out`; the source is for the user to fill in."""
    kind = "folder" if space.dataset.facts else space.dataset.name
    return f"bo-sweep prepare {kind} --source SOURCE --out {out}"
