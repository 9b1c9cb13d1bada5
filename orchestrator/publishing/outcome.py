"""What a publisher has done, in words and as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MOST_NAMED = 5
DELETED_REMEDY = (
    "Undelete them on the overview page of the project, which W&B allows for some days, or publish to another one with "
    "--project"
)
NOUNS = {"run": "runs", "cell": "cells", "summary": "summaries"}


@dataclass
class Outcome:
    """What a publisher has done.

    Attributes:
        connection: online, offline or disabled.
        written: W&B runs written now, by job type.
        there: W&B runs that were complete already, by job type.
        unfinished: planned runs that have not ended.
        url: of the W&B run written last, online.
        refused: W&B runs that W&B will never take, by id: their names, and why.
    """

    connection: str
    mode: str
    folder: Path
    written: Counter[str] = field(default_factory=Counter)
    there: Counter[str] = field(default_factory=Counter)
    unfinished: int = 0
    url: str | None = None
    refused: dict[str, str] = field(default_factory=dict)
    stopped: bool = False

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "connection": self.connection,
            "mode": self.mode,
            "folder": str(self.folder),
            "written": {kind: self.written[kind] for kind in NOUNS},
            "already_there": {kind: self.there[kind] for kind in NOUNS},
            "not_published": self.refused,
            "unfinished_runs": self.unfinished,
            "url": self.url,
            "stopped": self.stopped,
        }

    def words(self) -> str:
        """In a few lines."""
        if self.connection == "disabled":
            return "W&B is disabled (by WANDB_MODE, or wandb disabled): nothing is published."
        place = self.url or ("W&B" if self.connection == "online" else str(self.folder))
        wrote = ", ".join(
            f"{self.written[kind]} {_noun(kind, self.written[kind])}" for kind in NOUNS if self.written[kind]
        )
        there = ", ".join(f"{self.there[kind]} {_noun(kind, self.there[kind])}" for kind in NOUNS if self.there[kind])
        nothing = "nothing yet" if self.stopped else "nothing new"
        lines = [f"Published to {place}: {wrote or nothing}{f' (there already: {there})' if there else ''}."]
        if self.connection == "offline":
            lines.append("These are files, as there is no key or W&B is set to offline: sync them whenever you like.")
        if self.refused:
            named = ", ".join(list(self.refused)[:MOST_NAMED]) + (", ..." if len(self.refused) > MOST_NAMED else "")
            count = len(self.refused)
            lines.append(f"Not published, as W&B had them and they were deleted: {count} ({named}). {DELETED_REMEDY}.")
        if self.unfinished:
            lines.append(f"{self.unfinished} runs have not ended; publishing again adds what is new.")
        if self.stopped:
            lines.append("Stopped: the same command goes on from here.")
        return "\n".join(lines)


def _noun(kind: str, count: int) -> str:
    return NOUNS[kind] if count != 1 else kind
