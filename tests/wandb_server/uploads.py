"""Addresses to upload files to, each for one file."""

from __future__ import annotations

import itertools
from collections.abc import Callable


class Uploads:
    """Hands addresses out, and puts what is sent there where it belongs. `url` gives the server's own address."""

    def __init__(self, url: Callable[[], str]) -> None:
        self._url = url
        self._numbers = itertools.count(1)
        self._places: dict[str, tuple[dict[str, bytes], str]] = {}

    def address(self, files: dict[str, bytes], name: str) -> str:
        """Where to send the content of `name` among `files`."""
        token = str(next(self._numbers))
        self._places[token] = (files, name)
        return f"{self._url()}/upload/{token}"

    def take(self, token: str, content: bytes) -> bool:
        """Keep a file; False where nobody asked for that address."""
        if token not in self._places:
            return False
        files, name = self._places[token]
        files[name] = content
        return True
