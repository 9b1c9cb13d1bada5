"""Reading pickles of NumPy arrays and plain values without running code that they may carry."""

from __future__ import annotations

import codecs
import pickle
from typing import Any, BinaryIO, cast

import numpy as np

_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")  # the name before and since NumPy 2


def load_arrays(file: BinaryIO, *, encoding: str = "ASCII") -> Any:
    """What a pickle holds, if that is made of arrays, dictionaries, lists, strings, bytes and numbers alone.

    `encoding="bytes"` leaves the strings of Python 2, which stand for bytes too, as bytes. Raises
    pickle.UnpicklingError for anything else that it refers to; other damage raises what pickle raises.
    """
    return _ArrayUnpickler(file, encoding=encoding).load()


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if module in _ARRAY_MODULES and name == "_reconstruct":
            return cast("tuple[Any, ...]", np.empty(0).__reduce__())[0]
        if module in _ARRAY_MODULES and name == "scalar":
            return _scalar
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes in protocol 2
            return _latin_bytes
        raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is no array")


def _latin_bytes(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it holds bytes in encoding {encoding!r}")
    return codecs.latin_1_encode(text)[0]


def _scalar(dtype: np.dtype[Any], content: bytes) -> Any:
    if dtype.hasobject:
        raise pickle.UnpicklingError("it holds a NumPy scalar of objects")
    return np.frombuffer(content, dtype=dtype)[0]
