"""How fast one run trains on this machine: its data stream alone, its optimiser step alone, and both together."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from search_spaces.recipe import Recipe
from search_spaces.runs import Run
from workers.batches import GivenLabels, MicroBatch, micro_batches
from workers.data import ImageData
from workers.member import Member
from workers.optimization import autocast
from workers.placement import Placement
from workers.stack import Stack

STEPS_KEPT = 2
"""Steps' batches on the device that the step alone goes round on: more would only take memory."""

Batches = Generator[MicroBatch]


class TooLargeError(MemoryError):
    """The model and a batch do not fit into the device's memory."""


@dataclass(frozen=True)
class Speeds:
    """Images/s of each round, for one run that is trained alone.

    Attributes:
        step: forward, backward and the optimiser, on batches that are on the device already.
        forward: the forward pass of an evaluation, on such batches too.
        loader: the training stream, nobody using it; empty where the data set is not there.
        both: training as a worker does it; empty where the data set is not there.
    """

    step: tuple[float, ...]
    forward: tuple[float, ...]
    loader: tuple[float, ...] = ()
    both: tuple[float, ...] = ()
    jpegs: bool = False
    """Whether images of the data set are stored as JPEG."""


def is_prepared(run: Run, folder: Path) -> bool:
    """Whether the run's data set is in the data folder, or can be made there on the spot."""
    return run.dataset.described.embedded or (folder / run.dataset.name / "train.beton").exists()


def gpu_name() -> str | None:
    """The name of the GPU that a worker here would use; None where there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def measure(
    run: Run,
    folder: Path,
    device: torch.device,
    *,
    threads: int,
    compile: bool = False,
    rounds: int,
    seconds: float,
    tell: Callable[[str], None] = lambda what: None,
) -> Speeds:
    """Measure a run, which trains on the way but whose weights stay as they are.

    Each round takes every speed once, so that a drift of the machine favours none; a first round is not counted.

    Args:
        run: a run with a minibatch recipe.
        folder: the data folder. Where the data set is not there, the step alone is measured, on random images.
        device: CPU or one CUDA device.
        threads: of torch, and on a GPU for decoding, as a worker has them.
        compile: whether the network goes through torch.compile.
        rounds: how often each speed is taken.
        seconds: how long one of them takes, at least; a started batch is ended, and one is the least.
        tell: called with what is measured next.

    Raises:
        BetonError: a beton is damaged, or another one than the data set's.
        TooLargeError: the model and a batch do not fit into the device's memory.
    """
    placement = Placement(decode_threads=threads if device.type == "cuda" else 1, compile=compile)  # as a worker does
    with torch_threads(threads):
        try:
            return _measure(run, folder, device, placement, rounds, seconds, tell)
        except torch.OutOfMemoryError as error:
            raise TooLargeError(f"width {run.width} does not fit into the memory of {device}: {error}") from error
        finally:
            if device.type == "cuda":
                torch.cuda.empty_cache()


def _measure(
    run: Run,
    folder: Path,
    device: torch.device,
    placement: Placement,
    rounds: int,
    seconds: float,
    tell: Callable[[str], None],
) -> Speeds:
    recipe = run.recipe
    assert isinstance(recipe, Recipe)
    data = ImageData(run, folder, device, placement) if is_prepared(run, folder) else None
    given, kept = _real_batches(run, data) if data else random_batches(run, device)
    stack = Stack([Member(run, given)], "sequential", device, placement)

    def train(batch: MicroBatch) -> None:
        stack.accumulate(batch)
        if batch.ends_step:
            stack.update(0.0)  # a rate of 0: as much work, and nothing can diverge

    @torch.inference_mode()
    def predict(batch: MicroBatch) -> None:
        with autocast(recipe, device):
            stack.model(batch.inputs)

    def leave(batch: MicroBatch) -> None:
        return

    passes: dict[str, tuple[Callable[[], Batches], Callable[[MicroBatch], None]]] = {
        "step": (lambda: _again_and_again(kept), train),
        "forward": (lambda: _again_and_again(kept), predict),
    }
    if data is not None:
        stream = data
        passes |= {"loader": (lambda: _epochs(stream), leave), "both": (lambda: _epochs(stream), train)}
    taken: dict[str, list[float]] = {name: [] for name in passes}
    for number in range(rounds + 1):
        for name, (batches, use) in passes.items():
            tell(f"width {run.width}, {name}, " + (f"{number} of {rounds}" if number else "warming up"))
            stack.model.train(name != "forward")
            speed = _images_per_second(batches(), use, seconds, device)
            if number:
                taken[name].append(speed)
    jpegs = data is not None and bool(data.train_stream.beton.places[:, 4].any())
    return Speeds(**{name: tuple(speeds) for name, speeds in taken.items()}, jpegs=jpegs)


def _images_per_second(
    batches: Batches, use: Callable[[MicroBatch], None], seconds: float, device: torch.device
) -> float:
    """Images/s of `use` on each batch; the first step starts threads and fills buffers, and is not counted."""
    with closing(batches):
        for batch in batches:
            use(batch)
            if batch.ends_step:
                break
        _wait_for(device)
        started = time.perf_counter()
        images = 0
        for batch in batches:
            use(batch)
            images += batch.samples
            if batch.ends_step and time.perf_counter() - started >= seconds:
                break
        _wait_for(device)
        return images / (time.perf_counter() - started)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _epochs(data: ImageData) -> Batches:
    """Training batches for ever."""
    for epoch in itertools.count():
        yield from data.epoch(epoch)


def _again_and_again(kept: list[MicroBatch]) -> Batches:
    yield from itertools.cycle(kept)


def _real_batches(run: Run, data: ImageData) -> tuple[GivenLabels, list[MicroBatch]]:
    """The run's labels, and the batches of its first steps."""
    kept: list[MicroBatch] = []
    with closing(_epochs(data)) as batches:
        while sum(batch.ends_step for batch in kept) < STEPS_KEPT:
            kept.append(next(batches))
    return data.given(run), kept


def random_batches(run: Run, device: torch.device) -> tuple[GivenLabels, list[MicroBatch]]:
    """A step's images of noise, in the shape of the data set's, with random labels; on the device."""
    recipe = run.recipe
    assert isinstance(recipe, Recipe)
    described, side = run.dataset.described, run.dataset.input_resolution
    random = torch.Generator().manual_seed(0)
    table = torch.randint(described.classes, (recipe.batch_size,), generator=random).to(device)
    kept = []
    size = min(recipe.batch_size, run.samples)
    for span in micro_batches(size, recipe.batch_size, recipe.micro_batch or recipe.batch_size):
        count = span.last - span.first
        images = torch.randn((count, described.channels, side, side), generator=random)
        inputs = images.to(device, memory_format=torch.channels_last)
        index = torch.arange(span.first, span.last, device=device)
        kept.append(MicroBatch(inputs, index, count, span.weight, span.ends_step))
    nothing = torch.zeros_like(table, dtype=torch.bool)
    return GivenLabels(table, nothing, "", 0.0), kept


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let torch have so many threads, for as long as the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
