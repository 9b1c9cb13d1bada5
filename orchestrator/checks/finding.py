"""What one check of the environment found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """What was found and, unless all is well, the remedy: what to do about it."""

    status: Status
    found: str
    remedy: str = ""


def ok(found: str) -> Finding:
    """It is as it should be."""
    return Finding("ok", found)


def warning(found: str, remedy: str) -> Finding:
    """A sweep runs, but slower, or without something."""
    return Finding("warning", found, remedy)


def failed(found: str, remedy: str) -> Finding:
    """A sweep cannot run like this."""
    return Finding("failed", found, remedy)


def skipped(found: str, remedy: str) -> Finding:
    """Not looked at, and why; the remedy says when and how it would be."""
    return Finding("skipped", found, remedy)
