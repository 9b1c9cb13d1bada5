"""What is published: one W&B run, with all that it is to hold. Light, as the process that calls W&B reads it too."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Item:
    """One W&B run.

    Attributes:
        id: in its project; `alternative` is taken where rows that are there already contradict these, see `ids`.
        key: what it is of (a run, a cell, the summary), the same for every state of it.
        state: tells apart what it was made from; the same state is never published twice.
        rows: for each evaluation, in order, W&B's step and the values.
        ended: whether it is complete; nothing can come after that under the same state.
        failed: whether W&B is to show it as failed.
        tables: columns and rows, by key; written in one step with `figures`, the paths of images by key.
    """

    id: str
    alternative: str
    key: str
    state: str
    name: str
    job_type: str
    group: str | None
    tags: tuple[str, ...]
    config: Mapping[str, Any]
    rows: Sequence[tuple[int, Mapping[str, Any]]] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    ended: bool = True
    failed: bool = False
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Any]]]] = field(default_factory=dict)
    figures: Mapping[str, str] = field(default_factory=dict)

    @property
    def ids(self) -> Iterator[str]:
        """Those to try, one after another, until one has nothing that contradicts it."""
        yield self.id
        yield self.alternative
        yield from (f"{self.alternative}-{number}" for number in itertools.count(2))

    @property
    def media(self) -> bool:
        """Whether it holds tables or figures, rather than rows."""
        return bool(self.tables or self.figures)


@dataclass(frozen=True)
class Marker:
    """What is known of a W&B run that was published: beside its offline files, or in the cache of finished ones.

    `first` and `last` are the steps of its rows, None where it has none.
    """

    id: str
    key: str
    state: str
    job_type: str
    first: int | None
    last: int | None
    ended: bool = True

    @classmethod
    def of(cls, item: Item, wandb_id: str) -> Marker:
        steps = [step for step, _ in item.rows]
        first, last = (steps[0], steps[-1]) if steps else (None, None)
        return cls(wandb_id, item.key, item.state, item.job_type, first, last, item.ended)


def short_hash(*parts: Any) -> str:
    """12 hex digits of the SHA-256 of values in JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:12]


def known(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are not null."""
    return {name: value for name, value in values.items() if value is not None}
