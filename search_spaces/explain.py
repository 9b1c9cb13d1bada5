"""What is wrong with a file that people wrote, in plain words: every problem with its key, and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError


def explain(error: ValidationError, model: type[BaseModel], whole: str) -> list[str]:
    """Each problem as "key: what is wrong"; unknown keys with those that are allowed, and the nearest.

    Args:
        model: that was to be validated.
        whole: what to call the file itself, where a problem is with no single key.
    """
    return [_explain(dict(item), model, whole) for item in error.errors(include_url=False)]


def list_problems(subject: str, problems: Sequence[str]) -> str:
    """One message for all problems of a subject."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return f"{subject}: {count}\n" + "\n".join(f"  - {problem}" for problem in problems)


def nearest(name: str, names: Sequence[str], cutoff: float = 0.6) -> str:
    """A hint at the name that was meant, with a blank before it; nothing where none is near."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=cutoff)
    return f" Did you mean {near[0]!r}?" if near else ""


def apply_override(data: dict[str, Any], override: str, option: str, example: str) -> str | None:
    """Set one dotted `key=value` with a YAML value in place; returns the problem, if there is one.

    Unknown keys are left to validation.
    """
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        return f"{option} {override!r}: must be key=value, for example {example}"
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return f"{option} {override!r}: the value is not valid YAML"
    target = data
    for part in parts[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            return f"{option} {override!r}: {part!r} is a value, not a section"
    target[parts[-1]] = value
    return None


def _explain(item: dict[str, Any], model: type[BaseModel], whole: str) -> str:
    shown, parent = _walk(model, item["loc"])
    key = ".".join(shown) or whole
    if item["type"] == "extra_forbidden":
        allowed = [name for kind in _models(parent) for name in kind.model_fields]
        return f"{key}: unknown key.{nearest(shown[-1], allowed)} Allowed here: {', '.join(allowed)}"
    message = str(item["msg"]).removeprefix("Value error, ")
    value = item.get("input")
    got = f" (got {value!r})" if isinstance(value, (str, int, float, bool)) else ""
    return f"{key}: {message}{got}"


def _walk(kind: Any, location: Sequence[str | int]) -> tuple[list[str], Any]:
    """The parts of a location as the file has them, and the type that holds the last one."""
    shown: list[str] = []
    parent = kind
    for part in location:
        models = list(_models(kind))
        tagged = [model for model in models if len(models) > 1 and part in _tags(model)]
        if tagged:  # the file does not show which of several sections it is
            kind = tagged[0]
            continue
        if part == "[key]":
            continue
        shown.append(str(part))
        parent, kind = kind, _inside(kind, part)
    return shown, parent


def _inside(kind: Any, part: str | int) -> Any:
    """The type of one part of a type; None where there is no such part."""
    for model in _models(kind):
        if part in model.model_fields:
            return model.model_fields[str(part)].annotation
    for one in _alternatives(kind):
        if get_origin(one) in (tuple, list, dict):
            return next((inner for inner in reversed(get_args(one)) if inner is not Ellipsis), None)
    return None


def _models(kind: Any) -> Iterator[type[BaseModel]]:
    """The sections that a type may be."""
    for one in _alternatives(kind):
        if isinstance(one, type) and issubclass(one, BaseModel):
            yield one


def _alternatives(kind: Any) -> Iterator[Any]:
    """A type without its annotations; each one of a union."""
    if get_origin(kind) is Annotated:
        yield from _alternatives(get_args(kind)[0])
    elif get_origin(kind) in (tuple, list, dict, None) or isinstance(kind, type):
        yield kind
    else:
        for one in get_args(kind):
            yield from _alternatives(one)


def _tags(model: type[BaseModel]) -> set[Any]:
    """Values by which a section is told from others."""
    literal = [field.annotation for field in model.model_fields.values() if get_origin(field.annotation) is Literal]
    return {value for annotation in literal for value in get_args(annotation)}
