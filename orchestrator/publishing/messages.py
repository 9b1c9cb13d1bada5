"""What the publisher and the process that calls W&B tell each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.publishing.items import Item


@dataclass(frozen=True)
class Order:
    """Write an item. W&B keeps what it needs meanwhile, and offline all of it, in `folder`."""

    item: Item
    folder: Path
    entity: str | None
    project: str
    online: bool


@dataclass(frozen=True)
class Supersede:
    """Mark a W&B run as one whose place another has taken."""

    id: str
    by: str
    folder: Path
    entity: str | None
    project: str


@dataclass(frozen=True)
class Written:
    """What came of an order: the W&B run that was written, and offline its folder; `older` are other states of it."""

    id: str
    folder: Path | None
    lines: int
    url: str | None = None
    older: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trouble:
    """Why an order was not carried out; trying again may help."""

    reason: str


@dataclass(frozen=True)
class Refused:
    """W&B will never carry an order out as it is; with `everything`, nor any other to this project."""

    reason: str
    everything: bool = False


@dataclass(frozen=True)
class Account:
    """What W&B's own settings say: its server, and whether there is a key for it. The key itself stays there.

    `problem` says what is wrong with a key that there is. `mode` is what `wandb offline` or `wandb disabled` has set.
    """

    base_url: str
    has_key: bool
    entity: str | None
    problem: str | None = None
    mode: str | None = None
