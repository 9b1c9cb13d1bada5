"""Finding and reading search spaces: built-in names, YAML files, and `key=value` overrides."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from search_spaces.explain import apply_override, explain, list_problems, nearest
from search_spaces.spec import SearchSpace
from search_spaces.yaml_text import read_yaml


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
    hint = nearest(name_or_path, names, cutoff=0.5)
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
        data = read_yaml(text)
    except yaml.YAMLError as error:
        raise SpaceError(f"{name_or_path}: not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise SpaceError(f"{name_or_path}: must be a mapping of keys to values, not {type(data).__name__}")
    applied = [apply_override(data, override, "--set", "recipe.epochs=20") for override in overrides]
    problems = list(filter(None, applied))
    if problems:
        raise SpaceError(list_problems(f"search space {name_or_path}", problems))
    return validate_space(data, name_or_path)


def validate_space(data: dict[str, Any], source: str) -> SearchSpace:
    """Validate the parsed content of a space. Raises SpaceError listing every problem with its key."""
    try:
        return SearchSpace.model_validate(data)
    except ValidationError as error:
        problems = explain(error, SearchSpace, "the space")
        raise SpaceError(list_problems(f"search space {source}", problems)) from error
