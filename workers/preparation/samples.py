"""A sample before it is in a beton: which bytes of which file, and of which class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Sample(NamedTuple):
    """One encoded image. Where `offset` is negative it is the file `container`/`name`, else the member `name` of the
    tar file `container`, `size` bytes from byte `offset` on."""

    container: str
    name: str
    offset: int
    size: int
    label: int

    @property
    def title(self) -> str:
        """How messages call it."""
        return os.path.join(self.container, self.name) if self.offset < 0 else f"{self.container}, member {self.name}"

    def read(self) -> bytes:
        """The encoded image. Raises OSError."""
        if self.offset < 0:
            with open(os.path.join(self.container, self.name), "rb") as file:
                return file.read()
        with open(self.container, "rb") as file:
            content = os.pread(file.fileno(), self.size, self.offset)
        if len(content) != self.size:
            raise OSError(f"the tar file ends {self.size - len(content)} bytes before the end of this member")
        return content


def labels_of(samples: Sequence[Sample]) -> NDArray[np.int64]:
    """The classes, int64[N]."""
    return np.fromiter((sample.label for sample in samples), dtype=np.int64, count=len(samples))


def fingerprint(samples: Iterable[Sample]) -> str:
    """64 hex digits that tell a source from another without reading it: order, classes, names and sizes in bytes.

    Where the files lie does not count: folders and tar files of the same images have the same fingerprint.
    """
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(f"{sample.label}\t{sample.name}\t{sample.size}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def content_digests(samples: Sequence[Sample]) -> list[bytes | str]:
    """sha256 of each encoded image; in place of those that cannot be read, why."""
    digests: list[bytes | str] = []
    for sample in samples:
        try:
            digests.append(hashlib.sha256(sample.read()).digest())
        except OSError as error:
            digests.append(error.strerror or str(error))
    return digests
