"""Architectures as layer tables: parameters, activations and multiply-adds in closed form, without torch.

An architecture is one entry of `ARCHITECTURES`; everything else (model, counts, memory, time) follows from its shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal


@dataclass(frozen=True)
class ResNetShape:
    """A post-activation ResNet by width (He et al. 2016, arXiv 1512.03385; bottleneck stride as in torchvision).

    Stage i has `depths[i]` blocks with `width * 2**i` base channels. At width 64 the ImageNet shapes are torchvision's.
    """

    stem: Literal["cifar", "imagenet"]
    block: Literal["basic", "bottleneck"]
    depths: tuple[int, ...]

    @property
    def expansion(self) -> int:
        """Output channels of a block over its base channels."""
        return 4 if self.block == "bottleneck" else 1


@dataclass(frozen=True)
class LinearShape:
    """A linear classifier without bias on vectors: `width` is the dimension, and so the parameter count."""


@dataclass(frozen=True)
class Layer:
    """One layer at one input size: trainable parameters, output elements and multiply-adds for one sample."""

    name: str
    parameters: int
    activations: int
    multiply_adds: int


ARCHITECTURES: dict[str, ResNetShape | LinearShape] = {
    "tiny-resnet": ResNetShape("cifar", "basic", (1, 1)),
    "cifar-resnet18": ResNetShape("cifar", "basic", (2, 2, 2, 2)),
    "resnet18": ResNetShape("imagenet", "basic", (2, 2, 2, 2)),
    "resnet34": ResNetShape("imagenet", "basic", (3, 4, 6, 3)),
    "resnet50": ResNetShape("imagenet", "bottleneck", (3, 4, 6, 3)),
    "resnet101": ResNetShape("imagenet", "bottleneck", (3, 4, 23, 3)),
    "linear": LinearShape(),
}


def _halved(side: int) -> int:
    """Side of a feature map after a stride-2 layer with 'same' padding."""
    return (side + 1) // 2


def _convolution(name: str, inputs: int, outputs: int, kernel: int, side: int) -> Layer:
    """A convolution without bias, and its output of `outputs` x `side` x `side`."""
    weights = kernel * kernel * inputs * outputs
    return Layer(name, weights, outputs * side * side, weights * side * side)


def _batch_norm(name: str, channels: int, side: int) -> Layer:
    """Batch norm and the ReLU behind it: scale and shift for each channel."""
    elements = channels * side * side
    return Layer(name, 2 * channels, elements, 2 * elements)


def _block_layers(
    name: str, block: str, inputs: int, base: int, outputs: int, side: int, out_side: int
) -> Iterator[Layer]:
    if block == "basic":
        plan = [(inputs, base, 3, out_side), (base, outputs, 3, out_side)]
    else:
        plan = [(inputs, base, 1, side), (base, base, 3, out_side), (base, outputs, 1, out_side)]
    for i, (c_in, c_out, kernel, out) in enumerate(plan, start=1):
        yield _convolution(f"{name}.conv{i}", c_in, c_out, kernel, out)
        yield _batch_norm(f"{name}.bn{i}", c_out, out)
    if inputs != outputs or side != out_side:
        yield _convolution(f"{name}.downsample.0", inputs, outputs, 1, out_side)
        yield _batch_norm(f"{name}.downsample.1", outputs, out_side)


def _resnet_layers(shape: ResNetShape, width: int, classes: int, channels: int, resolution: int) -> Iterator[Layer]:
    side = resolution
    if shape.stem == "imagenet":
        side = _halved(side)
    yield _convolution("conv1", channels, width, 7 if shape.stem == "imagenet" else 3, side)
    yield _batch_norm("bn1", width, side)
    if shape.stem == "imagenet":
        side = _halved(side)
        yield Layer("maxpool", 0, width * side * side, 0)
    inputs = width
    for stage, depth in enumerate(shape.depths):
        base = width * 2**stage
        outputs = base * shape.expansion
        for block in range(depth):
            out_side = _halved(side) if stage > 0 and block == 0 else side
            yield from _block_layers(f"layer{stage + 1}.{block}", shape.block, inputs, base, outputs, side, out_side)
            inputs, side = outputs, out_side
    yield Layer("fc", inputs * classes + classes, classes, inputs * classes)


@lru_cache(maxsize=4096)
def layers(architecture: str, width: int, *, classes: int, channels: int, resolution: int) -> tuple[Layer, ...]:
    """All layers of `architecture` at `width` on `channels` x `resolution` x `resolution` inputs (pixels).

    Raises:
        ValueError: unknown architecture, or a width below 1.
    """
    shape = shape_of(architecture)
    if width < 1:
        raise ValueError(f"width {width}: must be at least 1")
    if isinstance(shape, LinearShape):
        return (Layer("linear", width, 1, width),)
    return tuple(_resnet_layers(shape, width, classes, channels, resolution))


def shape_of(architecture: str) -> ResNetShape | LinearShape:
    """The shape of a named architecture. Raises ValueError for an unknown one."""
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture {architecture!r}: must be one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[architecture]


def count_parameters(architecture: str, width: int, *, classes: int, channels: int) -> int:
    """Trainable parameters of `architecture` at `width`; exact (it does not depend on the resolution)."""
    return sum(
        layer.parameters for layer in layers(architecture, width, classes=classes, channels=channels, resolution=1)
    )


def count_multiply_adds(architecture: str, width: int, *, classes: int, channels: int, resolution: int) -> int:
    """Multiply-adds of one forward pass on one sample."""
    table = layers(architecture, width, classes=classes, channels=channels, resolution=resolution)
    return sum(layer.multiply_adds for layer in table)


def count_activations(architecture: str, width: int, *, classes: int, channels: int, resolution: int) -> int:
    """Elements that the backward pass of one sample keeps: every layer's output."""
    table = layers(architecture, width, classes=classes, channels=channels, resolution=resolution)
    return sum(layer.activations for layer in table)


def final_resolution(architecture: str, resolution: int) -> int:
    """Height and width of the last feature maps of a ResNet, in pixels, on inputs of this height and width."""
    shape = shape_of(architecture)
    assert isinstance(shape, ResNetShape)
    for _ in range(len(shape.depths) - 1 + (2 if shape.stem == "imagenet" else 0)):
        resolution = _halved(resolution)
    return resolution


def width_for(architecture: str, target_parameters: float, *, classes: int, channels: int) -> int:
    """The width whose parameter count is nearest to `target_parameters` in ratio (counts grow with width)."""

    def count(width: int) -> int:
        return count_parameters(architecture, width, classes=classes, channels=channels)

    high = 1
    while count(high) < target_parameters:
        high *= 2
    low = max(1, high // 2)
    while low < high:  # the smallest width that reaches the target
        middle = (low + high) // 2
        low, high = (low, middle) if count(middle) >= target_parameters else (middle + 1, high)
    below = max(1, low - 1)
    return min((below, low), key=lambda width: abs(count(width) / target_parameters - 1))
