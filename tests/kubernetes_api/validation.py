"""Strict validation: unknown fields and wrong types, by the CRDs and by the schemas of the core kinds."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate  # type: ignore[import-untyped]
from referencing import Registry, Resource

from tests.kubernetes_api.failures import RefusalError, bad_request, invalid
from tests.kubernetes_api.kinds import Kind

CRD_FOLDER = Path(__file__).resolve().parents[3] / "shared" / "kuberay"
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


def check(kind: Kind, item: dict[str, Any], *, applied: bool) -> None:
    """Refuse fields that the kind does not have, and values of other types.

    Server-side apply (`applied`) meets the schema where the two objects are merged, and its errors come as plain 500.
    """
    name, namespace = item["metadata"].get("name", ""), item["metadata"].get("namespace", "")
    problems = list(_custom(kind, item)) if kind.custom else list(_core(item))
    if not problems:
        return
    unknown = [path for path, message in problems if message == "unknown"]
    wrong = [(path, message) for path, message in problems if message != "unknown"]
    if applied:
        told = [f".{path}: field not declared in schema" for path in unknown] + [f".{p}: {m}" for p, m in wrong]
        text = told[0] if len(told) == 1 else "errors:\n" + "\n".join(f"  {line}" for line in told)
        group = f"{kind.group}/{kind.version}" if kind.group else kind.version
        raise RefusalError(
            500,
            "",
            f"failed to create typed patch object ({namespace}/{name}; {group}, Kind={kind.name}): {text}",
        )
    if unknown:
        fields = ", ".join(f'unknown field "{path}"' for path in unknown)
        handled = "" if kind.custom else f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}: '
        raise bad_request(f"{handled}strict decoding error: {fields}")
    raise invalid(kind, name, wrong)


@functools.cache
def _schema(kind: Kind) -> dict[str, Any] | None:
    path = CRD_FOLDER / f"{kind.group}_{kind.plural}.json"
    if not path.exists():
        return None
    versions = json.loads(path.read_text(encoding="utf-8"))["spec"]["versions"]
    schema: dict[str, Any] = next(each for each in versions if each["name"] == "v1")["schema"]["openAPIV3Schema"]
    return schema


def _custom(kind: Kind, item: dict[str, Any]) -> Iterator[tuple[str, str]]:
    schema = _schema(kind)
    if schema is None:
        return
    for key, value in item.items():
        if key in ("apiVersion", "kind", "metadata"):
            continue
        yield from _walk(schema["properties"].get(key), value, key)


def _walk(schema: dict[str, Any] | None, value: Any, path: str) -> Iterator[tuple[str, str]]:
    if schema is None:
        yield path, "unknown"
        return
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, (int, str)):
            yield path, f"must be of type integer or string: {json.dumps(value)}"
        return
    wanted = schema.get("type")
    if value is None or not wanted:
        return
    if not isinstance(value, _TYPES[wanted]) or (wanted in ("integer", "number") and isinstance(value, bool)):
        yield path, f"Invalid value: {path} in body must be of type {wanted}: {json.dumps(value)}"
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(schema["items"], item, f"{path}[{index}]")
    elif isinstance(value, dict):
        properties, more = schema.get("properties", {}), schema.get("additionalProperties")
        for key, item in value.items():
            if key in properties:
                yield from _walk(properties[key], item, f"{path}.{key}")
            elif isinstance(more, dict):
                yield from _walk(more, item, f"{path}.{key}")
            elif not more and not schema.get("x-kubernetes-preserve-unknown-fields") and properties:
                yield f"{path}.{key}", "unknown"
    if "enum" in schema and value not in schema["enum"]:
        yield path, f"Unsupported value: {json.dumps(value)}: supported values: {', '.join(schema['enum'])}"
    minimum = schema.get("minimum")
    if minimum is not None and isinstance(value, (int, float)) and value < minimum:
        yield path, f"Invalid value: {value}: {path} in body should be greater than or equal to {minimum}"


def _core(item: dict[str, Any]) -> Iterator[tuple[str, str]]:
    validator = _validator(item["kind"], item["apiVersion"])
    kept = {key: value for key, value in item.items() if key != "status"}
    for error in validator.iter_errors(kept) if validator else ():
        path = ".".join(str(step) for step in error.path)
        if error.validator == "additionalProperties":
            known = error.schema.get("properties", {})
            for key in error.instance:
                if key not in known:
                    yield f"{path}.{key}".lstrip("."), "unknown"
        else:
            yield path, f"Invalid value: {error.message}"


@functools.cache
def _validator(kind: str, api_version: str) -> jsonschema.protocols.Validator | None:
    """By the newest schemas of the kubernetes-validate package, which reads them anew for each object; None where it
    has none for the kind."""
    folder = _newest_schemas()
    group, _, version = api_version.rpartition("/")
    name = "-".join(filter(None, (kind.lower(), group.partition(".")[0], version)))
    path = folder / f"{name}.json"
    if not path.is_file():
        return None
    schema = json.loads(path.read_text(encoding="utf-8"))
    registry = Resource.from_contents(schema) @ (_definitions() @ Registry())
    return jsonschema.Draft202012Validator(schema, registry=registry)


@functools.cache
def _definitions() -> Any:
    return Resource.from_contents(json.loads((_newest_schemas() / "_definitions.json").read_text(encoding="utf-8")))


def _newest_schemas() -> Path:
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    return folder / f"v{kubernetes_validate.latest_version()}-local-strict"
