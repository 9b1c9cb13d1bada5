"""What can go wrong while betons are prepared: the source is not as it should be, or this machine cannot do it."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

NAMED_AT_MOST = 20


class SourceError(ValueError):
    """The source, or what was asked for, is wrong: the message gives the value, what is allowed and the next step."""


class HostError(RuntimeError):
    """Disk, memory or network are not there as needed; the same call may work once they are."""


class DamagedImagesError(SourceError):
    """Images that cannot be decoded, all of them: `damaged` pairs each one's name with the reason."""

    def __init__(self, damaged: Iterable[tuple[str, str]], advice: str) -> None:
        self.damaged = list(damaged)
        super().__init__(
            f"{len(self.damaged)} images cannot be read:\n"
            + named(f"{name}: {reason}" for name, reason in self.damaged)
            + f"\n{advice}"
        )


def named(things: Iterable[str]) -> str:
    """One a line, indented; the first NAMED_AT_MOST, then how many more there are."""
    things = list(things)
    lines = [f"  {thing}" for thing in things[:NAMED_AT_MOST]]
    if len(things) > NAMED_AT_MOST:
        lines.append(f"  and {len(things) - NAMED_AT_MOST} more")
    return "\n".join(lines)


@contextmanager
def writing_to(place: Path) -> Iterator[None]:
    """Turn what the operating system says about writing below `place` into a HostError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            advice = "free space, or choose another folder with --out"
        else:
            advice = "choose a folder that can be written with --out"
        raise HostError(
            f"{place} cannot be written: {error.strerror or error}. {advice.capitalize()}, "
            "and give the same command again; nothing half-written stays"
        ) from error


def unreadable(path: Path | str, error: OSError) -> SourceError:
    """The error for a part of the source that cannot be read."""
    return SourceError(f"{path} cannot be read: {error.strerror or error}. Check the path and its permissions")
