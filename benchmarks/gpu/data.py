"""The data sets of the speeds, made up on this machine: CIFAR-shaped raw images, and photographs as JPEG."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.project import HAS_FFCV
from benchmarks.gpu.sizes import Case, Sizes
from benchmarks.measuring.contestants import contestants
from benchmarks.measuring.photos import Photos, write_photos

CIFAR_SIDE = 32


def prepare_all(sizes: Sizes, folder: Path, cores: int) -> None:
    """Make what is measured with. In a process of its own, since FFCV's writer forks, which CUDA does not survive."""
    with contestants(["data"], cores) as found:
        found["data"].call(_prepare, sizes, folder, cores)


def cifar_images(samples: int) -> NDArray[np.uint8]:
    """Random images, uint8[samples, 32, 32, 3]: raw ones cost the same whatever they show."""
    return np.random.default_rng(0).integers(0, 256, (samples, CIFAR_SIDE, CIFAR_SIDE, 3), dtype=np.uint8)


def photo_folder(folder: Path) -> Path:
    return folder / "photos"


def beton_path(folder: Path, case: Case) -> Path:
    return folder / f"{case.dataset}.beton"


def _prepare(sizes: Sizes, folder: Path, cores: int) -> None:
    cifar, imagenet = sizes.cifar[0], sizes.imagenet[0]
    write_photos(photo_folder(folder), imagenet.samples, processes=cores)
    if not HAS_FFCV:
        return
    from workers import quiet_ffcv as ffcv

    images = cifar_images(cifar.samples)
    for case, mode, samples in (
        (cifar, "raw", list(zip(images, range(len(images)), strict=True))),
        (imagenet, "jpg", Photos(photo_folder(folder))),
    ):
        fields = {"image": ffcv.RGBImageField(write_mode=mode, jpeg_quality=90), "label": ffcv.IntField()}
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):  # its progress bar
            ffcv.DatasetWriter(str(beton_path(folder, case)), fields, num_workers=cores).from_indexed_dataset(samples)
