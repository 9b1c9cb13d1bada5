"""The ways to feed images to a network: our stream, FFCV as it comes, and torch's DataLoader with Pillow.

Each is a function that opens a feed; a feed is called with the number of an epoch and gives its batches: float32
images [batch, 3, resolution, resolution] on the CPU, normalised with ImageNet's constants, and their labels or
indices. FFCV as it comes sets thread counts of its whole process and must not be mixed with ours, which switches its
compiler off: a process opens one or the other.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.measuring.photos import photo_paths
from search_spaces.datasets import dataset_of

Batches = Iterator[tuple[Tensor, Tensor]]
Feed = Callable[[int], Batches]
IMAGENET = dataset_of("imagenet")
MEAN, STD = IMAGENET.pixel_mean, IMAGENET.pixel_std
"""In stored units, 0 to 255."""


@dataclass(frozen=True)
class View:
    """What becomes of each image: RandomResizedCrop and a flip, in random order, or a central crop, in file order.

    Small images, all of one size, are moved by up to 4 pixels and flipped.
    """

    trains: bool
    resolution: int
    small: bool = False

    @property
    def augmentation(self) -> str:
        if self.small:
            return "crop-flip"
        return "resized-crop-flip" if self.trains else "center-crop"


def open_ours(beton: Path, view: View, *, batch_size: int, workers: int, device: torch.device | None = None) -> Feed:
    """`workers.loader`; on `device`, the CPU where none is given."""
    from workers.loader import open_stream
    from workers.randomness import key, order

    stream = open_stream(
        beton,
        batch_size=batch_size,
        augmentation=view.augmentation,
        resolution=view.resolution,
        pixel_mean=MEAN,
        pixel_std=STD,
        device=device or torch.device("cpu"),
        workers=workers,
    )
    indices = np.arange(stream.beton.samples)

    def epoch(number: int) -> Batches:
        order_now = order("order", 0, indices, epoch=number) if view.trains else indices
        return stream.batches(order_now, augment_key=key("augment", 0, epoch=number))

    return epoch


def open_bare_ffcv(beton: Path, view: View, *, batch_size: int, workers: int) -> Feed:
    """FFCV's own loader and operations, as its documentation has them, normalising on the CPU."""
    assert "workers.quiet_ffcv" not in sys.modules, "its compiler is switched off in this process"
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import (
        CenterCropRGBImageDecoder,
        RandomResizedCropRGBImageDecoder,
        SimpleRGBImageDecoder,
    )
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import (
        NormalizeImage,
        RandomHorizontalFlip,
        RandomTranslate,
        Squeeze,
        ToTensor,
        ToTorchImage,
    )

    from workers.augment import CENTER_RATIO, PADDING

    sides = (view.resolution, view.resolution)
    first: list[Any] = {
        "crop-flip": lambda: [SimpleRGBImageDecoder(), RandomHorizontalFlip(), RandomTranslate(PADDING)],
        "resized-crop-flip": lambda: [RandomResizedCropRGBImageDecoder(sides), RandomHorizontalFlip()],
        "center-crop": lambda: [CenterCropRGBImageDecoder(sides, CENTER_RATIO)],
    }[view.augmentation]()
    normalise = NormalizeImage(np.array(MEAN), np.array(STD), np.float32)
    loader = Loader(
        str(beton),
        batch_size,
        num_workers=workers,
        os_cache=True,
        order=OrderOption.RANDOM if view.trains else OrderOption.SEQUENTIAL,
        seed=0,
        drop_last=False,
        pipelines={
            "image": [*first, normalise, ToTensor(), ToTorchImage()],
            "label": [IntDecoder(), ToTensor(), Squeeze()],
        },
    )
    return lambda number: iter(loader)


def open_data_loader(folder: Path, view: View, *, batch_size: int, workers: int) -> Feed:
    """torch's DataLoader over JPEG files: Pillow decodes, torchvision augments, each worker a process that stays."""
    loader = DataLoader(
        PhotoFiles(folder, view),
        batch_size,
        shuffle=view.trains,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=torch.cuda.is_available(),
    )
    return lambda number: iter(loader)


class PhotoFiles(Dataset[tuple[Tensor, int]]):
    """The folder of photographs, as torchvision's reference training reads one."""

    def __init__(self, folder: Path, view: View) -> None:
        from torchvision import transforms

        from workers.augment import CENTER_RATIO

        self._paths = photo_paths(folder)
        crop: list[Any] = (
            [transforms.RandomResizedCrop(view.resolution), transforms.RandomHorizontalFlip()]
            if view.trains
            else [transforms.Resize(round(view.resolution / CENTER_RATIO)), transforms.CenterCrop(view.resolution)]
        )
        constants = ([value / 255 for value in values] for values in (MEAN, STD))
        self._transform = transforms.Compose([*crop, transforms.ToTensor(), transforms.Normalize(*constants)])

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        with Image.open(self._paths[number]) as image:
            return self._transform(image.convert("RGB")), number
