"""Finding and reading search spaces: built-in names, YAML files, and `key=value` overrides."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from search_spaces.spec import (
    Analysis,
    Cell,
    DatasetChoice,
    Evaluation,
    FlowRecipe,
    NoiseGrid,
    Priority,
    Recipe,
    Resources,
    SearchSpace,
)


class SpaceError(ValueError):
    """A search space that cannot be used; the message lists every problem."""


def builtin_names() -> list[str]:
    """Names of the search spaces that come with the package, sorted."""
    folder = resources.files("search_spaces") / "builtin"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read_text(name_or_path: str) -> str:
    """The YAML text of a built-in space or of a file. Raises SpaceError, with the nearest name, where there is none."""
    names = builtin_names()
    if name_or_path in names:
        return (resources.files("search_spaces") / "builtin" / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    path = Path(name_or_path)
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SpaceError(f"{name_or_path}: cannot be read as text ({error})") from error
    near = difflib.get_close_matches(name_or_path, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise SpaceError(
        f"{name_or_path!r} is neither a built-in search space nor a file.{hint} Built-in: {', '.join(names)}"
    )


def load_space(name_or_path: str, overrides: Iterable[str] = ()) -> SearchSpace:
    """Read, override and validate a space.

    Args:
        name_or_path: a built-in name, or the path of a YAML file.
        overrides: `key=value` with a dotted key and a YAML value, for example `recipe.epochs=20` or `seeds=[0,1]`.

    Raises:
        SpaceError: with all problems in one message.
    """
    text = read_text(name_or_path)
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpaceError(f"{name_or_path}: not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise SpaceError(f"{name_or_path}: must be a mapping of keys to values, not {type(data).__name__}")
    problems = [problem for override in overrides if (problem := _apply_override(data, override))]
    if problems:
        raise SpaceError(_message(name_or_path, problems))
    return validate_space(data, name_or_path)


def validate_space(data: dict[str, Any], source: str) -> SearchSpace:
    """Validate the parsed content of a space. Raises SpaceError listing every problem with its key."""
    try:
        return SearchSpace.model_validate(data)
    except ValidationError as error:
        problems = [_explain(dict(item), data) for item in error.errors(include_url=False)]
        raise SpaceError(_message(source, problems)) from error


def _message(source: str, problems: list[str]) -> str:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return f"search space {source}: {count}\n" + "\n".join(f"  - {problem}" for problem in problems)


def _explain(item: dict[str, Any], data: dict[str, Any]) -> str:
    """One validation error in plain words: key, value, what is allowed."""
    location = [part for part in item["loc"] if part not in ("sgd", "adam", "gradient-flow")]
    key = ".".join(str(part) for part in location) or "the space"
    if item["type"] == "extra_forbidden":
        allowed = _allowed_keys(location[:-1], data)
        near = difflib.get_close_matches(str(location[-1]), allowed, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"{key}: unknown key.{hint} Allowed here: {', '.join(allowed)}"
    message = str(item["msg"]).removeprefix("Value error, ")
    value = item.get("input")
    shown = f" (got {value!r})" if isinstance(value, (str, int, float, bool)) else ""
    return f"{key}: {message}{shown}"


def _allowed_keys(location: list[Any], data: dict[str, Any]) -> list[str]:
    """Keys that the model at `location` takes."""
    parts: dict[str, type[BaseModel]] = {
        "dataset": DatasetChoice,
        "noise": NoiseGrid,
        "evaluation": Evaluation,
        "resources": Resources,
        "analysis": Analysis,
        "priorities": Priority,
        "cells": Cell,
    }
    if location and location[0] == "recipe":
        recipe = data.get("recipe")
        flow = isinstance(recipe, dict) and recipe.get("optimizer") == "gradient-flow"
        return list((FlowRecipe if flow else Recipe).model_fields)
    model: type[BaseModel] = parts.get(location[0], SearchSpace) if location else SearchSpace
    return list(model.model_fields)


def _apply_override(data: dict[str, Any], override: str) -> str | None:
    """Set one dotted key in place; returns the problem, if there is one. Unknown keys are caught by validation."""
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        return f"--set {override!r}: must be key=value, for example recipe.epochs=20"
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return f"--set {override!r}: the value is not valid YAML"
    target = data
    for part in parts[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            return f"--set {override!r}: {part!r} is a value, not a section"
    target[parts[-1]] = value
    return None
