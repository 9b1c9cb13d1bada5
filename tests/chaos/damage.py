"""Damage to the files of a sweep that nobody is launching: it must be found, named, and cost just what is lost."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from orchestrator import paths
from tests.chaos.sweep import Place

KINDS = ("cut short", "one bit", "foreign", "deleted")


@dataclass(frozen=True)
class Damaged:
    """What was done to which file (`name`), and which runs had rows in it."""

    kind: str
    name: str
    runs: frozenset[str]

    @property
    def sign(self) -> str:
        """What a problem that is due to it contains; nobody can know the name of a file that is gone."""
        return "their rows are not all there" if self.kind == "deleted" else self.name


def damage(place: Place, draw: random.Random, kind: str | None = None) -> Damaged | None:
    """Damage one part of rows; None where there is none yet."""
    folder = place.storage.child("digits-grid").local_path(paths.ROWS)
    assert folder is not None
    parts = sorted(folder.glob("*.parquet"))
    if not parts:
        return None
    path, kind = draw.choice(parts), kind or draw.choice(KINDS)
    runs = frozenset(pl.read_parquet(path, columns=["run_id"])["run_id"])
    return _KINDS[kind](path, runs, draw)


def _cut_short(path: Path, runs: frozenset[str], draw: random.Random) -> Damaged:
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content))])
    return Damaged("cut short", path.name, runs)


def _flip_a_bit(path: Path, runs: frozenset[str], draw: random.Random) -> Damaged:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
    return Damaged("one bit", path.name, runs)


def _add_foreign(path: Path, runs: frozenset[str], draw: random.Random) -> Damaged:
    foreign = path.with_name(draw.choice(("foreign.parquet", "notes.txt", "000001-0-0.0123456789abcdef.parquet")))
    pl.DataFrame({"run_id": sorted(runs), "evaluation": 0, "attempt": 1}).write_parquet(foreign)
    return Damaged("foreign", foreign.name, frozenset())


def _delete(path: Path, runs: frozenset[str], draw: random.Random) -> Damaged:
    path.unlink()
    return Damaged("deleted", path.name, runs)


_KINDS: dict[str, Callable[[Path, frozenset[str], random.Random], Damaged]] = {
    "cut short": _cut_short,
    "one bit": _flip_a_bit,
    "foreign": _add_foreign,
    "deleted": _delete,
}
