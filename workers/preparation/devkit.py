"""Classes of ImageNet's validation images, as the development kit or Kaggle's table tells them."""

from __future__ import annotations

import csv
import io
import re
import tarfile
from pathlib import Path

from workers.preparation.errors import SourceError, unreadable

DEVKIT = "ILSVRC2012_devkit_t12"
META, GROUND_TRUTH = "meta.mat", "ILSVRC2012_validation_ground_truth.txt"
KAGGLE = "LOC_val_solution.csv"
VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG", re.IGNORECASE)


class NoLabelsError(SourceError):
    """The classes of the validation images are not told, or not as they should be."""


def validation_classes(source: Path, names: list[str]) -> list[str]:
    """The WordNet id of each validation image, by file name, e.g. ILSVRC2012_val_00000001.JPEG.

    Raises:
        NoLabelsError: no development kit and no table in `source`, or one that does not fit the images.
    """
    if table := _find(source, KAGGLE):
        return _from_table(table, names)
    meta, ground_truth = _devkit(source)
    wnids = _wnids_by_id(meta)
    given = ground_truth.split()
    if len(given) != len(names):
        raise NoLabelsError(f"{GROUND_TRUTH} has {len(given):,} lines, but there are {len(names):,} validation images")
    found = []
    for name in names:
        match = VAL_NAME.fullmatch(name)
        if match is None or not 1 <= int(match[1]) <= len(given):
            raise NoLabelsError(
                f"validation image {name}: names have to be ILSVRC2012_val_00000001.JPEG to _{len(given):08}.JPEG"
            )
        number = given[int(match[1]) - 1]
        if number not in wnids:
            raise NoLabelsError(f"{GROUND_TRUTH}, line {int(match[1])}: {number!r} is no ILSVRC2012_ID of {META}")
        found.append(wnids[number])
    return found


def _find(source: Path, name: str) -> Path | None:
    places = (source, source / "ILSVRC", source / DEVKIT / "data", source / "devkit" / "data", source / "data")
    return next((place / name for place in places if (place / name).is_file()), None)


def _devkit(source: Path) -> tuple[bytes, str]:
    """Content of meta.mat and of the ground truth."""
    meta, ground_truth = _find(source, META), _find(source, GROUND_TRUTH)
    packed = source / f"{DEVKIT}.tar.gz"
    try:
        if meta and ground_truth:
            return meta.read_bytes(), ground_truth.read_text()
        if packed.is_file():
            with tarfile.open(packed, "r:gz") as tar:
                members = {Path(member.name).name: member for member in tar if member.isreg()}
                files = [tar.extractfile(members[name]) for name in (META, GROUND_TRUTH)]
                meta_content, text = (file.read() for file in files if file is not None)
                return meta_content, text.decode("ascii")
    except (tarfile.TarError, EOFError, KeyError, UnicodeDecodeError) as error:
        raise NoLabelsError(f"{packed} is damaged or not the development kit ({error})") from error
    except OSError as error:
        raise unreadable(error.filename or packed, error) from error
    lacking = " and ".join(name for name, path in ((META, meta), (GROUND_TRUTH, ground_truth)) if path is None)
    raise NoLabelsError(
        f"the classes of the validation images are not told: there is no {lacking} in {DEVKIT}/data, "
        f"no {DEVKIT}.tar.gz and no {KAGGLE}"
    )


def _wnids_by_id(meta: bytes) -> dict[str, str]:
    """The WordNet id of each ILSVRC2012_ID, of the classes alone: the others are what these belong to."""
    import scipy.io

    try:
        synsets = scipy.io.loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        columns = (synsets["ILSVRC2012_ID"], synsets["WNID"], synsets["num_children"])
        return {str(int(number)): str(wnid) for number, wnid, children in zip(*columns, strict=True) if not children}
    except Exception as error:  # SciPy raises many kinds for a damaged file
        raise NoLabelsError(f"{META} cannot be read ({error})") from error


def _from_table(table: Path, names: list[str]) -> list[str]:
    """Kaggle's table: the image's name without suffix, then "wnid x y x y wnid ..."."""
    try:
        with open(table, newline="") as file:
            classes = {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(file)}
    except (KeyError, IndexError, AttributeError, UnicodeDecodeError, csv.Error) as error:
        raise NoLabelsError(f"{table} is not Kaggle's table of ImageId and PredictionString ({error!r})") from error
    except OSError as error:
        raise unreadable(table, error) from error
    lacking = [name for name in names if name.rpartition(".")[0] not in classes]
    if lacking:
        raise NoLabelsError(f"{table} lacks {len(lacking):,} validation images, the first is {lacking[0]}")
    return [classes[name.rpartition(".")[0]] for name in names]
