"""What lies in folders and tar files: names, places and sizes, sorted by name; nothing is unpacked or decoded."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from workers.preparation.errors import SourceError, unreadable
from workers.preparation.samples import Sample

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class Member(NamedTuple):
    """A file in a tar file: `size` bytes from byte `offset` of the outermost one on."""

    name: str
    offset: int
    size: int


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder; hidden ones do not count. Raises SourceError."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise unreadable(folder, error) from error


def images_in(folder: Path, label: int) -> list[Sample]:
    """The image files in a folder; hidden files and those of other kinds do not count. Raises SourceError."""
    try:
        with os.scandir(folder) as entries:
            found = [
                Sample(str(folder), entry.name, -1, entry.stat().st_size, label)
                for entry in entries
                if is_image(entry.name) and entry.is_file()
            ]
    except OSError as error:
        raise unreadable(error.filename or folder, error) from error
    return sorted(found)


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def images_in_tar(path: Path, label: int, inside: Member | None = None) -> list[Sample]:
    """The images in a tar file, or in the tar file `inside` it. Raises SourceError."""
    return sorted(
        Sample(str(path), member.name, member.offset, member.size, label)
        for member in members(path, inside)
        if is_image(member.name)
    )


def members(path: Path, inside: Member | None = None) -> Iterator[Member]:
    """The regular files in a tar file, or in the tar file `inside` it, named without their folders.

    Raises:
        SourceError: it is no tar file, or it ends too early.
    """
    where = f"{path}, member {inside.name}" if inside else str(path)
    try:
        with open(path, "rb") as file:
            start, end = (
                (inside.offset, inside.offset + inside.size) if inside else (0, os.fstat(file.fileno()).st_size)
            )
            with tarfile.open(fileobj=_Section(file, start, end), mode="r:") as tar:  # type: ignore[call-overload]
                for member in tar:
                    tar.members = []  # it would keep every one
                    if not member.isreg() or member.issparse():
                        continue
                    if start + member.offset_data + member.size > end:
                        raise tarfile.ReadError(f"it ends within {member.name}")
                    yield Member(os.path.basename(member.name), start + member.offset_data, member.size)
    except tarfile.TarError as error:
        raise SourceError(f"{where} is no whole tar file ({error}). Fetch or copy it again") from error
    except OSError as error:
        raise unreadable(where, error) from error


class _Section:
    """Bytes `start` to `end` of a file as a file of its own, for reading."""

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self._file, self._start, self._end, self._position = file, start, end, 0

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        assert whence == os.SEEK_SET
        self._position = position
        return position

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._end - self._start - self._position)
        content = os.pread(self._file.fileno(), left if size < 0 else min(size, left), self._start + self._position)
        self._position += len(content)
        return content
