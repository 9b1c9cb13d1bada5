"""How large the checks and measurements are: for a GPU, or for a quick look at whether everything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A network to measure, and what it is fed with."""

    title: str
    dataset: str
    architecture: str
    width: int
    batch_size: int
    resolution: int
    samples: int
    """Images in the beton, or JPEG files in the folder."""


@dataclass(frozen=True)
class PackSizes:
    """Of packs of CIFAR ResNet18, and of what is shared by them."""

    models: Mapping[int, tuple[int, ...]]
    """How many are trained at once, by their width."""
    batch: int
    processes: tuple[int, ...]
    """How many processes share the GPU, where so many models are trained at once."""
    compiled: tuple[int, ...]
    """Widths at which one model alone is also measured through torch.compile, which takes half a minute each."""
    rounds: int
    seconds: float
    fed: tuple[int, ...]
    """How many ImageNet models one stream feeds."""
    fed_rounds: int
    fed_seconds: float
    check_width: int
    check_steps: int
    check_batch: int


@dataclass(frozen=True)
class Sizes:
    """Rounds are those of the speeds; a round trains each way for `seconds`, once its feed is in its stride."""

    cifar: tuple[Case, ...]
    imagenet: tuple[Case, ...]
    parity: tuple[str, ...]
    parity_batch: int
    parity_side: int
    width: int
    """Of the networks that resume, and that compare precisions, for so many steps of so many samples."""
    steps: int
    batch: int
    rounds: int
    seconds: float
    starting_batches: int
    """Of every feed: not counted."""
    batches_in_flight: int
    """Of each worker of a DataLoader: not counted either."""
    packs: PackSizes


FULL = Sizes(
    cifar=tuple(
        Case(f"CIFAR ResNet18 k=64, batch {batch}", "cifar10", "cifar-resnet18", 64, batch, 32, 50_000)
        for batch in (128, 1024)
    ),
    imagenet=(Case("ImageNet ResNet50 k=64, 224 px, batch 256", "imagenet", "resnet50", 64, 256, 224, 8_192),),
    parity=("resnet18", "resnet34", "resnet50", "resnet101"),
    parity_batch=8,
    parity_side=224,
    width=64,
    steps=400,
    batch=128,
    rounds=5,
    seconds=3.0,
    starting_batches=4,
    batches_in_flight=2,
    packs=PackSizes(
        models={4: (2, 4, 8, 16, 32), 8: (2, 4, 8, 16), 16: (2, 4, 8, 16), 32: (2, 4, 8), 64: (2, 4, 8)},
        batch=128,
        processes=(2, 4, 8),
        compiled=(16,),
        rounds=3,
        seconds=0.15,
        fed=(1, 2, 4, 8),
        fed_rounds=2,
        fed_seconds=1.5,
        check_width=16,
        check_steps=30,
        check_batch=128,
    ),
)
QUICK = Sizes(
    cifar=(Case("CIFAR ResNet18 k=2, batch 8", "cifar10", "cifar-resnet18", 2, 8, 32, 64),),
    imagenet=(Case("ImageNet ResNet18 k=2, 32 px, batch 4", "imagenet", "resnet18", 2, 4, 32, 16),),
    parity=("resnet18",),
    parity_batch=2,
    parity_side=32,
    width=2,
    steps=12,
    batch=8,
    rounds=1,
    seconds=0.0,
    starting_batches=1,
    batches_in_flight=0,
    packs=PackSizes(
        models={2: (2,)},
        batch=8,
        processes=(2,),
        compiled=(),
        rounds=1,
        seconds=0.0,
        fed=(1, 2),
        fed_rounds=1,
        fed_seconds=0.0,
        check_width=2,
        check_steps=3,
        check_batch=8,
    ),
)
