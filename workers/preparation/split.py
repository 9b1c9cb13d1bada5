"""One split of a data set made into its beton and manifest: skipped when it is there, whole or not at all, checked."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from workers.beton_file import is_prepared, manifest_path, read_manifest
from workers.preparation.errors import HostError, SourceError, writing_to
from workers.preparation.images import Encoded, Encoding
from workers.preparation.writing import page_bytes, write_images
from workers.safe_writing import flush

HASHED_AT_ONCE = 16 * 2**20
EXPECTED_BESIDE = 2 * 2**20
"""Bytes beside the images that a small beton takes: at least pages that are not full."""
Announce = Callable[[int], None]
"""Told how many images there are, before any is read."""


class Progress(Protocol):
    """Told how far a stage is; `total` is 0 where it is not known."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


def unannounced(images: int) -> None:
    """A number of images that nobody wants to hear."""


def untold(stage: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


@dataclass
class Found:
    """What came to light while the images were made; filled by the time the last one is handed out.

    Attributes:
        notes: how many images were converted, by kind.
        statistics: pixel_mean and pixel_std, where they are wanted.
    """

    notes: Counter[str] = field(default_factory=Counter)
    statistics: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Split:
    """What is to be written.

    Attributes:
        part: "train" or "test".
        dataset, version: for the manifest, by which a launch knows the beton.
        classes: how many there are.
        labels: int64[N].
        source: a fingerprint; a beton from another source is written anew.
        encoding: how the images are stored.
        images: makes the images, in order, and fills Found on the way.
        expected_bytes: an estimate of the size, of this split and those that follow, for the check that there is room.
    """

    part: str
    dataset: str
    version: str
    classes: int
    labels: NDArray[np.int64]
    source: str
    encoding: Encoding
    images: Callable[[Found], Iterator[Encoded]]
    expected_bytes: Callable[[], float]
    to_store_less: str = ""
    """The end of the message that there is no room: how the same images take less."""

    @property
    def wanted(self) -> dict[str, Any]:
        """What the manifest of the finished beton says."""
        return {
            "dataset": self.dataset,
            "version": self.version,
            "samples": len(self.labels),
            "source": self.source,
            "settings": self.encoding.as_settings(),
        }


@dataclass(frozen=True)
class Prepared:
    """A beton that is there; `manifest` is what lies beside it, `written` whether this call wrote it."""

    path: Path
    manifest: dict[str, Any]
    written: bool


def prepare_split(split: Split, folder: Path, progress: Progress = untold) -> Prepared:
    """Write `<part>.beton` in `folder`, unless it is there, and its manifest, last.

    The folder has to be held (`held`). What earlier calls left half-written is removed.

    Raises:
        SourceError: a beton that was not written by this command lies there; or damaged images (DamagedImagesError).
        HostError: the disk is full or cannot be written. In all cases nothing stays that looks whole.
    """
    path = folder / f"{split.part}.beton"
    with writing_to(folder):
        _finish_or_remove(path)
    if is_prepared(path, split.wanted):
        manifest = read_manifest(path)
        assert manifest is not None
        return Prepared(path, manifest, written=False)
    if path.exists() and not manifest_path(path).exists():
        raise SourceError(
            f"{path} is there and has no manifest, so bo-sweep did not write it. Move it away, or choose another "
            "folder with --out"
        )
    _check_room(folder, split)
    part, manifest_part = _parts(path)
    with writing_to(folder):
        try:
            manifest = _write(split, part, progress)
            manifest_part.write_text(json.dumps(manifest, indent=1) + "\n")
            flush(manifest_part)
        except BaseException:
            for unfinished in (manifest_part, part):
                unfinished.unlink(missing_ok=True)
            raise
        _commit(path)
    return Prepared(path, manifest, written=True)


def _commit(path: Path) -> None:
    """Both files are whole beside their places: move them there. Interrupted, the next call goes on with it."""
    part, manifest_part = _parts(path)
    if part.exists():
        manifest_path(path).unlink(missing_ok=True)  # of the beton that is replaced now
        part.rename(path)
    manifest_part.rename(manifest_path(path))
    flush(path.parent)


def _finish_or_remove(path: Path) -> None:
    """Clean up after a call that was killed: its files are put in place if it had written them all, else removed."""
    part, manifest_part = _parts(path)
    try:
        expected = json.loads(manifest_part.read_text())["bytes"]
        written = part if part.exists() else path
        if written.stat().st_size == expected:
            _commit(path)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass  # no manifest, or half of one
    for stale in (manifest_part, part):
        stale.unlink(missing_ok=True)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make the folder and keep other calls out of it while the block runs.

    Raises:
        HostError: another call is writing there, or the folder cannot be made.
    """
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "a")  # noqa: SIM115 - errors of the block are not about this file
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise HostError(
                    f"another process is preparing {folder}: wait for it, or choose another --out"
                ) from error
        yield  # where the file system has no locks, who calls it twice has to take care


def _write(split: Split, part: Path, progress: Progress) -> dict[str, Any]:
    """Write the beton; returns its manifest."""
    found = Found()

    def counted() -> Generator[Encoded, None, None]:
        stage = f"{split.dataset} {split.part}"
        for done, image in enumerate(_outside(split.images(found))):
            progress(stage, done, len(split.labels))
            yield image

    with contextlib.closing(counted()) as images:  # ends the processes that make them, also after an error
        write_images(part, images, split.labels, page=page_bytes(split.encoding.max_side))
    size = part.stat().st_size
    return split.wanted | {
        "bytes": size,
        "sha256": sha256_of(part, lambda done: progress(f"{split.dataset} {split.part}: checksum", done, size)),
        "class_counts": np.bincount(split.labels, minlength=split.classes).tolist(),
        "warnings": sum(found.notes.values()),
        "converted": dict(sorted(found.notes.items())),
        **found.statistics,
    }


def sha256_of(path: Path, told: Callable[[int], None] = lambda done: None) -> str:
    """Hash a whole file; `told` hears how many bytes are done. Raises OSError."""
    digest, done = hashlib.sha256(), 0
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(HASHED_AT_ONCE):
            digest.update(piece)
            done += len(piece)
            told(done)
    return digest.hexdigest()


def _outside(images: Iterator[Encoded]) -> Iterator[Encoded]:
    """Errors of the source must not pass for errors of the disk that is written to."""
    try:
        yield from images
    except OSError as error:
        raise SourceError(f"the source cannot be read: {error}") from error


def _check_room(folder: Path, split: Split) -> None:
    needed = split.expected_bytes() + EXPECTED_BESIDE
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise HostError(
            f"{folder} has {free / 1e9:.1f} GB free, what is to be written will take about {needed / 1e9:.1f} GB. Free "
            "space, or choose another folder with --out" + split.to_store_less
        )


def _parts(path: Path) -> tuple[Path, Path]:
    """Where the beton and its manifest are written."""
    return path.with_name(path.name + ".part"), path.with_name(path.name + ".json.part")
