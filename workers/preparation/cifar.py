"""CIFAR-10 and CIFAR-100 from their official Python archives: checked, read without running code, stored as pixels."""

from __future__ import annotations

import functools
import pickle
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.datasets import DATASETS
from workers.preparation.download import download, md5_of
from workers.preparation.errors import SourceError, unreadable
from workers.preparation.images import RAW, Encoded, Encoding
from workers.preparation.split import Found, Prepared, Progress, Split, held, prepare_split, untold
from workers.safe_pickle import load_arrays

SIDE = 32
PIXELS = Encoding(max_side=SIDE, jpeg_share=0.0)


@dataclass(frozen=True)
class CifarArchive:
    """Facts of one archive.

    Attributes:
        dataset: name of the data set.
        url, md5: of the archive, whose name is the end of the address.
        folder: the one that it unpacks to.
        train, test: names and md5s of the batches, in the official order.
        label_key: of the labels in a batch.
    """

    dataset: str
    url: str
    md5: str
    folder: str
    train: tuple[tuple[str, str], ...]
    test: tuple[tuple[str, str], ...]
    label_key: bytes

    @property
    def filename(self) -> str:
        """Name of the archive."""
        return self.url.rpartition("/")[2]


CIFAR_ARCHIVES = {
    archive.dataset: archive
    for archive in (
        CifarArchive(
            dataset="cifar10",
            url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            md5="c58f30108f718f92721af3b95e74349a",
            folder="cifar-10-batches-py",
            train=(
                ("data_batch_1", "c99cafc152244af753f735de768cd75f"),
                ("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
                ("data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
                ("data_batch_4", "634d18415352ddfa80567beed471001a"),
                ("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
            ),
            test=(("test_batch", "40351d587109b95175f43aff81a1287e"),),
            label_key=b"labels",
        ),
        CifarArchive(
            dataset="cifar100",
            url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            md5="eb9058c3a382ffc7106e4002c42a8d85",
            folder="cifar-100-python",
            train=(("train", "16019d7e3df5f24257cddd939b257f8d"),),
            test=(("test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),),
            label_key=b"fine_labels",
        ),
    )
}


def prepare_cifar(
    archive: CifarArchive, source: Path, folder: Path, *, fetch: bool = False, progress: Progress = untold
) -> list[Prepared]:
    """Write train.beton and test.beton of CIFAR-10 or CIFAR-100 into `folder`, in the official order.

    Args:
        source: holds the archive or the folder that it unpacks to, or is that folder.
        fetch: download the archive into `source` unless it is there.

    Raises:
        SourceError: no archive, another one than the official one, or not what should be in it.
        HostError: the download or the disk fails.
    """
    if fetch and not _is_official(source / archive.filename, archive.md5):
        download(archive.url, source / archive.filename, md5=archive.md5, progress=progress)
    batches = _read_batches(archive, source)
    dataset = DATASETS[archive.dataset]
    prepared = []
    with held(folder):
        for part, names, samples in (
            ("train", archive.train, dataset.train_samples),
            ("test", archive.test, dataset.test_samples),
        ):
            images, labels = _joined(archive, [batches[name] for name, _ in names], names, samples, dataset.classes)
            split = Split(
                part=part,
                dataset=dataset.name,
                version=dataset.version,
                classes=dataset.classes,
                labels=labels,
                source=f"md5 {archive.md5}",
                encoding=PIXELS,
                images=functools.partial(_encoded, images),
                expected_bytes=lambda images=images: float(images.nbytes),  # type: ignore[misc]
            )
            prepared.append(prepare_split(split, folder, progress))
    return prepared


def _is_official(path: Path, md5: str) -> bool:
    try:
        return md5_of(path) == md5
    except FileNotFoundError:
        return False
    except OSError as error:
        raise unreadable(path, error) from error


def _read_batches(archive: CifarArchive, source: Path) -> dict[str, bytes]:
    """The content of every batch by name, checked against the official checksums."""
    packed = source / archive.filename
    folders = [place for place in (source / archive.folder, source) if (place / archive.train[0][0]).is_file()]
    try:
        if packed.is_file():
            return _unpack(archive, packed)
        if folders:
            return _from_folder(archive, folders[0])
    except OSError as error:
        raise unreadable(error.filename or source, error) from error
    raise SourceError(
        f"{source} has neither {archive.filename} nor the folder {archive.folder}. Add --download, which fetches "
        f"{archive.url}, or name the folder that has one of them with --source"
    )


def _unpack(archive: CifarArchive, packed: Path) -> dict[str, bytes]:
    found = md5_of(packed)
    if found != archive.md5:
        raise SourceError(
            f"{packed} has md5 {found}, expected is {archive.md5}: it is damaged or another file. "
            "Fetch it again with --download, which replaces it"
        )
    try:
        with tarfile.open(packed, "r:gz") as tar:
            content = {}
            for name, _ in archive.train + archive.test:
                member = tar.extractfile(f"{archive.folder}/{name}")
                assert member is not None
                content[name] = member.read()
            return content
    except (KeyError, tarfile.TarError, AssertionError, EOFError) as error:
        raise SourceError(f"{packed} does not hold the batches of {archive.dataset} ({error})") from error


def _from_folder(archive: CifarArchive, folder: Path) -> dict[str, bytes]:
    wrong = []
    for name, expected in archive.train + archive.test:
        path = folder / name
        found = md5_of(path) if path.is_file() else "missing"
        if found != expected:
            wrong.append(f"  {name}: found {found}, expected {expected}")
    if wrong:
        lines = "\n".join(wrong)
        raise SourceError(
            f"{folder} differs from the official files, by md5:\n{lines}\nUnpack {archive.filename} again, or fetch "
            "it with --download"
        )
    return {name: (folder / name).read_bytes() for name, _ in archive.train + archive.test}


def _joined(
    archive: CifarArchive, contents: list[bytes], names: tuple[tuple[str, str], ...], samples: int, classes: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images, uint8 [N, 32, 32, 3], and labels, int64[N], of several batches."""
    images, labels = [], []
    for content, (name, _) in zip(contents, names, strict=True):
        try:
            batch: dict[bytes, Any] = load_arrays(BytesIO(content), encoding="bytes")
            pixels = batch[b"data"].reshape(-1, 3, SIDE, SIDE)
            given = np.array(batch[archive.label_key])
            if pixels.dtype != np.uint8 or given.dtype.kind != "i" or given.shape != (len(pixels),):
                raise ValueError(f"{pixels.dtype} images of shape {pixels.shape}, {given.dtype} labels {given.shape}")
        except (pickle.UnpicklingError, ValueError, KeyError, TypeError, AttributeError, IndexError, EOFError) as error:
            raise SourceError(
                f"the batch {name} of {archive.filename} is not what it should be ({error}). Fetch it with --download"
            ) from error
        images.append(pixels.transpose(0, 2, 3, 1))
        labels.append(given.astype(np.int64))
    joined, joined_labels = np.concatenate(images), np.concatenate(labels)
    if len(joined) != samples or joined_labels.min() < 0 or joined_labels.max() >= classes:
        raise SourceError(
            f"{archive.filename} has {len(joined)} images of classes {joined_labels.min()} to {joined_labels.max()} in "
            f"{', '.join(name for name, _ in names)}, expected are {samples} of classes 0 to {classes - 1}"
        )
    return joined, joined_labels


def _encoded(images: NDArray[np.uint8], found: Found) -> Iterator[Encoded]:
    for image in images:
        yield Encoded(RAW, SIDE, SIDE, image.tobytes())
