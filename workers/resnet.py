"""ResNets of any width, with torchvision's parameter names (so its weights can be copied in at width 64).

He et al., "Deep residual learning", CVPR 2016; post-activation blocks, projection shortcuts where the shape changes,
and the bottleneck's stride in its 3x3 convolution (torchvision's "v1.5").

Several models of one shape can be one network: its convolutions are grouped, one group a model, and its batch norm goes
over the channels of all of them, which is the batch norm of each. The models see the same images, so that the first
convolution is a plain one. Parameters have the same names, with the models one after the other along the first
dimension (see stacking.py).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad, relu

from search_spaces.architectures import LinearShape, ResNetShape, shape_of
from workers import randomness


class BasicBlock(nn.Module):
    """Two 3x3 convolutions."""

    def __init__(self, inputs: int, base: int, outputs: int, stride: int, models: int) -> None:
        super().__init__()
        self.conv1 = _convolution(inputs, base, 3, stride, models)
        self.bn1 = nn.BatchNorm2d(models * base)
        self.conv2 = _convolution(base, outputs, 3, 1, models)
        self.bn2 = nn.BatchNorm2d(models * outputs)
        self.downsample = _shortcut(inputs, outputs, stride, models)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.bn2(self.conv2(x))
        return relu(x + shortcut, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions; the last widens."""

    def __init__(self, inputs: int, base: int, outputs: int, stride: int, models: int) -> None:
        super().__init__()
        self.conv1 = _convolution(inputs, base, 1, 1, models)
        self.bn1 = nn.BatchNorm2d(models * base)
        self.conv2 = _convolution(base, base, 3, stride, models)
        self.bn2 = nn.BatchNorm2d(models * base)
        self.conv3 = _convolution(base, outputs, 1, 1, models)
        self.bn3 = nn.BatchNorm2d(models * outputs)
        self.downsample = _shortcut(inputs, outputs, stride, models)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = relu(self.bn1(self.conv1(x)), inplace=True)
        x = relu(self.bn2(self.conv2(x)), inplace=True)
        x = self.bn3(self.conv3(x))
        return relu(x + shortcut, inplace=True)


class ResNet(nn.Module):
    """Images, float[batch, channels, height, width], to logits, float[batch, classes]; with several models to
    float[models, batch, classes]."""

    def __init__(self, shape: ResNetShape, width: int, *, classes: int, channels: int, models: int = 1) -> None:
        super().__init__()
        if shape.stem == "cifar":
            self.conv1 = nn.Conv2d(channels, models * width, 3, padding=1, bias=False)
            self.maxpool: nn.Module = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(channels, models * width, 7, stride=2, padding=3, bias=False)
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(models * width)
        self.stages = [f"layer{stage + 1}" for stage in range(len(shape.depths))]
        inputs = width
        for stage, (name, depth) in enumerate(zip(self.stages, shape.depths, strict=True)):
            base = width * 2**stage
            self.add_module(name, _stage(shape, depth, inputs, base, stride=1 if stage == 0 else 2, models=models))
            inputs = base * shape.expansion
        self.avgpool = nn.AdaptiveAvgPool2d(1) if models == 1 else _Average()
        self.fc = nn.Linear(inputs, classes) if models == 1 else Heads(models, inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(relu(self.bn1(self.conv1(x)), inplace=True))
        for name in self.stages:
            x = self.get_submodule(name)(x)
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


class _Average(nn.Module):
    """The mean over all pixels, by a kernel that adds up every channel in the same order, wherever it stands."""

    def forward(self, x: Tensor) -> Tensor:
        return avg_pool2d(x, x.shape[2:])


LINE = 16
"""Numbers (float32) in a line of a CPU's cache."""


class Heads(nn.Module):
    """The linear layers of several models: float[batch, models * inputs] to float[models, batch, classes]."""

    def __init__(self, models: int, inputs: int, classes: int) -> None:
        super().__init__()
        self.shape = (models, classes, inputs)
        self.weight = nn.Parameter(torch.empty(models * classes, inputs))
        self.bias = nn.Parameter(torch.empty(models * classes))

    def forward(self, x: Tensor) -> Tensor:
        models, classes, inputs = self.shape
        features = _padded(x.view(-1, models, inputs).transpose(0, 1))
        weight = _padded(self.weight.view(self.shape), classes)
        logits = torch.bmm(features, weight.transpose(1, 2))[..., :classes]
        return logits + self.bias.view(models, 1, classes)


def _padded(matrices: Tensor, rows: int = 0) -> Tensor:
    """On a CPU, a copy of the matrices [models, rows, columns] with zeros up to whole cache lines, and zero rows alike.

    The libraries that multiply take other kernels, and round otherwise, for a matrix that does not begin with a cache
    line; by itself that of the first model does, and those of others do or do not.
    """
    if matrices.device.type != "cpu":
        return matrices
    filled = (0, -matrices.shape[2] % LINE, 0, -rows % LINE)
    return pad(matrices, filled).contiguous()


def build_model(architecture: str, width: int, *, classes: int, channels: int, seed: int) -> ResNet:
    """A freshly initialised model in training mode, on the CPU, float32.

    The weights depend on (architecture, width, classes, channels, seed) alone; torch's global random state is neither
    used nor changed. ValueError for an unknown architecture, or one that is not a network.
    """
    model = empty_model(architecture, width, classes=classes, channels=channels)
    initialize(model, seed=seed)
    return model


def empty_model(architecture: str, width: int, *, classes: int, channels: int, models: int = 1) -> ResNet:
    """One or several models in one network, whose parameters and buffers are memory that is still to be filled."""
    shape = shape_of(architecture)
    if isinstance(shape, LinearShape):
        raise ValueError(f"{architecture} is not trained as a network: use optimizer gradient-flow with it")
    if width < 1:
        raise ValueError(f"width {width}: must be at least 1")
    with torch.device("meta"):  # shapes only: the modules would else draw from the global generator
        model = ResNet(shape, width, classes=classes, channels=channels, models=models)
    model.to_empty(device="cpu")
    return model


@torch.no_grad()
def initialize(model: nn.Module, *, seed: int) -> None:
    """Draw all weights from the run's "init" stream, in module order.

    Convolutions: normal with variance 2 / (outputs * kernel area) (He et al. 2015, fan-out). Batch norm: scale 1,
    shift 0. Linear: weight and bias uniform in +-1 / sqrt(inputs), as torch does.
    """
    generator = torch.Generator().manual_seed(randomness.torch_seed("init", seed))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            for parameter in module.parameters():
                parameter.uniform_(-bound, bound, generator=generator)


def _stage(shape: ResNetShape, depth: int, inputs: int, base: int, *, stride: int, models: int) -> nn.Sequential:
    """Blocks at one resolution; the first one changes the shape."""
    block = BasicBlock if shape.block == "basic" else Bottleneck
    outputs = base * shape.expansion
    first = block(inputs, base, outputs, stride, models)
    return nn.Sequential(first, *(block(outputs, base, outputs, 1, models) for _ in range(depth - 1)))


def _shortcut(inputs: int, outputs: int, stride: int, models: int) -> nn.Sequential | None:
    """A projection where the block changes the shape; None stands for the identity."""
    if inputs == outputs and stride == 1:
        return None
    return nn.Sequential(_convolution(inputs, outputs, 1, stride, models), nn.BatchNorm2d(models * outputs))


def _convolution(inputs: int, outputs: int, kernel: int, stride: int, models: int) -> nn.Conv2d:
    return nn.Conv2d(models * inputs, models * outputs, kernel, stride, padding=kernel // 2, groups=models, bias=False)
