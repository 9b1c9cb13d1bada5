"""By what a row was made: versions, and a digest of the code that can change a result."""

from __future__ import annotations

import functools
import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULT_PACKAGES = ("search_spaces", "workers")
"""Packages of ours whose code can change what a run gives."""
LIBRARIES = ("torch", "numpy", "ffcv")


@functools.cache
def code_digest() -> str:
    """12 hex digits over all sources of RESULT_PACKAGES: the same for the same code, installed or checked out."""
    root = Path(__file__).resolve().parent.parent
    hasher = hashlib.sha256()
    for package in RESULT_PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            hasher.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return hasher.hexdigest()[:12]


@functools.cache
def versions() -> str:
    """Everything in one line, as it stands beside every end."""
    libraries = ", ".join(f"{name} {_version(name)}" for name in LIBRARIES)
    return f"bo-sweep {_version('bo-sweep')}, code {code_digest()}, Python {platform.python_version()}, {libraries}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
