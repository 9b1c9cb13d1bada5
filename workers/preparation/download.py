"""Fetching one file: what is there goes on where it stopped, and nothing takes its name before its checksum fits."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path

from workers.preparation.errors import HostError, writing_to
from workers.preparation.split import Progress, untold

PIECE = 2**20
TIMEOUT_SECONDS = 60
ATTEMPTS = 4
PAUSE_SECONDS = 2.0


def download(url: str, path: Path, *, md5: str, progress: Progress = untold, pause: float = PAUSE_SECONDS) -> None:
    """Fetch `url` into `path`, by way of `<path>.part`, which stays for the next call when the connection breaks.

    Args:
        md5: of the whole file, 32 hex digits.
        pause: seconds before the second attempt, twice as many before the third, and so on.

    Raises:
        HostError: the server does not answer, refuses, breaks off every time or sends another file; or the disk is
            full.
    """
    part = path.with_name(path.name + ".part")
    with writing_to(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(ATTEMPTS):
        try:
            _fetch(url, part, progress)
            break
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500 or attempt + 1 == ATTEMPTS:
                raise HostError(f"{url} answers {error.code} {error.reason}. {_by_hand(path)}") from error
        except (OSError, http.client.HTTPException, _BrokenOffError) as error:
            if attempt + 1 == ATTEMPTS:
                reason = getattr(error, "reason", error)
                raise HostError(
                    f"{url} cannot be fetched: {reason}. The same command goes on where it stopped; or {_by_hand(path)}"
                ) from error
        time.sleep(pause * 2**attempt)
    found = md5_of(part)
    if found != md5:
        part.unlink()
        raise HostError(
            f"{url} sent another file: its md5 is {found}, expected is {md5}. What was fetched is deleted: try again, "
            f"or {_by_hand(path)}"
        )
    with writing_to(path.parent):
        part.rename(path)


def md5_of(path: Path) -> str:
    """The md5 of a file, 32 hex digits. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


class _BrokenOffError(Exception):
    """The connection ended before the file did."""


def _fetch(url: str, part: Path, progress: Progress) -> None:
    """Add to `part` what it lacks; what is there already came from the same address."""
    there = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={there}-"} if there else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        error.close()
        return  # nothing is missing; the checksum tells whether it is too much
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            there = 0
        length = response.headers.get("Content-Length")
        total = there + int(length) if length else 0
        with writing_to(part.parent):
            file = open(part, "r+b" if there else "wb", buffering=0)  # noqa: SIM115 - closed below
        with contextlib.closing(file):
            file.seek(there)
            while piece := response.read(PIECE):
                with writing_to(part.parent):
                    rest = memoryview(piece)
                    while rest:
                        rest = rest[file.write(rest) :]
                there += len(piece)
                progress(f"fetching {part.stem}", there, total)
    if there < total:
        raise _BrokenOffError(f"the connection ended after {there} of {total} bytes")


def _by_hand(path: Path) -> str:
    return f"fetch it in another way and put it at {path}"
