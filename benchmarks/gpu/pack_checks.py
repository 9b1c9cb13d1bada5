"""Packs on the device: what a run gives does not depend on the runs beside it, nor on whether its steps are graphs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from benchmarks.gpu.learnable import CLASSES, learnable_images
from benchmarks.gpu.modes import exact
from benchmarks.gpu.project import PackLearner, make_runs
from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.verdicts import Line

LARGEST = 8
SIZES = (2, 4, LARGEST)
RATE = 0.05
DRIFT = 10.0
"""How much further than a rounding of the images moves a loss the other kernels of fused networks may move it."""
ROUNDING = 1e-5
"""Differences up to this, of a loss over its first value, are rounding in any case."""
BATCHES = 4
"""Of the data; the last one is short."""


def check(device: torch.device, sizes: Sizes) -> Iterator[Line]:
    """By deterministic kernels, without TF32."""
    steps = sizes.packs.check_steps
    for precision in ("fp32", "bf16"):
        with exact():
            differences = between_pack_sizes(device, sizes, precision)
        yield verdict(f"fused in packs of 2, 4 and 8, {precision}, {steps} steps: the same runs in each", differences)
    with exact():
        fused, rounded = fused_against_alone(device, sizes)
    yield Line(
        f"fused against alone, fp32, {steps} steps: largest difference of a loss over its first value",
        f"{fused:.1e} (alone, images scaled by 1 + 2^-20: {rounded:.1e})",
        f"<= {DRIFT:g} x that, or {ROUNDING:g}",
        fused <= max(DRIFT * rounded, ROUNDING),
    )
    with exact():
        differences = beside_nan(device, sizes)
    yield verdict(f"fused with a run that is NaN, bf16, {steps} steps: the other runs", differences)
    for fused_by, precision in itertools.product((1, SIZES[1]), ("fp32", "bf16")):
        how = "one network" if fused_by == 1 else f"{fused_by} fused"
        what = f"steps as CUDA graphs against steps without, {how}, {precision}: weights, statistics, momentum, losses"
        if device.type != "cuda":
            yield Line(what, "needs a CUDA device", n=0)
            continue
        with exact():
            replayed, differences = graphs_against_none(device, sizes, fused_by, precision)
        yield verdict(what, differences) if replayed else Line(what, "recording FAILED", "identical", False)


def verdict(what: str, differences: Sequence[float]) -> Line:
    """From the largest relative difference of each run."""
    worst = max(differences)
    found = "identical, bit for bit" if worst == 0 else f"DIFFERS, by {worst:.1e} of the largest value"
    return Line(what, found, "identical", worst == 0, n=len(differences))


def between_pack_sizes(device: torch.device, sizes: Sizes, precision: str) -> list[float]:
    """Runs in the largest pack, and the first of them in smaller ones."""
    ended = {size: trained(device, sizes, precision, range(size), fused=size)[0] for size in SIZES}
    return [difference(ended[size][number], ended[LARGEST][number]) for size in SIZES[:-1] for number in range(size)]


def fused_against_alone(device: torch.device, sizes: Sizes) -> tuple[float, float]:
    """The largest distance of loss curves of a run fused and alone; and alone from alone on images a rounding away."""
    _, fused = trained(device, sizes, "fp32", range(SIZES[1]), fused=SIZES[1])
    _, alone = trained(device, sizes, "fp32", range(SIZES[1]))
    _, other = trained(device, sizes, "fp32", range(SIZES[1]), scale=1 + 2.0**-20)
    return distance(fused, alone), distance(other, alone)


def beside_nan(device: torch.device, sizes: Sizes) -> list[float]:
    """Every run but the second, in a pack with and without a NaN in the second's first layer."""
    size = SIZES[1]
    healthy, _ = trained(device, sizes, "bf16", range(size), fused=size)
    beside, _ = trained(device, sizes, "bf16", range(size), fused=size, poisoned=1)
    assert any(value.isnan().any() for value in beside[1].values()), "the poison had no effect"
    return [difference(healthy[number], beside[number]) for number in range(size) if number != 1]


def graphs_against_none(device: torch.device, sizes: Sizes, fused: int, precision: str) -> tuple[bool, list[float]]:
    """Whether graphs were replayed at all; and each run with and without."""
    plain, losses = trained(device, sizes, precision, range(fused), fused=fused)
    learner, images = prepared(device, sizes, precision, range(fused), fused=fused, graphs=True)
    found = train(learner, images, sizes)
    curves = [abs(one - other) for one, other in zip(itertools.chain(*losses), itertools.chain(*found), strict=True)]
    return learner.in_graphs, [*(difference(*both) for both in zip(plain, learner.states(), strict=True)), max(curves)]


def trained(
    device: torch.device,
    sizes: Sizes,
    precision: str,
    members: Sequence[int],
    *,
    fused: int = 1,
    scale: float = 1.0,
    poisoned: int | None = None,
) -> tuple[list[dict[str, Tensor]], list[list[float]]]:
    """The last state of each run, and the losses of all in every step."""
    learner, images = prepared(device, sizes, precision, members, fused=fused)
    if poisoned is not None:
        (stack,) = learner.stacks
        stack.model.conv1.weight.detach().chunk(len(members))[poisoned].fill_(torch.nan)
    losses = train(learner, scale * images, sizes)
    return learner.states(), losses


def prepared(
    device: torch.device, sizes: Sizes, precision: str, members: Sequence[int], *, fused: int, graphs: bool = False
) -> tuple[PackLearner, Tensor]:
    """Runs with labels of their own, before their first step, and the images."""
    batch = sizes.packs.check_batch
    samples = BATCHES * batch - batch // 2
    runs = make_runs(
        LARGEST,
        "cifar10",
        "cifar-resnet18",
        sizes.packs.check_width,
        samples=samples,
        batch_size=batch,
        precision=precision,
    )
    images, labels = learnable_images(samples, device)
    tables = [torch.where(torch.arange(samples, device=device) % 10 < k, labels + 1, labels) % CLASSES for k in members]
    return PackLearner([runs[k] for k in members], tables, device, fused=fused, graphs=graphs), images


def train(learner: PackLearner, images: Tensor, sizes: Sizes) -> list[list[float]]:
    """Step by step at falling rates; the losses of all runs in each."""
    batch, losses = sizes.packs.check_batch, []
    for step in range(sizes.packs.check_steps):
        start = step % BATCHES * batch
        index = torch.arange(start, min(start + batch, len(images)), device=images.device)
        learner.step(images[index], index, RATE / (1 + step))
        losses.append(learner.mean_losses())
    return losses


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest difference of two states, tensor by tensor over the largest value; infinite where one is not finite."""
    found = 0.0
    for name, value in one.items():
        if not torch.equal(value, other[name]):
            gap = ((value - other[name]).abs().max() / value.abs().max()).item()
            found = max(found, gap if gap < float("inf") else float("inf"))
    return found


def distance(one: list[list[float]], other: list[list[float]]) -> float:
    """Largest difference of two sets of curves, [steps][runs], over the first value."""
    return max(
        abs(left - right) / first
        for ones, others in zip(one, other, strict=True)
        for left, right, first in zip(ones, others, other[0], strict=True)
    )
