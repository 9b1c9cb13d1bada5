"""The objects of a cluster, every change of them in order, and what goes when its owner goes."""

from __future__ import annotations

import copy
import datetime
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.kubernetes_api import failures
from tests.kubernetes_api.kinds import BY_NAME, Kind

Item = dict[str, Any]
Key = tuple[str, str, str]
"""Kind, namespace ("" for none), name."""
FOREGROUND = "foregroundDeletion"


@dataclass(frozen=True)
class Change:
    """One change of one object: its state before (None where it is new) and after (the last, where it was deleted)."""

    revision: int
    type: str
    key: Key
    before: Item | None
    item: Item


class Store:
    """Safe to use from several threads; what it gives are copies."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.lock = threading.RLock()
        self.revision = 1000
        self.compacted = 0
        """Changes up to this revision are no longer kept."""
        self.foreground_waits = False
        """Objects deleted in the foreground stay until `finish_deletions`."""
        self._items: dict[Key, Item] = {}
        self._changes: list[Change] = []
        self._changed = changed

    def get(self, key: Key) -> Item | None:
        with self.lock:
            return copy.deepcopy(self._items.get(key))

    def all(self, kind: Kind, namespace: str | None = None) -> list[Item]:
        """Objects of a kind by namespace and name; all namespaces where None is given."""
        with self.lock:
            keys = sorted(key for key in self._items if key[0] == kind.name and namespace in (None, "", key[1]))
            return [copy.deepcopy(self._items[key]) for key in keys]

    def changes(self, kind: Kind, after: int) -> list[Change]:
        """Raises RefusalError (410) where they are no longer kept."""
        with self.lock:
            if after < self.compacted:
                raise failures.expired(after, self.compacted)
            return [change for change in self._changes if change.revision > after and change.key[0] == kind.name]

    def compact(self) -> None:
        """Forget what has changed, as the server does after some minutes."""
        with self.lock:
            self.revision += 1
            self.compacted = self.revision
            self._changes.clear()

    def write(self, key: Key, item: Item) -> Item:
        """Put an object in place of what was there. Nothing happens where nothing differs."""
        with self.lock:
            before = self._items.get(key)
            item = copy.deepcopy(item)
            metadata = item.setdefault("metadata", {})
            metadata["name"] = key[2]
            if key[1]:
                metadata["namespace"] = key[1]
            for own in ("uid", "creationTimestamp", "resourceVersion", "generation"):
                if before and own in before["metadata"]:
                    metadata[own] = before["metadata"][own]
            if before is not None and _plain(before) == _plain(item):
                return copy.deepcopy(before)
            metadata.setdefault("uid", str(uuid.uuid4()))
            metadata.setdefault("creationTimestamp", now())
            if before is None or before.get("spec") != item.get("spec"):
                metadata["generation"] = metadata.get("generation", 0) + 1
            if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
                return self._remove(key, item)
            self._note("MODIFIED" if before else "ADDED", key, item)
            self._items[key] = item
            return copy.deepcopy(item)

    def delete(self, key: Key, propagation: str) -> Item | None:
        """Delete an object and what it owns; returns it where it stays for a while (finalizers), else None."""
        with self.lock:
            item = copy.deepcopy(self._items[key])
            if propagation == "Orphan":
                self._orphan(item["metadata"]["uid"])
            finalizers = item["metadata"].setdefault("finalizers", [])
            if propagation == "Foreground":
                finalizers.append(FOREGROUND)
            if not finalizers:
                self._remove(key, item)
                return None
            item["metadata"].setdefault("deletionTimestamp", now())
            self.write(key, item)
            if propagation == "Foreground" and not self.foreground_waits:
                self.finish_deletions()
            return item

    def finish_deletions(self) -> None:
        """What was deleted in the foreground goes, with what it owns."""
        with self.lock:
            for key, item in list(self._items.items()):
                if FOREGROUND in item["metadata"].get("finalizers", []):
                    self._collect(item["metadata"]["uid"])
                    rest = [each for each in item["metadata"]["finalizers"] if each != FOREGROUND]
                    changed = copy.deepcopy(item)
                    changed["metadata"]["finalizers"] = rest
                    self.write(key, changed)

    def _remove(self, key: Key, item: Item) -> Item:
        self._note("DELETED", key, item)
        self._items.pop(key, None)
        self._collect(item["metadata"]["uid"])
        return copy.deepcopy(item)

    def _collect(self, owner: str) -> None:
        for key, item in list(self._items.items()):
            references = item["metadata"].get("ownerReferences") or []
            if references and all(each["uid"] == owner for each in references) and key in self._items:
                self._remove(key, copy.deepcopy(item))

    def _orphan(self, owner: str) -> None:
        for key, item in list(self._items.items()):
            references = item["metadata"].get("ownerReferences") or []
            kept = [each for each in references if each["uid"] != owner]
            if kept != references:
                self.write(key, item | {"metadata": item["metadata"] | {"ownerReferences": kept}})

    def _note(self, type_: str, key: Key, item: Item) -> None:
        self.revision += 1
        item["metadata"]["resourceVersion"] = str(self.revision)
        self._changes.append(Change(self.revision, type_, key, self._items.get(key), copy.deepcopy(item)))
        self._changed()


def key_of(item: Item, namespace: str = "default") -> Key:
    """Where an object belongs."""
    kind = BY_NAME[item["kind"]]
    where = item["metadata"].get("namespace", namespace) if kind.namespaced else ""
    return kind.name, where, item["metadata"]["name"]


def now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _plain(item: Item) -> Item:
    return item | {"metadata": {k: v for k, v in item["metadata"].items() if k != "resourceVersion"}}
