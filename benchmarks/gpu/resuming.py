"""A run that is killed and goes on from its checkpoint gives the table, and the weights, of one that never stopped."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.gpu.learnable import learnable_images
from benchmarks.gpu.modes import exact
from benchmarks.gpu.project import Learner, make_run
from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.verdicts import Line

SAMPLES_IN_BATCHES = 4
EVERY = 5
"""Steps from one row of the table to the next."""


def check(device: torch.device, sizes: Sizes) -> Iterator[Line]:
    """In fp32 and bf16, by deterministic kernels."""
    for precision in ("fp32", "bf16"):
        with exact():
            same_table, same_weights = compare(device, sizes, precision)
        found = {True: "identical, bit for bit", False: "DIFFERS"}
        yield Line(
            f"killed at step {killed_after(sizes)} of {sizes.steps} and resumed, {precision}: losses; weights",
            f"{found[same_table]}; {found[same_weights]}",
            "identical",
            same_table and same_weights,
        )


def compare(device: torch.device, sizes: Sizes, precision: str) -> tuple[bool, bool]:
    """Whether the losses of all rows are the same, and the last weights, batch statistics included."""
    batch, samples = sizes.batch, SAMPLES_IN_BATCHES * sizes.batch
    run = make_run("cifar10", "cifar-resnet18", sizes.width, samples=samples, batch_size=batch, precision=precision)
    images, labels = learnable_images(samples, device)
    whole = Learner(run, labels, device)
    table = train(whole, images, batch, range(sizes.steps))

    killed_at = killed_after(sizes)  # between two rows: the losses since the last one are in the checkpoint too
    killed = Learner(run, labels, device)
    rows = train(killed, images, batch, range(killed_at))
    content = killed.save()
    del killed
    resumed = Learner(run, labels, device)
    resumed.restore(content)
    rows += train(resumed, images, batch, range(killed_at, sizes.steps))
    state, other = whole.model.state_dict(), resumed.model.state_dict()
    return rows == table, all(torch.equal(state[name], other[name]) for name in state)


def killed_after(sizes: Sizes) -> int:
    """Half of the steps, but not where a row was just made."""
    half = sizes.steps // 2
    return half + 1 if half % EVERY == 0 else half


def train(learner: Learner, images: Tensor, batch: int, steps: range) -> list[float]:
    """These steps, and a row of the table after every few."""
    rows = []
    for step in steps:
        start = step * batch % len(images)
        index = torch.arange(start, start + batch, device=images.device)
        learner.step(images[index], index, 0.05)
        if (step + 1) % EVERY == 0:
            rows.append(learner.mean_loss())
    return rows
