"""The calibration: speeds that `bo-sweep bench-worker` measured, in a file of the data folder that plans read.

The file may be copied: measured on the machine with the GPUs, it serves a plan that is made on a laptop.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.console import LOG
from search_spaces.runs import Run
from search_spaces.shapes import Shape, shape_for
from search_spaces.spec import Recipe, Resources

FILE_NAME = "calibration.json"
SCHEMA_VERSION: Literal[1] = 1

ImagesPerSecond = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class CalibrationError(ValueError):
    """A calibration file that cannot be read; the message says why, and what to do."""


class Rate(BaseModel):
    """Images/s over the rounds of a measurement."""

    model_config = ConfigDict(frozen=True)

    median: ImagesPerSecond
    min: ImagesPerSecond
    max: ImagesPerSecond

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Self:
        return cls(median=statistics.median(rounds), min=min(rounds), max=max(rounds))


class Conditions(BaseModel):
    """What the speed of a worker depends on beside the width of the network.

    `threads` is what a process has for decoding, and torch on a CPU. `resolution` is in pixels. `micro_batch` is set
    where a batch goes through the network in parts; `compiled` says that the network went through torch.compile.
    """

    model_config = ConfigDict(frozen=True)

    dataset: str
    architecture: str
    resolution: int
    precision: str
    batch_size: int
    augmentation: str
    threads: int
    micro_batch: int | None = None
    compiled: bool = False

    @classmethod
    def of(cls, run: Run, resources: Resources) -> Self:
        """Those of a run with such workers; only for runs with minibatches."""
        assert isinstance(run.recipe, Recipe)
        return cls(
            dataset=run.dataset.name,
            architecture=run.architecture,
            resolution=run.dataset.input_resolution,
            precision=run.recipe.precision,
            batch_size=run.recipe.batch_size,
            augmentation=run.recipe.augmentation,
            threads=threads_in(shape_for(run, resources)),
            micro_batch=run.recipe.micro_batch,
            compiled=resources.compile,
        )


class Measurement(BaseModel):
    """The speeds of one width under one set of conditions on one device, in images/s.

    `loader` is the training stream alone, `step` the training step alone, `both` training as a worker does it, and
    `forward` the forward pass of an evaluation. The data set was not there where `loader` and `both` are None.
    `measured` is the day, in UTC; `rounds` is n. `pack_gain` is how many times as fast the steps of a pack of
    `pack_size` runs are as those of its runs one after another.
    """

    model_config = ConfigDict(frozen=True)

    device: str
    kind: Literal["gpu", "cpu"]
    conditions: Conditions
    width: int
    measured: str = Field(pattern=r"^\d{4}-\d\d-\d\d$")
    rounds: int
    step: Rate
    forward: Rate
    loader: Rate | None = None
    both: Rate | None = None
    pack_size: int = 1
    pack_gain: float = 1.0

    def gain(self, pack_size: int) -> float:
        """The gain of a pack of another size: in proportion to its further runs, up to what was measured."""
        further = min(1.0, (pack_size - 1) / (self.pack_size - 1)) if self.pack_size > 1 else 0.0
        return 1 + further * (self.pack_gain - 1)

    @property
    def key(self) -> tuple[str, str, int]:
        """What a newer measurement of the same thing has in common with it."""
        return self.device, self.conditions.model_dump_json(), self.width


class _File(BaseModel):
    schema_version: Literal[1]
    measurements: tuple[Measurement, ...]


@dataclass(frozen=True)
class Calibration:
    """The content of a calibration file.

    `named` says that the user gave its path: it may then have been measured on another machine than this one.
    """

    measurements: tuple[Measurement, ...] = ()
    named: bool = False


def wants_gpu(resources: Resources) -> bool:
    """Whether workers of this shape train on GPUs."""
    return bool(resources.gpus_per_worker)


def threads_in(shape: Shape) -> int:
    """Threads that each process of a worker of this shape has."""
    return max(1, int(shape.cpus))


def calibration_for(data_folder: Path, named: Path | None) -> Calibration:
    """The file that the user named, or that of the data folder.

    Raises:
        CalibrationError: the named file is not there or cannot be read. What is wrong with that of the data folder
            is only told: estimates can do without it, so no launch fails over it.
    """
    if named is not None:
        return Calibration(read_calibration(named), named=True)
    path = data_folder / FILE_NAME
    if not path.exists():
        return Calibration()
    try:
        return Calibration(read_calibration(path))
    except CalibrationError as error:
        _warn(str(error))
        return Calibration()


@functools.cache
def _warn(message: str) -> None:
    """Once: a launch plans several times."""
    LOG.print(f"[bold]Estimated without measured speeds[/bold]: {message}")


def read_calibration(path: Path) -> tuple[Measurement, ...]:
    """All measurements of a calibration file. Raises CalibrationError."""
    advice = "bo-sweep bench-worker SPACE writes one in the data folder of the machine that it measures; copy that"
    try:
        return _File.model_validate_json(path.read_bytes()).measurements
    except OSError as error:
        raise CalibrationError(f"calibration {path} cannot be read: {error.strerror or error}. {advice}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise CalibrationError(
            f"calibration {path} is damaged, or of another version of bo-sweep ({where}: {first['msg']}). Delete it; "
            f"{advice}"
        ) from error


def add_to_calibration(data_folder: Path, measurements: Iterable[Measurement]) -> Path:
    """Put measurements into the data folder's file, in place of older ones of the same thing; returns its path.

    Raises:
        CalibrationError: the file that is there cannot be read. StorageError: it cannot be written.
    """
    from orchestrator.local_storage import LocalStorage

    path = data_folder / FILE_NAME
    kept = {one.key: one for one in read_calibration(path)} if path.exists() else {}
    kept |= {one.key: one for one in measurements}
    content = _File(schema_version=SCHEMA_VERSION, measurements=tuple(kept[key] for key in sorted(kept)))
    LocalStorage(str(data_folder)).write(FILE_NAME, content.model_dump_json(indent=2).encode() + b"\n")
    return path
