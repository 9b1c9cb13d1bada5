"""The running bo-sweep as a wheel, whether it is installed or an editable checkout: how its code gets to a cluster."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipInfo

DISTRIBUTION = "bo-sweep"
PACKAGES = ("orchestrator", "workers", "search_spaces")
KINDS = (".py", ".yaml", ".html", ".css", ".js")
"""Of files that belong to the packages: whatever else lies in a checkout is no business of a cluster."""
FIXED_TIME = (1980, 1, 1, 0, 0, 0)
LEFT_OUT = ("Requires-Dist", "Provides-Extra", "License-File", "Description-Content-Type")
"""Of the metadata. Without requirements nothing that reads them goes and fetches torch: nodes have what is needed."""


@dataclass(frozen=True)
class Code:
    """All files of bo-sweep, by their paths in a wheel.

    Attributes:
        version: of the package.
        files: of the packages, with their data files, sorted.
    """

    version: str
    files: tuple[tuple[str, bytes], ...]

    @property
    def digest(self) -> str:
        """8 hex digits of a hash of paths and contents."""
        hashed = hashlib.sha256()
        for name, content in self.files:
            hashed.update(f"{name}\0{len(content)}\0".encode() + content)
        return hashed.hexdigest()[:8]


def running_code(root: Path | None = None) -> Code:
    """The code that this process runs, read from the folder `root` that holds its packages.

    Raises:
        ValueError: bo-sweep is not installed here, not even as an editable checkout.
    """
    root = root or Path(__file__).resolve().parents[2]
    paths = [path for package in PACKAGES for path in (root / package).rglob("*") if _belongs(path.relative_to(root))]
    files = sorted((path.relative_to(root).as_posix(), path.read_bytes()) for path in paths if path.is_file())
    return Code(_metadata()["Version"], tuple(files))


def write_wheel(folder: Path, code: Code, beside: Iterable[tuple[str, bytes]] = ()) -> Path:
    """Write the wheel of `code` into `folder`; the same code gives the same bytes.

    Args:
        folder: to write into.
        code: of bo-sweep.
        beside: more files, by name, for the folder into which the wheel is unpacked.
    """
    from wheel.wheelfile import WheelFile  # type: ignore[import-untyped]

    class Wheel(WheelFile):  # type: ignore[misc]
        """With one time for all files, its own record among them."""

        def writestr(self, name: str | ZipInfo, data: object, compress_type: int | None = None) -> None:
            entry = ZipInfo(name if isinstance(name, str) else name.filename, FIXED_TIME)
            entry.compress_type, entry.external_attr = ZIP_DEFLATED, 0o100644 << 16
            super().writestr(entry, data)

    path = folder / f"{DISTRIBUTION.replace('-', '_')}-{code.version}-py3-none-any.whl"
    with Wheel(path, "w") as wheel:
        for file, content in (*code.files, *beside):
            wheel.writestr(file, content)
        wheel.writestr(f"{wheel.dist_info_path}/METADATA", _core_metadata())
        tags = "Wheel-Version: 1.0\nGenerator: bo-sweep\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{wheel.dist_info_path}/WHEEL", tags)
    return path


def _belongs(path: Path) -> bool:
    """Whether a file is part of a package, and nothing hidden."""
    return path.suffix in KINDS and not any(part.startswith(".") for part in path.parts)


def _metadata() -> metadata.PackageMetadata:
    try:
        return metadata.metadata(DISTRIBUTION)
    except metadata.PackageNotFoundError as error:
        raise ValueError(
            "bo-sweep runs here without being installed, so its version is unknown: pip install -e . in its checkout"
        ) from error


def _core_metadata() -> str:
    """The metadata of what is installed, without requirements and the long description."""
    found = _metadata()
    fields = [(name, value) for name, value in found.items() if name not in LEFT_OUT]  # type: ignore[attr-defined]
    return "".join(f"{name}: {value}\n" for name, value in fields if "\n" not in value)
