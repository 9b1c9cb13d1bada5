"""Steps as CUDA graphs: which steps they are, and that they give what steps without them give, bit for bit.

No GPU is needed: in place of torch.cuda's graphs stands one that notes what torch computes, and computes it again, on
the same memory, when it is replayed. It refuses what a GPU refuses: a value that the CPU wants to see.
"""

from __future__ import annotations

import copy
import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from search_spaces.catalog import load_space
from search_spaces.recipe import Recipe
from search_spaces.runs import Run, expand
from workers import cuda_graph, stack
from workers.batches import GivenLabels, MicroBatch
from workers.checkpoint import Engine, Spent, dump_checkpoint, load_checkpoint
from workers.cuda_graph import WARM_UP_STEPS, GraphedStep, graphed_step, single
from workers.group import Group
from workers.member import Member
from workers.placement import Placement
from workers.stack import Stack

CPU = torch.device("cpu")
BATCH, SAMPLES = 8, 40
SGD = ("recipe.optimizer=sgd", "recipe.momentum=0.9", "recipe.nesterov=true", "recipe.weight_decay=0.0005")
ADAM = ("recipe.optimizer=adam", "recipe.momentum=0", "recipe.weight_decay=0.0005", "recipe.decay_batch_norm=false")
PLAIN = ("recipe.optimizer=sgd", "recipe.momentum=0", "recipe.weight_decay=0")


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation with the very tensors that it reads and writes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.made: set[int] = set()
        self.refused = ""
        self.before: dict[int, tuple[Tensor, torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default or (self.refused and self.refused in str(func)):
            raise RuntimeError("operation not permitted when stream is capturing")
        for tensor in tensors_in((args, kwargs)):
            place = tensor.untyped_storage().data_ptr()
            if place not in self.made and place not in self.before:
                self.before[place] = (tensor, copy.deepcopy(tensor.untyped_storage()))
        given = {tensor.untyped_storage().data_ptr() for tensor in tensors_in((args, kwargs))}
        found = func(*args, **(kwargs or {}))
        self.made |= {each.untyped_storage().data_ptr() for each in tensors_in(found)} - given
        self.calls.append((func, args, kwargs or {}, found))
        return found

    def undo(self) -> None:
        """Recording computes nothing: what was there before is as it was."""
        for tensor, content in self.before.values():
            tensor.untyped_storage().copy_(content)

    @torch.no_grad()
    def run(self) -> None:
        """All of it, into the memory of the first time."""
        for func, args, kwargs, found in self.calls:
            given = {tensor.untyped_storage().data_ptr() for tensor in tensors_in((args, kwargs))}
            again = func(*args, **kwargs)
            for old, new in zip(tensors_in(found), tensors_in(again), strict=True):
                if old.untyped_storage().data_ptr() not in given:
                    old.copy_(new)


def tensors_in(values: Any) -> list[Tensor]:
    return [each for each in tree_leaves(values) if isinstance(each, Tensor)]


class FakeGraph:
    def __init__(self) -> None:
        self.recorder = Recorder()
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        self.recorder.run()


@dataclass
class FakeCuda:
    """The part of torch.cuda that is used. Streams are names; `asked` is what each recording was asked for."""

    graphs: list[FakeGraph] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    current: Any = None
    fails: str = ""

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.current = FakeStream("main", self)
        for name in ("Stream", "stream", "current_stream", "set_stream", "graph", "graph_pool_handle", "CUDAGraph"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(stack, "graphed_step", pretend)

    def Stream(self, device: torch.device) -> FakeStream:  # noqa: N802
        return FakeStream("side", self)

    @contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    def current_stream(self, device: torch.device) -> FakeStream:
        stream: FakeStream = self.current
        return stream

    def set_stream(self, stream: FakeStream) -> None:
        self.current = stream

    def graph_pool_handle(self) -> object:
        return object()

    def CUDAGraph(self) -> FakeGraph:  # noqa: N802
        self.graphs.append(FakeGraph())
        return self.graphs[-1]

    @contextmanager
    def graph(self, graph: FakeGraph, **asked: Any) -> Iterator[None]:
        self.asked.append(asked)
        self.current = asked["stream"]  # stays, as in some torch, where recording fails
        graph.recorder.refused = "_fused_sgd_" if self.fails == "in the middle" else ""
        try:
            with graph.recorder:
                yield
            if self.fails == "at the end":
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        finally:
            graph.recorder.undo()
        self.current = FakeStream("main", self)


@dataclass
class FakeStream:
    name: str
    cuda: FakeCuda

    def wait_stream(self, other: FakeStream) -> None:
        self.cuda.order.append(f"{self.name} waits for {other.name}")


def pretend(run: Run, device: torch.device, placement: Placement) -> GraphedStep | None:
    """As if the CPU were a GPU."""
    assert isinstance(run.recipe, Recipe)
    return GraphedStep(CPU, run.recipe.batch_size) if placement.cuda_graphs else None


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    fake = FakeCuda()
    fake.install(monkeypatch)
    cuda_graph._side_stream.cache_clear()
    yield fake
    cuda_graph._side_stream.cache_clear()
    cuda_graph._FAILED.clear()


def runs(*overrides: str, rates: str = "[0,0.2]") -> list[Run]:
    changes = [f"samples={SAMPLES}", "ratios=null", "widths=[2]", f"noise.rates={rates}", "seeds=1"]
    changes += [f"recipe.batch_size={BATCH}", "recipe.micro_batch=null", "recipe.epochs=4", *overrides]
    return expand(load_space("digits-grid", changes))


def stack_of(members: list[Run], engine: Engine, *, graphs: bool) -> Stack:
    random = torch.Generator().manual_seed(1)
    tables = [torch.randint(10, (SAMPLES,), generator=random) for _ in members]
    given = [GivenLabels(table, torch.zeros_like(table, dtype=torch.bool), "", 0.0) for table in tables]
    placement = Placement(cuda_graphs=graphs, fused=len(members))
    return Stack([Member(*each) for each in zip(members, given, strict=True)], engine, CPU, placement)


def batches(sizes: list[int]) -> Iterator[MicroBatch]:
    """Whole batches of these sizes, in one piece of memory that is overwritten as a stream's is."""
    random = torch.Generator().manual_seed(0)
    shared = torch.empty(BATCH, 1, 8, 8).to(memory_format=torch.channels_last)
    for size in sizes:
        inputs = shared[:size].copy_(torch.randn(size, 1, 8, 8, generator=random))
        yield MicroBatch(inputs, torch.randint(SAMPLES, (size,), generator=random), size, 1 / size, True)


def train(networks: list[Stack], sizes: list[int], *, first: int = 0) -> None:
    """At another rate in every step."""
    for number, batch in enumerate(batches(sizes)):
        if number < first:
            continue
        for each in networks:
            each.accumulate(batch)
        for each in networks:
            each.update(single(0.05 / (1 + number)))


def state(of: Stack) -> dict[str, Any]:
    optimizer = copy.deepcopy(of.optimizer.state_dict())
    return {"model": of.model.state_dict(), "optimizer": optimizer, "losses": of.loss_sums, "step": of.step}


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    elif isinstance(one, Tensor):
        assert isinstance(other, Tensor)
        assert torch.equal(one, other)
    else:
        assert type(one) is type(other)
        assert one == other


SIZES = [*[BATCH] * 5, 3, *[BATCH] * 3, 3, BATCH]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("recipe", [SGD, ADAM, PLAIN], ids=["sgd", "adam", "plain"])
@pytest.mark.parametrize("engine", ["sequential", "fused"])
def test_steps_as_graphs_give_bit_for_bit_what_steps_give(
    engine: Engine, recipe: tuple[str, ...], precision: str, cuda: FakeCuda
) -> None:
    members = runs(*recipe, f"recipe.precision={precision}")[: 1 if engine == "sequential" else 2]
    plain, graphed = (stack_of(members, engine, graphs=graphs) for graphs in (False, True))
    train([plain], SIZES)
    train([graphed], SIZES)
    assert_same(state(plain), state(graphed))
    assert [graph.replays for graph in cuda.graphs] == [SIZES.count(BATCH) - WARM_UP_STEPS]
    tracked = graphed.model.state_dict()["bn1.num_batches_tracked"]
    assert tracked == len(SIZES)


def test_nothing_of_a_graph_is_left_in_a_checkpoint_and_training_goes_on_without_any(cuda: FakeCuda) -> None:
    for recipe in (SGD, ADAM):
        (run,) = runs(*recipe, rates="0")
        whole, half = stack_of([run], "sequential", graphs=False), stack_of([run], "sequential", graphs=True)
        train([whole], SIZES)
        train([half], SIZES[:7])
        content = dump_checkpoint(half.checkpoints(0, 0, Spent())[run.run_id])
        saved = load_checkpoint(content, run)
        assert all(type(group["lr"]) is float for group in saved.optimizer["param_groups"])
        assert not any(group.get("capturable") for group in saved.optimizer["param_groups"])
        for graphs in (False, True):
            rest = stack_of([run], "sequential", graphs=graphs)
            rest.restore({run.run_id: saved})
            train([rest], SIZES, first=7)
            assert_same(state(whole), state(rest))


def test_a_stack_that_is_given_another_state_records_again(cuda: FakeCuda) -> None:
    (run,) = runs(*SGD, rates="0")
    plain, graphed = (stack_of([run], "sequential", graphs=graphs) for graphs in (False, True))
    for each in (plain, graphed):
        train([each], SIZES[:5])
        saved = copy.deepcopy(each.checkpoints(0, 0, Spent()))
        train([each], SIZES, first=5)
        each.restore(saved)
        train([each], SIZES, first=5)
    assert [graph.replays for graph in cuda.graphs] == [9 - WARM_UP_STEPS, 4 - WARM_UP_STEPS]
    assert_same(state(plain), state(graphed))


def test_members_that_stay_train_on_as_if_nobody_had_left(cuda: FakeCuda) -> None:
    members = runs(*SGD, rates="[0,0.2,0.4]")
    ended = []
    for graphs in (False, True):
        whole = stack_of(members, "fused", graphs=graphs)
        train([whole], SIZES[:6])
        rest = whole.without(whole.members[1:2])
        assert rest is not None
        train([rest], SIZES, first=6)
        ended.append(rest)
    assert_same(state(ended[0]), state(ended[1]))
    assert len(cuda.graphs) == 2


def test_stacks_in_turns_share_memory_and_do_not_touch_each_other(cuda: FakeCuda) -> None:
    members = runs(*SGD)
    plain = [stack_of([run], "sequential", graphs=False) for run in members]
    graphed = [stack_of([run], "sequential", graphs=True) for run in members]
    train(plain, SIZES)
    train(graphed, SIZES)
    for one, other in zip(plain, graphed, strict=True):
        assert_same(state(one), state(other))
    first, second = cuda.asked
    assert first["pool"] is second["pool"]
    assert first["stream"] is second["stream"]
    assert first["capture_error_mode"] == "thread_local"
    pool = first["pool"]
    del plain, graphed, one, other
    gc.disable()  # a graph that waits for the collector may be freed in the middle of another's recording
    try:
        cuda.graphs.clear()
        assert not cuda_graph._ARENAS
    finally:
        gc.enable()
    train([stack_of(members[:1], "sequential", graphs=True)], SIZES)
    assert cuda.asked[-1]["pool"] is not pool


def test_first_steps_are_taken_on_the_stream_that_is_recorded_on(cuda: FakeCuda) -> None:
    (run,) = runs(*SGD, rates="0")
    graphed = stack_of([run], "sequential", graphs=True)
    train([graphed], [BATCH])
    assert cuda.order == ["side waits for main", "main waits for side"]
    train([graphed], [BATCH] * 4)
    assert len(cuda.order) == 2 * WARM_UP_STEPS
    assert cuda.current.name == "main"


@pytest.mark.parametrize("fails", ["at the beginning", "in the middle", "at the end"])
def test_where_recording_fails_training_goes_on_without(
    fails: str, cuda: FakeCuda, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = runs(*SGD)
    plain = [stack_of([run], "sequential", graphs=False) for run in members]
    graphed = [stack_of([run], "sequential", graphs=True) for run in members]
    train(plain, SIZES)
    cuda.fails = fails
    if fails == "at the beginning":
        monkeypatch.setattr(torch.cuda, "CUDAGraph", out_of_memory)
    with caplog.at_level(logging.WARNING):
        train(graphed, SIZES)
    assert len([each for each in caplog.records if "without CUDA graphs" in each.message]) == 1
    assert cuda.current.name == "main"
    for one, other in zip(plain, graphed, strict=True):
        assert_same(state(one), state(other))


def out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_only_whole_full_batches_go_through_a_graph() -> None:
    steps = GraphedStep(CPU, BATCH)
    (batch,) = batches([BATCH])
    (short,) = batches([3])
    assert steps.takes(batch)
    assert not steps.takes(short)
    assert not steps.takes(replace(batch, ends_step=False))
    assert not steps.takes(replace(batch, weight=1 / (2 * BATCH)))
    assert not steps.takes(replace(batch, samples=2 * BATCH, weight=1 / (2 * BATCH)))
    assert not GraphedStep(CPU, BATCH).step(0.1, None, lambda batch: pytest.fail("there is none"))


def test_steps_are_graphs_only_where_they_can_be() -> None:
    on_gpu, (run, *_) = torch.device("cuda"), runs(*SGD)
    asked = Placement(cuda_graphs=True)
    assert graphed_step(run, on_gpu, asked) is not None
    assert graphed_step(run, CPU, asked) is None
    assert graphed_step(run, on_gpu, Placement()) is None
    assert graphed_step(run, on_gpu, replace(asked, group=Group(0, 2))) is None
    assert graphed_step(runs(*SGD, "recipe.precision=fp16")[0], on_gpu, asked) is None
    assert graphed_step(runs(*SGD, f"recipe.micro_batch={BATCH // 2}")[0], on_gpu, asked) is None


def test_the_emulation_refuses_what_a_gpu_refuses_and_computes_nothing_while_recording(cuda: FakeCuda) -> None:
    graph, total, wanted = FakeGraph(), torch.zeros(3), torch.ones(3)
    with cuda.graph(graph, stream=None):
        total += 2 * wanted
    assert torch.equal(total, torch.zeros(3))
    wanted.fill_(4)
    graph.replay()
    graph.replay()
    assert torch.equal(total, torch.full((3,), 16.0))
    look: Callable[[], float] = total.sum().item
    with pytest.raises(RuntimeError, match="not permitted"), Recorder():
        look()
