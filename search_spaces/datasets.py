"""Data sets: the facts that a plan needs before any data is there. A new data set is one entry here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Dataset:
    """Facts of one data set. `version` is part of every run's identity: change it when the samples change.

    `train_samples` is the pool that subsets are drawn from; validation samples are cut from the `test_samples`, which
    have clean labels. Pixel statistics are in stored units (0 to 255; 0 to 16 for digits), one a channel.
    """

    name: str
    version: str
    kind: Literal["image", "vector"]
    classes: int
    channels: int
    resolution: int
    train_samples: int
    test_samples: int
    pixel_mean: tuple[float, ...] = ()
    pixel_std: tuple[float, ...] = ()
    embedded: bool = False
    """True where bo-sweep can make the beton itself."""


DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            # scikit-learn's load_digits, 1,797 images: 700 to train on, 1,097 for validation and test.
            name="digits",
            version="sklearn-digits-1",
            kind="image",
            classes=10,
            channels=1,
            resolution=8,
            train_samples=700,
            test_samples=1097,
            pixel_mean=(4.884,),
            pixel_std=(6.017,),
            embedded=True,
        ),
        Dataset(
            # x = y mu + z, z ~ N(0, I): drawn anew for every seed, as large as a space asks for.
            name="gaussian-mixture",
            version="gaussian-mixture-1",
            kind="vector",
            classes=2,
            channels=1,
            resolution=1,
            train_samples=100_000,
            test_samples=0,
            embedded=True,
        ),
        Dataset(
            name="cifar10",
            version="cifar-10-python-c58f30108f718f92721af3b95e74349a",  # md5 of the official archive
            kind="image",
            classes=10,
            channels=3,
            resolution=32,
            train_samples=50_000,
            test_samples=10_000,
            pixel_mean=(125.307, 122.961, 113.8575),
            pixel_std=(51.5865, 50.847, 51.255),
        ),
        Dataset(
            name="cifar100",
            version="cifar-100-python-eb9058c3a382ffc7106e4002c42a8d85",
            kind="image",
            classes=100,
            channels=3,
            resolution=32,
            train_samples=50_000,
            test_samples=10_000,
            pixel_mean=(129.304, 124.070, 112.434),
            pixel_std=(68.170, 65.392, 70.418),
        ),
        Dataset(
            name="imagenet",
            version="ilsvrc2012-1",
            kind="image",
            classes=1000,
            channels=3,
            resolution=224,
            train_samples=1_281_167,
            test_samples=50_000,
            pixel_mean=(123.675, 116.28, 103.53),
            pixel_std=(58.395, 57.12, 57.375),
        ),
    )
}


def dataset_of(name: str) -> Dataset:
    """The facts of a named data set. Raises ValueError for an unknown one."""
    if name not in DATASETS:
        raise ValueError(f"dataset {name!r}: must be one of {', '.join(DATASETS)}")
    return DATASETS[name]
