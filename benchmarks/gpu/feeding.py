"""Batches for the step, in three ways: those that lie on the device already, our stream, and torch's DataLoader.

Each gives normalised float32 inputs in channels_last and the indices of their samples, on the device, without end.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from benchmarks.gpu.data import beton_path, cifar_images, photo_folder
from benchmarks.gpu.sizes import Case
from benchmarks.measuring.feeds import PhotoFiles, View
from search_spaces.datasets import dataset_of
from workers.randomness import key, order

Batches = Generator[tuple[Tensor, Tensor]]
KEPT = 4
"""Batches that lie on the device."""
STRETCH = 400_000
"""Images from one start of a feed to the next, so that starting shows in none of the figures."""


def kept_batches(case: Case, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Batches of noise on the device."""
    shape = (case.batch_size, 3, case.resolution, case.resolution)
    random = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(KEPT):
        inputs = torch.randn(shape, generator=random).to(device, memory_format=torch.channels_last)
        batches.append((inputs, torch.randint(case.samples, shape[:1], generator=random).to(device)))
    return batches


def our_stream(case: Case, folder: Path, device: torch.device, cores: int) -> Batches:
    """The project's stream, with as many decoding threads as there are cores."""
    from workers.loader import open_stream

    facts = dataset_of(case.dataset)
    stream = open_stream(
        beton_path(folder, case),
        batch_size=case.batch_size,
        augmentation="crop-flip" if case.dataset == "cifar10" else "resized-crop-flip",
        resolution=case.resolution,
        pixel_mean=facts.pixel_mean,
        pixel_std=facts.pixel_std,
        device=device,
        workers=cores,
    )
    every, epochs = np.arange(case.samples), -(-STRETCH // case.samples)
    for start in itertools.count(step=epochs):
        indices = np.concatenate([order("order", 0, every, epoch=epoch) for epoch in range(start, start + epochs)])
        yield from stream.batches(indices, augment_key=key("augment", 0, epoch=start))


def open_data_loader(case: Case, folder: Path, device: torch.device, cores: int) -> DataLoader[tuple[Tensor, int]]:
    """torch's DataLoader with a worker process a core: Pillow and torchvision's transforms."""
    dataset: Dataset[tuple[Tensor, int]]
    if case.dataset == "cifar10":
        dataset = CifarImages(cifar_images(case.samples))
    else:
        dataset = PhotoFiles(photo_folder(folder), View(trains=True, resolution=case.resolution))
    return DataLoader(
        dataset,
        case.batch_size,
        sampler=RandomSampler(dataset, num_samples=STRETCH),  # type: ignore[arg-type]  # it has a length
        num_workers=cores,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
        drop_last=True,
    )


def loaded_batches(loader: DataLoader[tuple[Tensor, int]], device: torch.device) -> Batches:
    """What a DataLoader gives, brought to the device."""
    while True:
        for inputs, index in loader:
            on_device = inputs.to(device, memory_format=torch.channels_last, non_blocking=True)
            yield on_device, index.to(device, non_blocking=True)


class CifarImages(Dataset[tuple[Tensor, int]]):
    """Images in memory, as torchvision's CIFAR10 has them, and the usual augmentation."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        from torchvision import transforms

        facts = dataset_of("cifar10")
        constants = ([value / 255 for value in values] for values in (facts.pixel_mean, facts.pixel_std))
        self._images = images
        crop: list[Any] = [transforms.RandomCrop(images.shape[1], padding=4), transforms.RandomHorizontalFlip()]
        self._transform = transforms.Compose([*crop, transforms.ToTensor(), transforms.Normalize(*constants)])

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._images[number])), number
