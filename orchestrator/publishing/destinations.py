"""Where items go: to files that appear whole, or to a server that already has their beginning."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from orchestrator.publishing.folder import Folder, is_synced
from orchestrator.publishing.items import Item, Marker
from orchestrator.publishing.messages import Order, Supersede, Written
from orchestrator.publishing.target import Target
from orchestrator.publishing.writer import RefusedError, Writer


class Destination(Protocol):
    """Something that items can be written to; each ends up there once, whatever happens in between."""

    def known(self) -> dict[str, Marker]:
        """What is complete there, the latest by key."""
        ...

    def write(self, item: Item) -> Written:
        """Write one item, which may be there in part.

        Raises:
            TroubleError: try the same again later.
            RefusedError: it will never be taken.
        """
        ...


class Files:
    """Offline W&B runs in the publisher's folder, for `wandb sync`.

    Of several states of one thing the latest stays, but what was synced is never touched: another state of it gets
    another id, as the server has the first one.
    """

    def __init__(self, folder: Folder, writer: Writer, target: Target) -> None:
        self._folder, self._writer, self._target = folder, writer, target
        self._by_key: dict[str, list[tuple[Path, Marker]]] = {}
        for path, marker in folder.offline().items():
            self._by_key.setdefault(marker.key, []).append((path, marker))
        for key in self._by_key:
            self._discard_older(key)  # a kill came between the new one and this

    def known(self) -> dict[str, Marker]:
        return {key: entries[-1][1] for key, entries in self._by_key.items()}

    def write(self, item: Item) -> Written:
        there = self._by_key.setdefault(item.key, [])
        synced = {marker.id for path, marker in there if is_synced(path)}
        if item.alternative != item.id:
            item = replace(item, id=next(wandb_id for wandb_id in item.ids if wandb_id not in synced))
        with _staging(self._folder) as folder:
            written = self._writer.write(Order(item, folder, self._target.entity, self._target.project, online=False))
            assert written.folder is not None
            marker = Marker.of(item, written.id)
            there.append((self._folder.commit(written.folder, marker), marker))
        self._discard_older(item.key)
        return written

    def _discard_older(self, key: str) -> None:
        *older, latest = self._by_key[key]
        for path, _ in older:
            if not is_synced(path):
                self._folder.discard(path)
        self._by_key[key] = [each for each in older if each[0].exists()] + [latest]


class Server:
    """A project on a W&B server. What is complete there is kept in a cache; how far the rest is, the server says."""

    def __init__(
        self,
        folder: Folder,
        writer: Writer,
        target: Target,
        *,
        where: str,
        creation_seconds: float,
        wait: Callable[[float], None],
    ) -> None:
        self._folder, self._writer, self._target, self._where = folder, writer, target, where
        self._known = folder.finished(where)
        self._creation_seconds, self._wait, self._last = creation_seconds, wait, float("-inf")

    def known(self) -> dict[str, Marker]:
        return self._known

    def write(self, item: Item) -> Written:
        self._wait(self._last + self._creation_seconds - time.monotonic())
        self._last = time.monotonic()
        before, to = self._known.get(item.key), (self._target.entity, self._target.project)
        with _staging(self._folder) as folder:
            written = self._writer.write(Order(item, folder, *to, online=True))
            older = {*written.older, before.id if before is not None else written.id} - {written.id}
            for wandb_id in sorted(older):
                with suppress(RefusedError):  # somebody deleted it meanwhile
                    self._writer.write(Supersede(wandb_id, written.id, folder, *to))
        if item.ended:
            self._known[item.key] = Marker.of(item, written.id)
            self._folder.remember(self._where, self._known[item.key])
        return written


@contextmanager
def _staging(folder: Folder) -> Iterator[Path]:
    path = folder.staging()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
