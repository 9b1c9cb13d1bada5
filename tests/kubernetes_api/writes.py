"""Creating, changing, applying and deleting objects, with the checks that the real server makes."""

from __future__ import annotations

import copy
from typing import Any

from tests.kubernetes_api import failures, ownership, validation
from tests.kubernetes_api.kinds import Kind
from tests.kubernetes_api.store import Item, Store


class Writes:
    """Writes to one store; a dry run does all but keep the result."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, kind: Kind, namespace: str, item: Item, manager: str, *, strict: bool, dry_run: bool) -> Item:
        with self._store.lock:
            self._check_namespace(kind, namespace)
            name = item.get("metadata", {}).get("name")
            if not name:
                raise failures.invalid(
                    kind, "", [("metadata.name", "Required value: name or generateName is required")]
                )
            key = (kind.name, namespace, name)
            if self._store.get(key) is not None:
                raise failures.already_exists(kind, name)
            if strict:
                validation.check(kind, item, applied=False)
            item = {**copy.deepcopy(item), "apiVersion": kind.api_version, "kind": kind.name}
            _drop_status(kind, item)
            ownership.record_update(None, item, manager, kind.api_version)
            return item if dry_run else self._store.write(key, item)

    def apply(
        self, kind: Kind, namespace: str, name: str, item: Item, manager: str, *, force: bool, dry_run: bool
    ) -> tuple[Item, bool]:
        """The result, and whether it is new."""
        with self._store.lock:
            self._check_namespace(kind, namespace)
            metadata = item.get("metadata") or {}
            if metadata.get("name", name) != name:
                raise failures.bad_request(
                    f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
                )
            if kind.namespaced and metadata.get("namespace", namespace) != namespace:
                raise failures.bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
            if metadata.get("managedFields"):
                raise failures.bad_request("metadata.managedFields must be nil")
            item = {**item, "metadata": {**metadata, "name": name}}
            key = (kind.name, namespace, name)
            before = self._store.get(key)
            validation.check(kind, item, applied=True)
            item = copy.deepcopy(item)
            _drop_status(kind, item)
            after = ownership.apply(before, item, manager, kind.api_version, force=force)
            _check_immutable(kind, name, before, after)
            return (after if dry_run else self._store.write(key, after)), before is None

    def merge(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        patch: Item,
        manager: str,
        *,
        strict: bool,
        dry_run: bool,
        status: bool = False,
    ) -> Item:
        with self._store.lock:
            key = (kind.name, namespace, name)
            before = self._store.get(key)
            if before is None:
                raise failures.not_found(kind, name)
            wanted = patch.get("metadata", {}).get("resourceVersion")
            if wanted and wanted != before["metadata"]["resourceVersion"]:
                raise failures.RefusalError(
                    409,
                    "Conflict",
                    f'Operation cannot be fulfilled on {kind.full_name} "{name}": the object has been modified; please '
                    "apply your changes to the latest version and try again",
                    {"name": name, "group": kind.group, "kind": kind.plural},
                )
            part = {"status": patch.get("status")} if status else {k: v for k, v in patch.items() if k != "status"}
            after = _merged(before, part)
            if strict:
                validation.check(kind, after, applied=False)
            _check_immutable(kind, name, before, after)
            ownership.record_update(before, after, manager, kind.api_version)
            return after if dry_run else self._store.write(key, after)

    def delete(
        self, kind: Kind, namespace: str, name: str, propagation: str, *, uid: str | None = None, dry_run: bool
    ) -> Item:
        with self._store.lock:
            key = (kind.name, namespace, name)
            before = self._store.get(key)
            if before is None:
                raise failures.not_found(kind, name)
            if uid not in (None, before["metadata"]["uid"]):
                raise failures.other_uid(kind, name, f"{uid}", before["metadata"]["uid"])
            stays = before if dry_run else self._store.delete(key, propagation)
            return stays or {
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Success",
                "details": {"name": name, "group": kind.group, "kind": kind.plural, "uid": before["metadata"]["uid"]},
            }

    def _check_namespace(self, kind: Kind, namespace: str) -> None:
        if kind.namespaced and self._store.get(("Namespace", "", namespace)) is None:
            raise failures.RefusalError(
                404, "NotFound", f'namespaces "{namespace}" not found', {"name": namespace, "kind": "namespaces"}
            )


def _drop_status(kind: Kind, item: Item) -> None:
    """Only the status subresource takes it, where there is one."""
    if kind.custom or kind.name in ("Pod", "Job", "PersistentVolumeClaim"):
        item.pop("status", None)


def _check_immutable(kind: Kind, name: str, before: Item | None, after: Item) -> None:
    if kind.name == "PersistentVolumeClaim" and before is not None and before.get("spec") != after.get("spec"):
        message = "Forbidden: spec is immutable after creation except resources.requests for bound claims"
        raise failures.invalid(kind, name, [("spec", message)])
    if kind.name == "ConfigMap" and before is not None and before.get("immutable"):
        frozen = [field for field in ("data", "binaryData", "immutable") if before.get(field) != after.get(field)]
        if frozen:
            message = "Forbidden: field is immutable when `immutable` is set"
            raise failures.invalid(kind, name, [(field, message) for field in frozen])


def _merged(item: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(item) if isinstance(item, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return copy.deepcopy(result)
