"""Server-side apply: who manages which field. Lists are taken as one value, as atomic lists are."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from tests.kubernetes_api.failures import conflict

Path = tuple[str, ...]
_NOT_OWNED = {("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace"), ("status",)}
_SERVERS_OWN = {"managedFields", "uid", "resourceVersion", "creationTimestamp", "generation", "deletionTimestamp"}


def leaves(value: dict[str, Any], path: Path = ()) -> Iterator[Path]:
    """Paths of all values that are no (filled) dictionaries."""
    for key, item in value.items():
        here = (*path, key)
        if here in _NOT_OWNED or (path == ("metadata",) and key in _SERVERS_OWN):
            continue
        if isinstance(item, dict) and item:
            yield from leaves(item, here)
        else:
            yield here


def at(value: Any, path: Path) -> Any:
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def apply(
    current: dict[str, Any] | None, wanted: dict[str, Any], manager: str, version: str, *, force: bool
) -> dict[str, Any]:
    """What results where `manager` applies `wanted`. Raises RefusalError (409) where fields of others would change."""
    entries = _entries(current)
    mine = entries.get((manager, "Apply"), set())
    new = set(leaves(wanted))
    theirs = {
        (path, other)
        for (other, operation), owned in entries.items()
        if (other, operation) != (manager, "Apply")
        for path in owned
        for mine_now in new
        if _overlap(path, mine_now) and at(current, mine_now) != at(wanted, mine_now)
    }
    if theirs and not force:
        raise conflict(sorted((f".{'.'.join(path)}", other, version) for path, other in theirs))
    result = copy.deepcopy(current) if current else {}
    others = {path for key, owned in entries.items() if key != (manager, "Apply") for path in owned}
    for path in mine - new - others:
        _remove(result, path)
    for path in new:
        _set(result, path, copy.deepcopy(at(wanted, path)))
    entries = {key: owned - {path for path, _ in theirs} for key, owned in entries.items()}
    entries[manager, "Apply"] = new
    result["apiVersion"], result["kind"] = wanted["apiVersion"], wanted["kind"]
    result.setdefault("metadata", {}).update(
        {key: wanted["metadata"][key] for key in ("name", "namespace") if key in wanted["metadata"]}
    )
    _write(result, entries, version)
    return result


def record_update(before: dict[str, Any] | None, after: dict[str, Any], manager: str, version: str) -> None:
    """Note in `after` that `manager` has written what differs from `before`, by other means than apply."""
    entries = _entries(before)
    changed = {path for path in leaves(after) if at(before, path) != at(after, path)}
    removed = set(leaves(before or {})) - set(leaves(after))
    if not changed and not removed:
        return
    entries = {key: owned - changed - removed for key, owned in entries.items()}
    entries[manager, "Update"] = entries.get((manager, "Update"), set()) | changed
    _write(after, entries, version)


def _overlap(left: Path, right: Path) -> bool:
    shorter = min(len(left), len(right))
    return left[:shorter] == right[:shorter]


def _entries(item: dict[str, Any] | None) -> dict[tuple[str, str], set[Path]]:
    found = ((item or {}).get("metadata") or {}).get("managedFields") or []
    return {(entry["manager"], entry["operation"]): set(_decoded(entry["fieldsV1"])) for entry in found}


def _write(item: dict[str, Any], entries: dict[tuple[str, str], set[Path]], version: str) -> None:
    item["metadata"]["managedFields"] = [
        {
            "manager": manager,
            "operation": operation,
            "apiVersion": version,
            "fieldsType": "FieldsV1",
            "fieldsV1": _encoded(owned),
        }
        for (manager, operation), owned in sorted(entries.items())
        if owned
    ]


def _encoded(paths: set[Path]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path in sorted(paths):
        node = tree
        for step in path:
            node = node.setdefault(f"f:{step}", {})
    return json.loads(json.dumps(tree))  # type: ignore[no-any-return]


def _decoded(tree: dict[str, Any], path: Path = ()) -> Iterator[Path]:
    for key, below in tree.items():
        here = (*path, key.removeprefix("f:"))
        if below:
            yield from _decoded(below, here)
        else:
            yield here


def _set(item: dict[str, Any], path: Path, value: Any) -> None:
    for step in path[:-1]:
        if not isinstance(item.get(step), dict):
            item[step] = {}
        item = item[step]
    item[path[-1]] = value


def _remove(item: dict[str, Any], path: Path) -> None:
    """The value, and dictionaries that are empty without it."""
    above = [item]
    for step in path[:-1]:
        if not isinstance(above[-1].get(step), dict):
            return
        above.append(above[-1][step])
    above[-1].pop(path[-1], None)
    for parent, step in zip(reversed(above[:-1]), reversed(path[:-1]), strict=True):
        if not parent[step]:
            del parent[step]
