"""Sources of data sets in their true formats, small: image files of every kind, ILSVRC2012 in its layouts, CIFAR
archives as Python 2 pickled them."""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.io
from numpy.typing import NDArray
from PIL import Image

from search_spaces.datasets import DATASETS, Dataset
from workers.preparation.cifar import CIFAR_ARCHIVES, CifarArchive

# Images


def pixels(number: int, height: int = 40, width: int = 50) -> NDArray[np.uint8]:
    """A smooth coloured image, another one for each number, uint8 [height, width, 3]."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [
        np.sin((number + 2) * rows / 40 + channel) + np.cos((number % 7 + 1) * columns / 30) for channel in range(3)
    ]
    return (np.stack(waves, axis=-1) * 60 + 127).astype(np.uint8)


def image_file(array: NDArray[np.uint8], kind: str = "JPEG", mode: str = "RGB") -> bytes:
    """An image as a file of one kind."""
    content = io.BytesIO()
    Image.fromarray(array).convert(mode).save(content, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return content.getvalue()


# ImageNet


@dataclass(frozen=True)
class TinyImageNet:
    """Training images by class and validation images with their class, by file name."""

    train: dict[str, dict[str, bytes]]
    val: dict[str, tuple[str, bytes]]

    @property
    def dataset(self) -> Dataset:
        """The facts to hold a source against."""
        return replace(
            DATASETS["imagenet"],
            classes=len(self.train),
            train_samples=sum(map(len, self.train.values())),
            test_samples=len(self.val),
        )


def tiny_imagenet(classes: int = 10, a_class: int = 3, val: int = 12) -> TinyImageNet:
    """Ids as ImageNet has them; in the training set a CMYK and a grey JPEG, and a PNG that is called .JPEG."""
    wnids = [f"n{1440764 + 37 * number:08}" for number in range(classes)]
    train = {
        wnid: {
            f"{wnid}_{10026 - 7 * image}.JPEG": image_file(pixels(10 * label + image, 40 + image, 50 + label))
            for image in range(a_class)
        }
        for label, wnid in enumerate(wnids)
    }
    odd = train[wnids[1]]
    for name, (kind, mode) in zip(sorted(odd), (("JPEG", "CMYK"), ("JPEG", "L"), ("PNG", "RGBA")), strict=False):
        odd[name] = image_file(pixels(5), kind, mode)
    held_out = {
        f"ILSVRC2012_val_{number:08}.JPEG": (wnids[number * 7 % classes], image_file(pixels(100 + number)))
        for number in range(1, val + 1)
    }
    return TinyImageNet(train, held_out)


def write_train_folders(root: Path, source: TinyImageNet) -> None:
    for wnid, images in source.train.items():
        (root / "train" / wnid).mkdir(parents=True)
        for name, content in images.items():
            (root / "train" / wnid / name).write_bytes(content)


def write_train_tar(root: Path, source: TinyImageNet) -> None:
    """A tar of one tar a class, in an order of its own."""
    outer = {f"{wnid}.tar": tar_of(dict(reversed(images.items()))) for wnid, images in reversed(source.train.items())}
    (root / "ILSVRC2012_img_train.tar").write_bytes(tar_of(outer))


def write_val_folders(root: Path, source: TinyImageNet) -> None:
    for name, (wnid, content) in source.val.items():
        (root / "val" / wnid).mkdir(parents=True, exist_ok=True)
        (root / "val" / wnid / name).write_bytes(content)


def write_val_flat(root: Path, source: TinyImageNet) -> None:
    (root / "val").mkdir(parents=True)
    for name, (_, content) in source.val.items():
        (root / "val" / name).write_bytes(content)


def write_val_tar(root: Path, source: TinyImageNet) -> None:
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar_of({name: content for name, (_, content) in source.val.items()}))


def devkit(source: TinyImageNet) -> dict[str, bytes]:
    """meta.mat and the ground truth; ids do not follow the WordNet ids, and inner nodes of the hierarchy come last."""
    wnids = sorted(source.train)
    ids = {wnid: 1 + (3 * label + 4) % len(wnids) for label, wnid in enumerate(wnids)}
    fields = [
        "ILSVRC2012_ID",
        "WNID",
        "words",
        "gloss",
        "num_children",
        "children",
        "wordnet_height",
        "num_train_images",
    ]
    synsets = np.zeros((len(wnids) + 2, 1), dtype=[(name, object) for name in fields])
    leaf = ("a word, another", "gloss", 0.0, 0.0, 0.0, 3.0)
    rows: list[tuple[object, ...]] = [
        (float(ids[wnid]), wnid, *leaf) for wnid in sorted(ids, key=lambda wnid: ids[wnid])
    ]
    rows += [(len(wnids) + 1.0, "n00001740", "entity", "gloss", 2.0, np.array([1.0, 2.0]), 2.0, 0.0)] * 2
    for number, row in enumerate(rows):
        synsets[number, 0] = row
    content = io.BytesIO()
    scipy.io.savemat(content, {"synsets": synsets})
    truth = "".join(f"{ids[source.val[name][0]]}\n" for name in sorted(source.val))
    return {"data/meta.mat": content.getvalue(), "data/ILSVRC2012_validation_ground_truth.txt": truth.encode()}


def write_devkit(root: Path, source: TinyImageNet) -> None:
    for name, content in devkit(source).items():
        path = root / "ILSVRC2012_devkit_t12" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def write_devkit_tar(root: Path, source: TinyImageNet) -> None:
    files = {f"ILSVRC2012_devkit_t12/{name}": content for name, content in devkit(source).items()}
    (root / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(tar_of(files, "w:gz"))


def tar_of(files: dict[str, bytes], mode: str = "w") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


# CIFAR


@dataclass(frozen=True)
class TinyCifar:
    """Facts of a generated archive, its bytes, and what is in it: images [N, 32, 32, 3] and labels in the order of
    the batches."""

    archive: CifarArchive
    dataset: Dataset
    packed: bytes
    batches: dict[str, bytes]
    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_labels: NDArray[np.int64]


def tiny_cifar(name: str, *, a_batch: int = 20, url: str | None = None) -> TinyCifar:
    """An archive with the official names, `a_batch` images a batch."""
    official, dataset = CIFAR_ARCHIVES[name], DATASETS[name]
    random = np.random.default_rng(len(name))
    batches, images, labels = {}, {}, {}
    for batch, _ in official.train + official.test:
        data = random.integers(0, 256, (a_batch, 3 * 32 * 32), dtype=np.uint8)
        given = random.integers(0, dataset.classes, a_batch)
        content: dict[bytes, object] = {
            b"batch_label": b"training batch 1 of 5",
            official.label_key: given.tolist(),
            b"data": data,
            b"filenames": [b"name_s_%06d.png" % number for number in range(a_batch)],
        }
        if name == "cifar100":
            content[b"coarse_labels"] = [0] * a_batch
        batches[batch] = python2_pickle(content)
        images[batch], labels[batch] = data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), given
    files = {f"{official.folder}/{batch}": content for batch, content in reversed(batches.items())}
    packed = tar_of({f"{official.folder}/readme.html": b"<html>"} | files, "w:gz")
    facts = [[(batch, md5(batches[batch])) for batch, _ in group] for group in (official.train, official.test)]
    archive = replace(official, md5=md5(packed), train=tuple(facts[0]), test=tuple(facts[1]))
    train, test = [batch for batch, _ in archive.train], [batch for batch, _ in archive.test]
    return TinyCifar(
        archive=replace(archive, url=url) if url else archive,
        dataset=replace(dataset, train_samples=a_batch * len(train), test_samples=a_batch * len(test)),
        packed=packed,
        batches=batches,
        train_images=np.concatenate([images[batch] for batch in train]),
        train_labels=np.concatenate([labels[batch] for batch in train]),
        test_labels=np.concatenate([labels[batch] for batch in test]),
    )


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def python2_pickle(content: object) -> bytes:
    """Protocol 2 as Python 2 wrote it, whose strings are byte strings; arrays as NumPy 1 pickled them."""
    return b"\x80\x02" + _pickled(content) + b"."


def _pickled(content: object) -> bytes:
    match content:
        case bytes():
            return (
                b"U" + bytes([len(content)]) if len(content) < 256 else b"T" + struct.pack("<I", len(content))
            ) + content
        case int():
            return b"J" + struct.pack("<i", content)
        case list():
            return b"](" + b"".join(map(_pickled, content)) + b"e"
        case dict():
            return b"}(" + b"".join(_pickled(key) + _pickled(value) for key, value in content.items()) + b"u"
        case np.ndarray():
            assert content.dtype == np.uint8
            empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
            kind = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            shape = b"(" + b"".join(_pickled(side) for side in content.shape) + b"t"
            return empty + b"(K\x01" + shape + kind + b"\x89" + _pickled(content.tobytes()) + b"tb"
    raise TypeError(type(content))
