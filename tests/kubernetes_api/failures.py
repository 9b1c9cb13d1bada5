"""Refusals, as the real server words them."""

from __future__ import annotations

from typing import Any

from tests.kubernetes_api.kinds import Kind


class RefusalError(Exception):
    """An answer other than 2xx: its Status object, or plain text where the server sends no object."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message
        self.details, self.headers = details or {}, headers or {}

    def status(self) -> dict[str, Any]:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            **({"reason": self.reason} if self.reason else {}),
            **({"details": self.details} if self.details else {}),
            "code": self.code,
        }


class NoSuchPathError(Exception):
    """Nothing is served there: 404 as plain text."""


def not_found(kind: Kind, name: str) -> RefusalError:
    details = {"name": name, "group": kind.group, "kind": kind.plural}
    return RefusalError(404, "NotFound", f'{kind.full_name} "{name}" not found', details)


def already_exists(kind: Kind, name: str) -> RefusalError:
    details = {"name": name, "group": kind.group, "kind": kind.plural}
    return RefusalError(409, "AlreadyExists", f'{kind.full_name} "{name}" already exists', details)


def other_uid(kind: Kind, name: str, wanted: str, found: str) -> RefusalError:
    """The object that was meant is gone, and another one has its name."""
    message = (
        f'Operation cannot be fulfilled on {kind.full_name} "{name}": Precondition failed: UID in precondition: '
        f"{wanted}, UID in object meta: {found}"
    )
    return RefusalError(409, "Conflict", message, {"name": name, "group": kind.group, "kind": kind.plural})


def conflict(owned: list[tuple[str, str, str]]) -> RefusalError:
    """Server-side apply against fields of others: (field, manager, apiVersion)."""
    causes = [
        {"reason": "FieldManagerConflict", "message": f'conflict with "{manager}" using {version}', "field": field}
        for field, manager, version in owned
    ]
    count = f"{len(owned)} conflict{'s' if len(owned) > 1 else ''}"
    told = "\n".join(f"- {field}" for field, _, _ in owned)
    manager, version = owned[0][1:]
    one = f'conflict with "{manager}" using {version}: {owned[0][0]}'
    message = f"Apply failed with {count}: " + (
        one if len(owned) == 1 else f'conflicts with "{manager}" using {version}:\n{told}'
    )
    return RefusalError(409, "Conflict", message, {"causes": causes})


def forbidden(
    kind: Kind, verb: str, user: str, namespace: str | None, name: str | None, subresource: str = ""
) -> RefusalError:
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    named = f' "{name}"' if name else ""
    resource = f"{kind.plural}/{subresource}" if subresource else kind.plural
    message = (
        f'{kind.full_name}{named} is forbidden: User "{user}" cannot {verb} resource "{resource}" '
        f'in API group "{kind.group}" {where}'
    )
    details = {"group": kind.group, "kind": kind.plural} | ({"name": name} if name else {})
    return RefusalError(403, "Forbidden", message, details)


def unauthorized() -> RefusalError:
    return RefusalError(401, "Unauthorized", "Unauthorized")


def expired(asked: int, oldest: int) -> RefusalError:
    return RefusalError(410, "Expired", f"too old resource version: {asked} ({oldest})")


def bad_request(message: str) -> RefusalError:
    return RefusalError(400, "BadRequest", message)


def invalid(kind: Kind, name: str, causes: list[tuple[str, str]]) -> RefusalError:
    """Values that the schema or the kind's own rules forbid: (field, message)."""
    told = [f"{field}: {message}" for field, message in causes]
    listed = told[0] if len(told) == 1 else f"[{', '.join(told)}]"
    title = f"{kind.name}.{kind.group}" if kind.group else kind.name
    details = {
        "name": name,
        "group": kind.group,
        "kind": kind.name,
        "causes": [{"reason": "FieldValueInvalid", "message": message, "field": field} for field, message in causes],
    }
    return RefusalError(422, "Invalid", f'{title} "{name}" is invalid: {listed}', details)
