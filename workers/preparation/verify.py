"""Reading whole betons once more: structure, checksum, every JPEG with the decoder of training, classes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workers.beton_file import Beton, BetonError, check_beton, read_beton, read_manifest
from workers.preparation.errors import HostError, SourceError
from workers.preparation.parallel import available_cores
from workers.preparation.split import Progress, sha256_of, untold

DECODED_TOGETHER = 64
NAMED_AT_MOST = 20


@dataclass(frozen=True)
class Verified:
    """What was found out about one beton. It is sound if `problems` is empty.

    Attributes:
        samples, jpegs: how many there are, None where the structure is damaged; JPEGs were all decoded.
        has_manifest: without one there is no checksum and no class count to compare with.
    """

    path: Path
    problems: tuple[str, ...]
    samples: int | None = None
    jpegs: int | None = None
    has_manifest: bool = False


def betons_in(folder: Path, names: Sequence[str]) -> list[Path]:
    """The betons of the named data sets below a data folder; of all that are there, where none is named.

    Raises:
        SourceError: there are none.
    """
    found = []
    for name in names or ["*"]:
        of_this = sorted(folder.glob(f"{name}/*.beton"))
        if not of_this:
            known = sorted({path.parent.name for path in folder.glob("*/*.beton")})
            there = f"betons there are of {', '.join(known)}" if known else "there are no betons at all"
            raise SourceError(
                f"{folder / name if names else folder} has no betons; {there}. Prepare them first, or name the data "
                "folder that has them with --out"
            )
        found += of_this
    return found


def verify_beton(path: Path, *, workers: int | None = None, progress: Progress = untold) -> Verified:
    """Look at every byte of a beton. What is wrong is in the result; raises HostError if the file cannot be read."""
    name = f"{path.parent.name} {path.name}"
    try:
        check_beton(path, thorough=False)
        beton, manifest = read_beton(path), read_manifest(path)
    except BetonError as error:
        return Verified(path, (str(error),))
    problems = []
    try:
        if manifest is not None:
            size = path.stat().st_size
            found = sha256_of(path, lambda done: progress(f"{name}: checksum", done, size))
            if found != manifest.get("sha256"):
                problems.append(f"its bytes changed: sha256 is {found}, not {manifest.get('sha256')}")
            counts = manifest.get("class_counts") or []
            if np.bincount(beton.labels, minlength=len(counts)).tolist() != counts:
                problems.append("its labels are not those that the manifest counts")
        damaged = _damaged_jpegs(beton, workers or available_cores(), f"{name}: JPEGs", progress)
    except OSError as error:
        raise HostError(f"{path} cannot be read: {error.strerror or error}") from error
    if damaged:
        more = f" and {len(damaged) - NAMED_AT_MOST} more" if len(damaged) > NAMED_AT_MOST else ""
        listed = ", ".join(map(str, damaged[:NAMED_AT_MOST]))
        problems.append(f"{len(damaged)} JPEGs cannot be decoded: samples {listed}{more}")
    return Verified(path, tuple(problems), beton.samples, int(beton.places[:, 4].sum()), manifest is not None)


def _damaged_jpegs(beton: Beton, workers: int, stage: str, progress: Progress) -> list[int]:
    """Samples whose JPEG the decoder of training does not take."""
    from workers.decoders import decode_images

    jpegs = np.flatnonzero(beton.places[:, 4])
    if not len(jpegs):
        return []
    file = np.memmap(beton.path, dtype=np.uint8, mode="r")

    def damaged_in(first: int) -> list[int]:
        """Threads suffice: the decoder holds no lock."""
        chosen, found = jpegs[first : first + DECODED_TOGETHER], []
        while len(chosen):
            windows = np.zeros((len(chosen), 6), dtype=np.int64)  # decoded whole, of which one pixel is kept
            windows[:, 0], windows[:, 3], windows[:, 4] = chosen, 1, 1
            destination = np.empty((len(chosen), 1, 1, 3), dtype=np.uint8)
            index = decode_images(windows, beton.places, np.asarray(file), destination)
            if index < 0:
                break
            found.append(index)
            chosen = chosen[np.flatnonzero(chosen == index)[0] + 1 :]
        return found

    damaged: list[int] = []
    with ThreadPoolExecutor(workers) as pool:
        for done, found in enumerate(pool.map(damaged_in, range(0, len(jpegs), DECODED_TOGETHER))):
            damaged += found
            progress(stage, min(len(jpegs), (done + 1) * DECODED_TOGETHER), len(jpegs))
    return damaged
