"""Checks of Python and the packages: versions within the ranges that bo-sweep declares, and imports that work."""

from __future__ import annotations

import functools
import itertools
import platform
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from orchestrator.checks.finding import Finding, failed, ok

NAMED = ("bo-sweep", "torch", "torchvision", "ray", "ffcv", "numpy", "pyarrow", "polars")
"""Packages whose versions are told; all that bo-sweep requires are checked."""
REINSTALL = "make install (it installs exactly what requirements.lock pins)"


def check_python() -> Finding:
    """The running Python is one that bo-sweep supports."""
    from packaging.specifiers import SpecifierSet

    version, allowed = platform.python_version(), metadata.metadata("bo-sweep")["Requires-Python"]
    if SpecifierSet(allowed).contains(version, prereleases=True):
        return ok(f"Python {version}, {platform.machine()}")
    return failed(f"Python {version}; bo-sweep needs {allowed}", "make PYTHON=/path/to/python3.12 install")


def check_packages() -> Finding:
    """Every package that bo-sweep requires is there, in the range that it declares."""
    from packaging.requirements import Requirement

    problems = []
    for requirement in map(Requirement, metadata.requires("bo-sweep") or []):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            problems.append(f"{requirement.name} is not installed, needed is {requirement.specifier}")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"{requirement.name} is {version}, needed is {requirement.specifier}")
    if problems:
        return failed("; ".join(problems), REINSTALL)
    return ok(", ".join(f"{name} {metadata.version(name)}" for name in NAMED))


def check_torchvision() -> Finding:
    """torchvision fits torch: its compiled operators are there."""
    import torch
    import torchvision

    kept = torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    return ok(f"torchvision::nms keeps {len(kept)} box of 1")


def check_ffcv() -> Finding:
    """FFCV imports, a tiny beton comes back through our loader as it was written, and our decoders compile here.

    They are compiled afresh, past numba's cache: that may have been made elsewhere.
    """
    import numpy as np
    import torch

    start = time.perf_counter()
    from workers import decoders
    from workers.beton_file import read_beton, write_beton
    from workers.loader import load_all, open_stream

    seconds = [start, time.perf_counter()]
    images = np.arange(5 * 4 * 4, dtype=np.uint8).reshape(5, 1, 4, 4)
    with tempfile.TemporaryDirectory(prefix="bo-sweep-doctor-") as folder:
        path = Path(folder) / "tiny.beton"
        write_beton(path, lambda: (images, np.arange(5)), samples=5, dataset="doctor", version="1")
        cpu = torch.device("cpu")
        stream = open_stream(path, batch_size=2, resolution=4, pixel_mean=(), pixel_std=(), device=cpu)
        inputs, index = load_all(stream, np.arange(5))
        seconds.append(time.perf_counter())
        decoded = np.empty((5, 16), dtype=np.uint8)
        rows = np.arange(5)[:, None].repeat(6, axis=1)
        _afresh(vars(decoders.decode_arrays)["py_func"])(
            rows, read_beton(path).places, np.fromfile(path, dtype=np.uint8), decoded
        )
        seconds.append(time.perf_counter())
    right = np.array_equal(inputs.numpy(), images) and index.tolist() == list(range(5))
    if not right or not np.array_equal(decoded.reshape(images.shape), images):
        return failed("what was read from a tiny beton is not what was written to it", REINSTALL)
    imported, read, compiled = (later - earlier for earlier, later in itertools.pairwise(seconds))
    return ok(f"imported in {imported:.1f} s, a beton written and read in {read:.1f} s, compiled in {compiled:.1f} s")


@functools.cache  # numba complains when one that it compiled is freed
def _afresh(function: Any) -> Any:
    """To be compiled again at its first call."""
    import numba

    return numba.njit(function)
