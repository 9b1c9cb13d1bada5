"""bf16 learns as fp32 does: the loss curves of one short training of CIFAR's shape, side by side."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.gpu.learnable import learnable_images
from benchmarks.gpu.modes import exact
from benchmarks.gpu.project import Learner, make_run
from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.verdicts import Line

BATCHES = 32
"""Of the data."""
POINTS = 10
"""Of each curve, the mean loss of a tenth of the training."""
RATE = 0.02
TOLERANCE = 0.1
"""Largest difference between points, as a share of the fp32 loss at the first point: bfloat16 keeps 8 bits, and small
differences grow along a training."""


def check(device: torch.device, sizes: Sizes) -> Iterator[Line]:
    """The largest distance of the curves; beside it that of two fp32 curves, whose images differ by a rounding."""
    with exact():
        exactly, coarsely = (curve(device, sizes, precision) for precision in ("fp32", "bf16"))
        rounded = curve(device, sizes, "fp32", scale=1 + 2.0**-20)
    worst = distance(exactly, coarsely)
    yield Line(
        f"bf16 against fp32, {sizes.steps} steps: largest difference of the loss over its first value",
        f"{worst:.4f} (loss {exactly[0]:.3f} to {exactly[-1]:.4f} in fp32, {coarsely[-1]:.4f} in bf16)",
        f"<= {TOLERANCE:g}",
        worst <= TOLERANCE,
    )
    yield Line("the same, of fp32 and fp32 with images scaled by 1 + 2^-20", f"{distance(exactly, rounded):.4f}")


def distance(exactly: list[float], other: list[float]) -> float:
    """Largest difference of two curves over the first value of the first."""
    return max(abs(one - two) for one, two in zip(exactly, other, strict=True)) / exactly[0]


def curve(device: torch.device, sizes: Sizes, precision: str, *, scale: float = 1.0) -> list[float]:
    """Mean losses of the parts of a training on images of this scale."""
    batch, samples = sizes.batch, sizes.batch * BATCHES
    run = make_run("cifar10", "cifar-resnet18", sizes.width, samples=samples, batch_size=batch, precision=precision)
    images, labels = learnable_images(samples, device)
    images = scale * images
    learner, points = Learner(run, labels, device), []
    for step in range(sizes.steps):
        start = step * batch % samples
        index = torch.arange(start, start + batch, device=device)
        learner.step(images[index], index, RATE)
        if (step + 1) % max(1, sizes.steps // POINTS) == 0:
            points.append(learner.mean_loss())
    return points
