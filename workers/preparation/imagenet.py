"""ImageNet (ILSVRC2012) from folders or from its tar files as they come; the order of the samples is always the same.

Training images are sorted by class (WordNet id), then by name, validation images by name. Label noise and subsets go
by the place in this order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from search_spaces.datasets import DATASETS, Dataset
from workers.preparation.devkit import NoLabelsError, validation_classes
from workers.preparation.errors import SourceError, named
from workers.preparation.image_files import ImageFiles, prepare_image_files
from workers.preparation.images import Encoding
from workers.preparation.listing import images_in, images_in_tar, members, subfolders
from workers.preparation.parallel import available_cores
from workers.preparation.samples import Sample, fingerprint
from workers.preparation.split import Announce, Prepared, Progress, unannounced, untold

LISTED_AT_ONCE = 16  # folders: a network file system takes its time for each
ROOTS = ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")
TRAIN_FOLDERS, TRAIN_TAR = ("train", "ILSVRC2012_img_train"), "ILSVRC2012_img_train.tar"
VAL_FOLDERS, VAL_TAR = ("val", "validation", "ILSVRC2012_img_val"), "ILSVRC2012_img_val.tar"
LAYOUTS = (
    "train/<WordNet id>/*.JPEG or ILSVRC2012_img_train.tar; and val/<WordNet id>/*.JPEG, or val/*.JPEG or "
    "ILSVRC2012_img_val.tar together with ILSVRC2012_devkit_t12 (or its .tar.gz, or LOC_val_solution.csv)"
)
ADVICE = (
    "Restore these files from the original archives: without them the order of the samples would be another one. "
    "Then give the same command again"
)


@dataclass(frozen=True)
class ImageNetIndex:
    """Where every image is; validation images are the test split."""

    wnids: tuple[str, ...]
    train: list[Sample]
    val: list[Sample]


def prepare_imagenet(
    source: Path,
    folder: Path,
    *,
    encoding: Encoding,
    workers: int | None = None,
    dataset: Dataset | None = None,
    announce: Announce = unannounced,
    progress: Progress = untold,
) -> list[Prepared]:
    """Write train.beton and test.beton of ImageNet into `folder`.

    Args:
        source: a folder in one of LAYOUTS.
        workers: processes that decode; None takes the cores that there are.
        dataset: the facts to hold the source against; None takes those of ILSVRC2012.
        announce: told how many images there are, before any is read.

    Raises:
        SourceError: the source lacks something, with all that it lacks; DamagedImagesError names damaged images.
        HostError: the disk is full or cannot be written, or a process was killed.
    """
    dataset = dataset or DATASETS["imagenet"]
    index = index_imagenet(source, dataset, progress)
    announce(len(index.train) + len(index.val))
    return prepare_image_files(
        [
            ImageFiles(part, samples, f"names and sizes, sha256 {fingerprint(samples)}")
            for part, samples in (("train", index.train), ("test", index.val))
        ],
        folder,
        dataset=dataset.name,
        version=dataset.version,
        classes=dataset.classes,
        encoding=encoding,
        workers=workers or available_cores(),
        advice=ADVICE,
        progress=progress,
    )


def index_imagenet(source: Path, dataset: Dataset, progress: Progress = untold) -> ImageNetIndex:
    """Find every image of `source` and its class, and hold the numbers against the facts of `dataset`.

    Raises:
        SourceError: all that is missing or wrong.
    """
    if not source.is_dir():
        raise SourceError(f"--source {source} is not a folder. Name the one that holds {LAYOUTS}")
    by_class = _train_by_class(source, progress)
    wnids = tuple(sorted(by_class))
    problems = _train_problems(by_class, dataset)
    val: list[Sample] = []
    try:
        val = _val(source, wnids, progress)
    except NoLabelsError as error:
        problems.append(str(error))
    if len(val) != dataset.test_samples:
        problems.append(f"found {len(val):,} validation images, expected are {dataset.test_samples:,}")
    if problems:
        raise SourceError(
            f"{source} is not the whole of ILSVRC2012:\n" + named(problems) + f"\nAllowed layouts: {LAYOUTS}. Complete "
            "the source and give the same command again"
        )
    return ImageNetIndex(wnids, [sample for wnid in wnids for sample in by_class[wnid]], val)


def _first(source: Path, names: tuple[str, ...]) -> Path | None:
    places = [source / root / name for root in ROOTS for name in names]
    return next((place for place in places if place.exists()), None)


def _train_by_class(source: Path, progress: Progress) -> dict[str, list[Sample]]:
    """Samples by WordNet id, sorted by name and labelled by the place of their class."""
    folder, tar = _first(source, TRAIN_FOLDERS), _first(source, (TRAIN_TAR,))
    if folder and (wnids := subfolders(folder)):
        with ThreadPoolExecutor(LISTED_AT_ONCE) as pool:
            listed = pool.map(images_in, [folder / wnid for wnid in wnids], range(len(wnids)))
            return dict(zip(wnids, _told(listed, len(wnids), progress), strict=True))
    if folder and (packed := sorted(folder.glob("n*.tar"))):
        return {path.stem: images_in_tar(path, label) for label, path in enumerate(packed)}
    if tar:
        inner = sorted(member for member in members(tar) if member.name.endswith(".tar"))
        tars = (images_in_tar(tar, label, member) for label, member in enumerate(inner))
        names = [member.name.removesuffix(".tar") for member in inner]
        return dict(zip(names, _told(tars, len(inner), progress), strict=True))
    return {}


def _told(classes: Iterable[list[Sample]], total: int, progress: Progress) -> Iterator[list[Sample]]:
    for done, samples in enumerate(classes):
        progress("listing train", done, total)
        yield samples


def _val(source: Path, wnids: tuple[str, ...], progress: Progress) -> list[Sample]:
    """Validation images by name, with the labels that the training classes have."""
    folder, tar = _first(source, VAL_FOLDERS), _first(source, (VAL_TAR,))
    progress("listing val", 0, 0)
    by_class = subfolders(folder) if folder else []
    if folder and by_class:
        found = [(sample, wnid) for wnid in by_class for sample in images_in(folder / wnid, 0)]
    elif folder or tar:
        flat = images_in(folder, 0) if folder else []
        if tar and not flat:
            flat = images_in_tar(tar, 0)
        found = list(zip(flat, validation_classes(source, [sample.name for sample in flat]), strict=True))
    else:
        raise NoLabelsError(f"there is no folder val, and no {VAL_TAR}")
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    unknown = sorted({wnid for _, wnid in found} - set(wnids))
    if unknown:
        raise NoLabelsError(f"validation classes without training images: {', '.join(unknown[:10])}")
    found.sort(key=lambda pair: pair[0].name)
    return [sample._replace(label=labels[wnid]) for sample, wnid in found]


def _train_problems(by_class: dict[str, list[Sample]], dataset: Dataset) -> list[str]:
    if not by_class:
        return [f"there is no folder train with a folder for each class, and no {TRAIN_TAR}"]
    problems = []
    if len(by_class) != dataset.classes:
        problems.append(f"found {len(by_class):,} training classes, expected are {dataset.classes:,}")
    empty = [wnid for wnid, samples in by_class.items() if not samples]
    if empty:
        problems.append(f"training classes without images: {', '.join(empty[:10])}{', ...' if empty[10:] else ''}")
    count = sum(map(len, by_class.values()))
    if count != dataset.train_samples:
        fewest = min(by_class, key=lambda wnid: len(by_class[wnid]))
        problems.append(
            f"found {count:,} training images, expected are {dataset.train_samples:,}; the fewest, "
            f"{len(by_class[fewest])}, has class {fewest}"
        )
    return problems
