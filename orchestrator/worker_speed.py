"""Measure the widths of a space on this machine, and keep what comes out in the calibration of the data folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.bottleneck import Advice, judge
from orchestrator.calibration import (
    FILE_NAME,
    Conditions,
    Measurement,
    Rate,
    add_to_calibration,
    read_calibration,
    wants_gpu,
)
from orchestrator.lanes import lanes_for
from orchestrator.slots import local_hardware
from orchestrator.storage import open_storage
from search_spaces.memory import run_bytes
from search_spaces.packs import group_packs
from search_spaces.runs import Run, expand
from search_spaces.spec import FlowRecipe, SearchSpace
from workers.device_names import cpu_name


@dataclass(frozen=True)
class Bench:
    """What came out for one width: speeds and advice, or why there are none."""

    width: int
    measurement: Measurement | None = None
    advice: Advice | None = None
    problem: str = ""


def runs_by_width(space: SearchSpace) -> dict[int, list[Run]]:
    """The runs of a space that has training steps to measure.

    Raises:
        ValueError: the space trains no network.
    """
    if isinstance(space.recipe, FlowRecipe):
        raise ValueError(
            f"{space.name} trains no network: {space.recipe.optimizer} is solved in closed form, and bo-sweep plan "
            "estimates it without a measurement. Choose a space with optimizer sgd or adam (bo-sweep spaces list)"
        )
    found: dict[int, list[Run]] = {}
    for run in expand(space):
        found.setdefault(run.width, []).append(run)
    return found


def check_calibration(data_folder: Path) -> None:
    """Find out before minutes of measuring that their result could not be kept.

    Raises:
        CalibrationError: the file that is there cannot be read. StorageError: the folder cannot be written.
    """
    open_storage(data_folder).check_writable()
    if (data_folder / FILE_NAME).exists():
        read_calibration(data_folder / FILE_NAME)


def bench_worker(
    space: SearchSpace,
    data_folder: Path,
    *,
    rounds: int,
    seconds: float,
    tell: Callable[[str], None] = lambda what: None,
) -> Iterator[Bench]:
    """Measure a run of each width of `space`, as one worker of its shape would train it; each is kept as it comes.

    Args:
        data_folder: has the betons, and gets the calibration.
        rounds: how often each speed is taken.
        seconds: how long each takes, at least.
        tell: called with what is measured next.

    Raises:
        ValueError: the space trains no network, or wants a GPU or CPUs that are not here, or the calibration that is
            there cannot be read. BetonError: the data set is damaged.
        StorageError: the calibration cannot be written.
    """
    widths = runs_by_width(space)
    check_calibration(data_folder)
    tell("importing torch")
    import torch

    from workers import fusion, speed

    device = torch.device("cuda" if wants_gpu(space.resources) else "cpu")
    name = speed.gpu_name() if wants_gpu(space.resources) else cpu_name()
    if name is None:
        raise ValueError(
            f"{space.name} gives each worker {space.resources.gpus_per_worker} GPUs, and torch sees none here. Run the "
            "command on a machine with a GPU and copy its calibration (bo-sweep plan --calibration PATH), or measure "
            "training on CPUs: --set resources.gpus_per_worker=0"
        )
    _check_cpus(space, [runs[0] for runs in widths.values()])
    for width, runs in widths.items():
        run = runs[0]
        conditions = Conditions.of(run, space.resources)
        try:
            speeds = speed.measure(
                run,
                data_folder,
                device,
                threads=conditions.threads,
                compile=space.resources.compile,
                rounds=rounds,
                seconds=seconds,
                tell=tell,
            )
        except speed.TooLargeError as error:
            yield Bench(width, problem=str(error))
            continue
        size = _pack_size(space, runs)
        tell(f"width {width}, packs of {size}")
        with speed.torch_threads(conditions.threads):
            gain = fusion.pack_gain(run, size, device, data_folder) if space.resources.engine != "sequential" else 1.0
        measurement = Measurement(
            device=name,
            kind="gpu" if wants_gpu(space.resources) else "cpu",
            conditions=conditions,
            width=width,
            measured=datetime.now(UTC).date().isoformat(),
            rounds=rounds,
            step=Rate.of(speeds.step),
            forward=Rate.of(speeds.forward),
            loader=Rate.of(speeds.loader) if speeds.loader else None,
            both=Rate.of(speeds.both) if speeds.both else None,
            pack_size=size,
            pack_gain=gain,
        )
        add_to_calibration(data_folder, [measurement])
        advice = judge(
            measurement,
            space,
            run,
            data_folder=data_folder,
            pack_size=size,
            cpus=local_hardware().cpus,
            jpegs=speeds.jpegs,
        )
        yield Bench(width, measurement, advice)


def _check_cpus(space: SearchSpace, runs: Sequence[Run]) -> None:
    """Refuse workers with more threads than CPUs: on this machine no launch would start one, and none is so slow."""
    threads, cpus = max(Conditions.of(run, space.resources).threads for run in runs), local_hardware().cpus
    if threads > cpus:
        raise ValueError(
            f"a worker of {space.name} has {threads} CPUs; this machine has {cpus:g}. Measure on one like those that "
            f"are to train, or a smaller worker: --set resources.cpus_per_worker={cpus:g}"
        )


def _pack_size(space: SearchSpace, runs: Sequence[Run]) -> int:
    """Runs in the largest pack of one width on this machine."""
    lane = lanes_for(runs, space.resources, local_hardware(), anywhere=True).lanes[0]
    packs = group_packs(runs, space.packing, lambda run: lane.process_bytes / run_bytes(run, lane.shape.processes))
    return max(len(pack.runs) for pack in packs)
