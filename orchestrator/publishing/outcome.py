"""What a publisher has done, in words and as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    """

    connection: str
    mode: str
    folder: Path
    written: Counter[str] = field(default_factory=Counter)
    there: Counter[str] = field(default_factory=Counter)
    unfinished: int = 0
    url: str | None = None
    stopped: bool = False

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "connection": self.connection,
            "mode": self.mode,
            "folder": str(self.folder),
            "written": {kind: self.written[kind] for kind in NOUNS},
            "already_there": {kind: self.there[kind] for kind in NOUNS},
            "unfinished_runs": self.unfinished,
            "url": self.url,
            "stopped": self.stopped,
        }

    def words(self) -> str:
        """In a few lines."""
        if self.connection == "disabled":
            return "WANDB_MODE is disabled: nothing is published."
        place = self.url or ("W&B" if self.connection == "online" else str(self.folder))
        wrote = ", ".join(
            f"{self.written[kind]} {_noun(kind, self.written[kind])}" for kind in NOUNS if self.written[kind]
        )
        there = ", ".join(f"{self.there[kind]} {_noun(kind, self.there[kind])}" for kind in NOUNS if self.there[kind])
        lines = [f"Published to {place}: {wrote or 'nothing new'}{f' (there already: {there})' if there else ''}."]
        if self.connection == "offline":
            lines.append("These are files, as there is no key or WANDB_MODE says so: sync them whenever you like.")
        if self.unfinished:
            lines.append(f"{self.unfinished} runs have not ended; publishing again adds what is new.")
        if self.stopped:
            lines.append("Stopped: the same command goes on from here.")
        return "\n".join(lines)


def _noun(kind: str, count: int) -> str:
    return NOUNS[kind] if count != 1 else kind
