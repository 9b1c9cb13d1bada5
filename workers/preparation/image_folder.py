"""Anyone's own images, a folder for each class, made into a data set with facts of its own."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from search_spaces.dataset_choice import OwnFacts
from search_spaces.datasets import DATASETS
from workers.preparation.errors import DamagedImagesError, SourceError, writing_to
from workers.preparation.image_files import ImageFiles, prepare_image_files
from workers.preparation.images import Encoding
from workers.preparation.listing import IMAGE_SUFFIXES, images_in, subfolders
from workers.preparation.parallel import available_cores, in_order
from workers.preparation.samples import Sample, content_digests
from workers.preparation.split import Announce, Prepared, Progress, unannounced, untold

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,36}[a-z0-9])?")  # what DatasetChoice allows
TRAIN, HELD_OUT = "train", ("val", "validation", "valid", "test")
SNIPPET = "dataset.yaml"
HASHED_TOGETHER = 256
SMALLEST_STD = 1e-3  # of images that are all of one colour
LAYOUTS = "DIR/train/<class>/* with DIR/val or DIR/test alike, or DIR/<class>/*"
ADVICE = "Repair or delete these files, and give the same command again"


@dataclass(frozen=True)
class PreparedFolder:
    """The betons, the facts, and where the piece of YAML for a search space lies."""

    betons: list[Prepared]
    facts: OwnFacts
    class_names: tuple[str, ...]
    snippet: Path


def prepare_folder(
    source: Path,
    folder: Path,
    *,
    name: str,
    encoding: Encoding,
    resolution: int = 224,
    test_share: float = 0.2,
    workers: int | None = None,
    announce: Announce = unannounced,
    progress: Progress = untold,
) -> PreparedFolder:
    """Write train.beton, test.beton and dataset.yaml of a folder of images into `folder`.

    Args:
        source: in one of LAYOUTS.
        name: of the data set.
        resolution: height and width in pixels that models are to see.
        test_share: share of each class that is held out, in (0, 1), where the source holds nothing out.
        workers: processes that decode; None takes the cores that there are.
        announce: told how many images there are, before any is read.

    Raises:
        SourceError: the source or the name cannot be used; DamagedImagesError names damaged images.
        HostError: the disk is full or cannot be written, or a process was killed.
    """
    check_name(name)
    if not 0 < test_share < 1:
        raise SourceError(f"--test-share {test_share}: allowed are shares above 0 and below 1")
    workers = workers or available_cores()
    class_names, train, test = list_images(source, test_share)
    announce(len(train) + len(test))
    digests = _digests([*train, *test], workers, progress)
    splits = [
        ImageFiles("train", train, _content(train, class_names, digests[: len(train)])),
        ImageFiles("test", test, _content(test, class_names, digests[len(train) :])),
    ]
    settings = json.dumps(encoding.as_settings(), sort_keys=True)
    digest = hashlib.sha256("\n".join([settings, *(split.source for split in splits)]).encode()).hexdigest()
    version = f"{name}-{digest[:16]}"
    betons = prepare_image_files(
        splits,
        folder,
        dataset=name,
        version=version,
        classes=len(class_names),
        encoding=encoding,
        workers=workers,
        with_statistics=True,
        advice=ADVICE,
        progress=progress,
    )
    measured = betons[0].manifest
    facts = OwnFacts(
        version=version,
        classes=len(class_names),
        resolution=resolution,
        train_samples=len(train),
        test_samples=len(test),
        pixel_mean=measured["pixel_mean"],
        pixel_std=tuple(max(value, SMALLEST_STD) for value in measured["pixel_std"]),  # type: ignore[arg-type]
    )
    snippet = folder / SNIPPET
    with writing_to(folder):
        part = snippet.with_name(SNIPPET + ".part")
        part.write_text(as_yaml(name, facts))
        part.replace(snippet)
    return PreparedFolder(betons, facts, class_names, snippet)


def check_name(name: str) -> None:
    """Raises SourceError for a name that cannot be that of a data set of one's own."""
    if name in DATASETS:
        raise SourceError(f"--name {name}: this is a data set that bo-sweep knows. Choose a name of your own")
    if not NAME.fullmatch(name):
        raise SourceError(
            f"--name {name!r}: allowed are up to 38 small letters, digits and '-', the first and last a letter or digit"
        )


def as_yaml(name: str, facts: OwnFacts) -> str:
    """The data set as it stands in a search space."""
    facts_lines = [f"    {key}: {json.dumps(value)}" for key, value in facts.model_dump(mode="json").items()]
    return "\n".join(["dataset:", f'  name: "{name}"', "  facts:", *facts_lines]) + "\n"


def list_images(source: Path, test_share: float) -> tuple[tuple[str, ...], list[Sample], list[Sample]]:
    """Class names, training and held-out samples, each sorted by class, then by name.

    Raises:
        SourceError: no layout that is known, or classes that do not fit, all at once.
    """
    if not source.is_dir():
        raise SourceError(f"--source {source} is not a folder. Name the one that holds {LAYOUTS}")
    train_root = source / TRAIN if (source / TRAIN).is_dir() and subfolders(source / TRAIN) else source
    held_out = [source / name for name in HELD_OUT if train_root != source and (source / name).is_dir()]
    held_out = [root for root in held_out if subfolders(root)]
    class_names = tuple(subfolders(train_root))
    if len(class_names) < 2:
        raise SourceError(
            f"{train_root} holds {len(class_names)} folders, one a class; at least two are needed. Allowed: {LAYOUTS}"
        )
    by_class = [images_in(train_root / name, label) for label, name in enumerate(class_names)]
    problems = [
        f"{train_root / name} holds no images ({', '.join(IMAGE_SUFFIXES)})"
        for name, samples in zip(class_names, by_class, strict=True)
        if not samples
    ]
    unknown = [str(root / name) for root in held_out for name in subfolders(root) if name not in class_names]
    problems += [f"{path} is of a class that {train_root} does not have" for path in unknown]
    if problems:
        raise SourceError("\n".join(problems) + f"\nAllowed are {LAYOUTS}, and every class needs images to train on")
    if held_out:
        train = [sample for samples in by_class for sample in samples]
        test = [
            sample
            for label, name in enumerate(class_names)
            for root in held_out
            if (root / name).is_dir()
            for sample in images_in(root / name, label)
        ]
    else:
        parts = [_cut(samples, class_names[label], test_share) for label, samples in enumerate(by_class)]
        train = [sample for kept, _ in parts for sample in kept]
        test = [sample for _, cut in parts for sample in cut]
    if not test:
        raise SourceError(f"{source} leaves no images to test on: every class has only one. Add images, or DIR/test")
    return class_names, train, test


def _cut(samples: list[Sample], class_name: str, test_share: float) -> tuple[list[Sample], list[Sample]]:
    """Training and test samples of one class. A hash of its name places each image, so that few change sides when
    images are added."""
    count = min(len(samples) - 1, max(1, round(test_share * len(samples))))
    by_hash = sorted(samples, key=lambda sample: hashlib.sha256(f"{class_name}/{sample.name}".encode()).digest())
    cut = set(by_hash[:count])
    return [sample for sample in samples if sample not in cut], [sample for sample in samples if sample in cut]


def _digests(samples: list[Sample], workers: int, progress: Progress) -> list[bytes]:
    """sha256 of every file. Raises DamagedImagesError for those that cannot be read."""
    digests: list[bytes] = []
    damaged: list[tuple[str, str]] = []
    batches = (samples[first : first + HASHED_TOGETHER] for first in range(0, len(samples), HASHED_TOGETHER))
    for batch in in_order(content_digests, batches, min(workers, -(-len(samples) // HASHED_TOGETHER))):
        for digest in batch:
            if isinstance(digest, str):
                damaged.append((samples[len(digests)].title, digest))
            digests.append(digest if isinstance(digest, bytes) else b"")
        progress("reading the source", len(digests), len(samples))
    if damaged:
        raise DamagedImagesError(damaged, ADVICE)
    return digests


def _content(samples: list[Sample], class_names: tuple[str, ...], digests: list[bytes]) -> str:
    """64 hex digits that change with classes, names, order and content of the samples."""
    combined = hashlib.sha256()
    for sample, digest in zip(samples, digests, strict=True):
        combined.update(f"{class_names[sample.label]}\t{sample.name}\t".encode(errors="surrogateescape") + digest)
    return combined.hexdigest()
