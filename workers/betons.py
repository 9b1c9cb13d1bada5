"""The betons of each data set: where they lie in the data folder, and how those that we can make ourselves
are made."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search_spaces.datasets import DATASETS, Dataset
from workers.beton_file import BetonError, check_beton, is_prepared, read_beton, read_manifest, write_beton
from workers.mixture import sample_mixture
from workers.preparation.advice import how_to_prepare
from workers.subsets import split_evaluation

__all__ = [
    "BetonError",
    "Betons",
    "betons_for",
    "check_beton",
    "prepare_digits",
    "prepare_mixture",
    "true_labels",
]


@dataclass(frozen=True)
class Betons:
    """The files of one data set. `test` holds validation and test samples; None where test error is known in
    closed form."""

    train: Path
    test: Path | None


def betons_for(
    dataset: Dataset, folder: Path, *, seed: int, samples: int, dimension: int, signal: float | None
) -> Betons:
    """The checked betons of a run's data set below the data folder, made on the spot where we can make them.

    Args:
        seed, samples, dimension, signal: of the run; only the Gaussian mixture looks at them.

    Raises:
        BetonError: a beton is missing or unusable; the message tells which file has to be written, and how.
        ValueError: a mixture without signal.
    """
    own = folder / dataset.name
    if dataset.name == "gaussian-mixture":
        if signal is None:
            raise ValueError("signal = None: the Gaussian mixture needs the length of its mean, a number above 0")
        train = prepare_mixture(own, samples=samples, dimension=dimension, signal=signal, seed=seed)
        check_beton(train, samples=samples)
        return Betons(train, None)
    if dataset.name == "digits":
        prepare_digits(own)
    betons = Betons(own / "train.beton", own / "test.beton")
    assert betons.test is not None
    _check_images(betons.train, dataset, dataset.train_samples)
    _check_images(betons.test, dataset, dataset.test_samples)
    return betons


def true_labels(path: Path) -> NDArray[np.int64]:
    """The labels stored in a beton, int64[N], without decoding any image."""
    return read_beton(path).labels.copy()


def prepare_digits(folder: Path) -> None:
    """Write scikit-learn's handwritten digits, uint8 [1, 8, 8] with values 0 to 16, as train.beton and
    test.beton.

    1,797 images are split once and for all, stratified: 700 to train on, the other 1,097 for validation and
    test.
    """
    dataset = DATASETS["digits"]
    for part, samples in (("train", dataset.train_samples), ("test", dataset.test_samples)):
        write_beton(
            folder / f"{part}.beton",
            functools.partial(_digits, dataset.train_samples, part),
            samples=samples,
            dataset=dataset.name,
            version=dataset.version,
        )


def prepare_mixture(folder: Path, *, samples: int, dimension: int, signal: float, seed: int) -> Path:
    """The path of a beton with `samples` draws of the Gaussian mixture, float32 vectors with labels 0 and 1.

    The first coordinates of a draw do not depend on how many follow, so a beton of at least `dimension` coordinates
    serves; the smallest that is there is taken, and one is written only where none is.
    """
    dataset = DATASETS["gaussian-mixture"]
    wanted = {"dataset": dataset.name, "version": dataset.version, "samples": samples}
    stem = f"seed{seed}-samples{samples}-signal{float(signal)}-dimension"
    there = {int(path.stem.removeprefix(stem)): path for path in folder.glob(f"{stem}*.beton")}
    for size in sorted(there):
        if size >= dimension and is_prepared(there[size], wanted):
            return there[size]
    path = folder / f"{stem}{dimension}.beton"

    def make() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        vectors, labels = sample_mixture(samples, dimension, signal=signal, seed=seed)
        return vectors.astype(np.float32), labels.astype(np.int64)

    write_beton(path, make, samples=samples, dataset=dataset.name, version=dataset.version)
    return path


def _digits(train_samples: int, part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    from sklearn.datasets import load_digits  # a second to import, and needed only once a data folder

    digits = load_digits()
    labels = digits.target.astype(np.int64)
    train, test = split_evaluation(labels, train_samples, dataset="digits/pool")
    chosen = train if part == "train" else test
    return digits.images[chosen, None].astype(np.uint8), labels[chosen]


def _check_images(path: Path, dataset: Dataset, samples: int) -> None:
    advice = how_to_prepare(dataset.name)
    if not path.exists():
        raise BetonError(path, "there is no such beton", advice)
    check_beton(path, samples=samples)
    manifest = read_manifest(path)
    if manifest is not None:  # FFCV's own scripts write none
        for what, wanted in (("dataset", dataset.name), ("version", dataset.version)):
            if manifest.get(what) != wanted:
                raise BetonError(path, f"it holds {what} {manifest.get(what)!r}, wanted is {wanted!r}", advice)
    labels = read_beton(path).labels
    if labels.min() < 0 or labels.max() >= dataset.classes:
        raise BetonError(path, f"labels lie in {labels.min()}..{labels.max()}, not 0..{dataset.classes - 1}", advice)
