"""Packs of CIFAR ResNet18, bf16: samples x models a second, by width and by how many are trained at once.

Packs are trained one model after another or fused, each with CUDA graphs and without; against one model alone in one
process, and against as many processes that share the GPU, each with one model. All take turns, round by round, on
batches that lie on the device. A first round is not counted: it says, as a measurement before a sweep would, how large
a fused network should be, and by which way a pack is trained best. What that way then reaches is what is judged.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.gpu.feeding import kept_batches
from benchmarks.gpu.grid_hours import Speeds, grid_hours
from benchmarks.gpu.modes import fast
from benchmarks.gpu.project import PackLearner, make_runs
from benchmarks.gpu.sizes import Case, PackSizes, Sizes
from benchmarks.gpu.verdicts import Line, ratio
from benchmarks.measuring.contestants import Contestant, contestants
from search_spaces.runs import Run

GOALS = {4: 8.0, 8: 5.0, 16: 3.0}
"""Packs over one model in one process, by width."""
GOAL_OVER_PROCESSES = 2.0
"""At the same widths, over as many processes on the GPU."""
NEVER_UNDER = 0.97
"""Of the best of the other ways, at any width and number of models."""
ALONE, COMPILED, IN_TURN, FUSED, GRAPHS = "alone", "alone, compiled", "one after another", "fused by {}", ", in graphs"
WARMING_STEPS = 6
"""More than come before a graph is recorded."""
IN_FLIGHT = 2
"""Steps that are given to the GPU ahead of their time, as a worker's are; more would end after the clock."""
HEAD_START_SECONDS = 0.1
"""For orders to reach all processes."""

Kept = Sequence[tuple[Tensor, Tensor]]


@dataclass
class Taken:
    """Samples x models a second: in the first round, and in those that count."""

    first: float
    counted: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.counted)


@dataclass(frozen=True)
class Cell:
    """What was found for so many models of a width, by way; `chosen` is the best for packs in the first round."""

    width: int
    models: int
    ways: Mapping[str, Taken]
    chosen: str

    @property
    def best(self) -> Taken:
        return self.ways[self.chosen]

    @property
    def processes(self) -> Taken | None:
        return self.ways.get(processes_title(self.models))

    def alternatives(self) -> list[Taken]:
        """What somebody would do without packs, and the plain way to do with them."""
        names = (ALONE, COMPILED, IN_TURN, processes_title(self.models))
        return [self.ways[name] for name in names if name in self.ways and name != self.chosen]


def measure(device: torch.device, sizes: Sizes, cores: int) -> Iterator[Line]:
    """Lines of each width, then what they come to for a whole grid."""
    packs = sizes.packs
    speeds: dict[int, Speeds] = {}
    names = [f"process {number}" for number in range(max(packs.processes, default=0))]
    with contestants(names, cores) as found:
        for width in packs.models:
            cells: list[Cell] = []
            yield from measure_width(width, device, packs, list(found.values()), cells)
            if cells:
                yield from judge(width, cells)
                by_models = {cell.models: cell.best.median for cell in cells}
                speeds[width] = Speeds(alone=cells[-1].ways[ALONE].median, packed=by_models)
    yield from grid_hours(speeds)


def measure_width(
    width: int, device: torch.device, packs: PackSizes, processes: Sequence[Contestant], cells: list[Cell]
) -> Iterator[Line]:
    """A line for each number of models, whose speeds are added to `cells`."""
    sharing = processes[: max((count for count in packs.processes if count in packs.models[width]), default=0)]
    for future in [each.start(get_ready, width, packs, str(device)) for each in sharing]:
        future.result()
    by_fused: dict[str, dict[int, float]] = {"": {}, GRAPHS: {}}
    for models in packs.models[width]:
        what = f"CIFAR ResNet18 k={width}, batch {packs.batch}, {models} models: samples x models/s"
        try:
            with fast():
                cell = measure_cell(width, models, device, packs, sharing, by_fused)
        except torch.OutOfMemoryError:
            yield Line(what, "the memory of the GPU does not hold them", n=0)
            return
        finally:
            if device.type == "cuda":
                torch.cuda.empty_cache()
        cells.append(cell)
        found = "; ".join(f"{name} {taken.median:,.0f}" for name, taken in cell.ways.items())
        yield Line(what, found, n=packs.rounds)


def measure_cell(
    width: int,
    models: int,
    device: torch.device,
    packs: PackSizes,
    sharing: Sequence[Contestant],
    by_fused: dict[str, dict[int, float]],
) -> Cell:
    """All ways for so many models; adds what fusing all of them gave in a first round to `by_fused`."""
    kept = kept_batches(case_of(width, packs), device)
    runs = runs_of(models, width, packs)
    alone = learner_of(runs[:1], device, kept)
    passes: dict[str, Callable[[], float]] = {ALONE: timed(alone, kept, packs, device)}
    if width in packs.compiled:
        passes[COMPILED] = timed(learner_of(runs[:1], device, kept, compile=True), kept, packs, device)
    if models in packs.processes:
        passes[processes_title(models)] = lambda: of_processes(sharing[:models], packs.seconds)
    of_packs = {}
    for how in ("", GRAPHS) if device.type == "cuda" else ("",):
        one_by_one = learner_of(runs, device, kept, graphs=how == GRAPHS)
        if how == GRAPHS and not one_by_one.in_graphs:
            continue  # said by a warning
        of_packs[IN_TURN + how] = timed(one_by_one, kept, packs, device)
        fused = learner_of(runs, device, kept, fused=models, graphs=how == GRAPHS)
        by_fused[how][models] = timed(fused, kept, packs, device)()
        size = max(by_fused[how], key=by_fused[how].__getitem__)
        if size != models:
            fused = learner_of(runs, device, kept, fused=size, graphs=how == GRAPHS)
        of_packs[FUSED.format(size) + how] = timed(fused, kept, packs, device)
    passes |= of_packs
    taken = {name: Taken(take()) for name, take in passes.items()}
    for number in range(packs.rounds):
        first = number % len(passes)
        for name in [*passes][first:] + [*passes][:first]:
            taken[name].counted.append(passes[name]())
    return Cell(width, models, taken, max(of_packs, key=lambda name: taken[name].first))


def judge(width: int, cells: Sequence[Cell]) -> Iterator[Line]:
    """The best number of models against one process a run and against as many processes; and the worst case."""
    name = f"CIFAR ResNet18 k={width}"
    best = max(cells, key=lambda cell: cell.best.first)
    what = f"{name}: {best.models} models, {best.chosen} / one model alone in one process"
    yield ratio(what, best.best.counted, best.ways[ALONE].counted, GOALS.get(width))
    beside = [(cell, cell.processes) for cell in cells if cell.processes]
    if beside:
        cell, processes = max(beside, key=lambda both: both[0].best.first)
        what = f"{name}: {cell.models} models, {cell.chosen} / {cell.models} processes on the GPU"
        assert processes is not None
        yield ratio(what, cell.best.counted, processes.counted, GOAL_OVER_PROCESSES if width in GOALS else None)
    worst = min(cells, key=over_the_best_other)
    what = f"{name}: the way chosen / the best other way, at its worst ({worst.models} models, {worst.chosen})"
    others = [max(values) for values in zip(*(each.counted for each in worst.alternatives()), strict=True)]
    yield ratio(what, worst.best.counted, others, NEVER_UNDER)


def over_the_best_other(cell: Cell) -> float:
    return cell.best.median / max(each.median for each in cell.alternatives())


def processes_title(models: int) -> str:
    return f"{models} processes"


def case_of(width: int, packs: PackSizes) -> Case:
    return Case(f"CIFAR ResNet18 k={width}", "cifar10", "cifar-resnet18", width, packs.batch, 32, 50_000)


def runs_of(models: int, width: int, packs: PackSizes) -> list[Run]:
    """A pack."""
    return make_runs(
        models, "cifar10", "cifar-resnet18", width, samples=50_000, batch_size=packs.batch, precision="bf16"
    )


def learner_of(
    runs: Sequence[Run],
    device: torch.device,
    kept: Kept,
    *,
    fused: int = 1,
    graphs: bool = False,
    compile: bool = False,
) -> PackLearner:
    """With random labels, after its first steps."""
    random = torch.Generator().manual_seed(0)
    tables = [torch.randint(10, (50_000,), generator=random).to(device) for _ in runs]
    learner = PackLearner(runs, tables, device, fused=fused, graphs=graphs, compile=compile)
    for inputs, index in itertools.islice(itertools.cycle(kept), WARMING_STEPS):
        learner.step(inputs, index, 0.0)
    return learner


def timed(learner: PackLearner, kept: Kept, packs: PackSizes, device: torch.device) -> Callable[[], float]:
    return lambda: samples_per_second(learner, kept, packs.seconds, device)


def samples_per_second(learner: PackLearner, kept: Kept, seconds: float, device: torch.device) -> float:
    """Samples x models a second over so many seconds at least, at a rate of 0: as much work as at any."""
    wait_for(device)
    started, samples = time.perf_counter(), 0
    under_way: deque[torch.cuda.Event] = deque()
    for inputs, index in itertools.cycle(kept):
        learner.step(inputs, index, 0.0)
        samples += learner.models * len(index)
        if device.type == "cuda":
            under_way.append(torch.cuda.Event())  # type: ignore[no-untyped-call]
            under_way[-1].record()
            if len(under_way) > IN_FLIGHT:
                under_way.popleft().synchronize()
        if time.perf_counter() - started >= seconds:
            break
    wait_for(device)
    return samples / (time.perf_counter() - started)


def of_processes(sharing: Sequence[Contestant], seconds: float) -> float:
    """Samples x models a second of processes that train side by side, one model each."""
    begin = time.monotonic() + HEAD_START_SECONDS
    return sum(future.result() for future in [each.start(train_beside, begin, seconds) for each in sharing])


_READY: list[tuple[PackLearner, Kept, torch.device]] = []
"""What a process that shares the GPU trains."""


def get_ready(width: int, packs: PackSizes, device_name: str) -> None:
    """Prepare a model of this width; in a contestant."""
    device = torch.device(device_name)
    _READY.clear()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    else:
        torch.set_num_threads(1)
    with fast():
        kept = kept_batches(case_of(width, packs), device)
        _READY.append((learner_of(runs_of(1, width, packs), device, kept), kept, device))


def train_beside(begin: float, seconds: float) -> float:
    """Samples a second from a time on the clock that all processes have; goes on a little, for the others. In a
    contestant."""
    ((learner, kept, device),) = _READY
    time.sleep(max(0.0, begin - time.monotonic()))
    with fast():
        found = samples_per_second(learner, kept, seconds, device)
        samples_per_second(learner, kept, seconds / 4, device)
    return found


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
