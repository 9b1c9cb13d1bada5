"""Reading labels that people gave: integer label files, and the files of CIFAR-N.

CIFAR-N (Wei et al., "Learning with noisy labels revisited", ICLR 2022) ships dictionaries of NumPy arrays, saved by
torch: `aggre_label`, `worse_label`, `random_label1` to `random_label3`, and the `clean_label` they were compared with.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workers.safe_pickle import load_arrays

Labels = NDArray[np.int64]

CLEAN = "clean_label"
FORMATS = ".npy, .npz, .txt, .csv (one integer a line) or .pt (.npy and .pt may hold a dictionary, as CIFAR-N's do)"


def read_labels(path: Path | str, *, key: str | None = None, sha256: str | None = None) -> tuple[Labels, Labels | None]:
    """The labels in a file, int64[N], and the file's own record of the true labels where it holds one (else None).

    `key` names the array in a .npz or .pt file; it may be left out where there is only one beside `clean_label`.
    ValueError if the file is missing, of another content than `sha256` says, of an unknown format, lacks the key or
    does not hold integers.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no label file at {path}: check noise.file")
    if sha256 is not None:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != sha256.lower():
            raise ValueError(f"{path} has sha256 {found}, not {sha256}: it is another file than the search space names")
    arrays = _read_arrays(path)
    labels = _integers(arrays[_choose(list(arrays), key, path)], path)
    clean = _integers(arrays[CLEAN], path) if CLEAN in arrays else None
    return labels, clean


def _read_arrays(path: Path) -> Mapping[str, ArrayLike]:
    """All arrays of a file by name; a file of one nameless array gives it the name ''."""
    try:
        match path.suffix:
            case ".npy":
                return _read_numpy(path)
            case ".npz":
                with np.load(path, allow_pickle=False) as archive:
                    return dict(archive)
            case ".txt" | ".csv":
                return {"": np.array([int(line) for line in path.read_text().split()], dtype=np.int64)}
            case ".pt":
                return _read_torch(path)
    except Exception as error:  # pickle, zip, text and type errors all mean the same to the user
        raise ValueError(f"{path} cannot be read as labels ({error}): expected {FORMATS}") from error
    raise ValueError(f"{path} is of no known format: expected {FORMATS}")


def _read_numpy(path: Path) -> Mapping[str, ArrayLike]:
    """One array, or a dictionary of arrays, which NumPy saves pickled: read without running code that it may carry."""
    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = read_header[version](file)
        content = load_arrays(file).item() if dtype.hasobject and shape == () else None
    if isinstance(content, dict):
        return {str(name): values for name, values in content.items()}
    return {"": np.load(path, allow_pickle=False)}


def _read_torch(path: Path) -> Mapping[str, ArrayLike]:
    """A dictionary of arrays or tensors saved by torch, read without running code that the file may carry."""
    import torch

    # What a pickled integer array refers to. Files from before NumPy 2 call the function numpy.core.
    reconstruct = np.empty(0).__reduce__()[0]
    allowed: list[Any] = [np.ndarray, np.dtype, *{type(np.dtype(code)) for code in "bhilqBHILQ"}]
    allowed += [(reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    with torch.serialization.safe_globals(allowed):
        content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise TypeError(f"it holds a {type(content).__name__}")
    return {str(name): values for name, values in content.items()}


def _choose(names: list[str], key: str | None, path: Path) -> str:
    """The name of the array to read."""
    candidates = [name for name in names if name != CLEAN]
    if key is None and len(candidates) == 1:
        return candidates[0]
    if key is None:
        raise ValueError(
            f"{path} holds several label arrays: set noise.file_key to one of {', '.join(sorted(candidates))}"
        )
    if key not in names:
        held = ", ".join(sorted(names)) if names != [""] else "one array without a name: leave noise.file_key out"
        raise ValueError(f"{path} has no labels called {key!r}; it holds {held}")
    return key


def _integers(values: ArrayLike, path: Path) -> Labels:
    """The array as int64[N]."""
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"{path} holds {array.dtype} of shape {array.shape}: labels are one integer an example")
    return array.astype(np.int64)
