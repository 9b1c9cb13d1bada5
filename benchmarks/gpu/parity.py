"""On the device, with torchvision's weights, ours is torchvision's network: outputs, loss and gradients in fp32."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torchvision
from torch.nn.functional import cross_entropy

from benchmarks.gpu.modes import exact
from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.verdicts import Line
from workers.resnet import build_model

CLASSES = 1000
TOLERANCE = 1e-5
"""Largest difference over the largest value, of outputs and of each gradient. cuDNN's kernels are chosen to be
deterministic, so that 0 is expected; another choice for one of the two would show as float32 rounding."""


def check(device: torch.device, sizes: Sizes) -> Iterator[Line]:
    """A line for each architecture, in channels_last, at width 64."""
    for architecture in sizes.parity:
        with exact():
            differences = compare(architecture, device, sizes)
        worst = max(differences.values())
        text = ", ".join(f"{what} {value:.1e}" for what, value in differences.items())
        yield Line(
            f"{architecture}, torchvision's weights, fp32 without TF32: largest relative difference",
            "all equal, bit for bit" if worst == 0 else text,
            f"<= {TOLERANCE:g}",
            worst <= TOLERANCE,
        )


def compare(architecture: str, device: torch.device, sizes: Sizes) -> dict[str, float]:
    """Largest relative differences of outputs in training and evaluation, and of gradients."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reference = torchvision.models.get_model(architecture, weights=None)
        images = torch.randn(sizes.parity_batch, 3, sizes.parity_side, sizes.parity_side)
    ours = build_model(architecture, 64, classes=CLASSES, channels=3, seed=0)
    ours.load_state_dict(reference.state_dict(), strict=True)
    images = images.to(device, memory_format=torch.channels_last)
    labels = torch.arange(len(images), device=device)
    trained, evaluated, gradients = [], [], []
    for model in (ours, reference):
        model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        logits = model.train()(images)
        cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
        trained.append(logits.detach())
        gradients.append([parameter.grad for parameter in model.parameters()])
        with torch.inference_mode():
            evaluated.append(model.eval()(images))
    return {
        "training": difference(*trained),
        "evaluation": difference(*evaluated),
        "gradients": max(difference(mine, other) for mine, other in zip(*gradients, strict=True)),
    }


def difference(ours: torch.Tensor, reference: torch.Tensor) -> float:
    """Largest difference over the largest value of the reference."""
    return ((ours - reference).abs().max() / reference.abs().max()).item()
