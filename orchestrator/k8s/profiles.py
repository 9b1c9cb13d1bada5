"""The file of cluster profiles, `clusters.yaml`: finding one, changing values of it, telling what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from orchestrator.k8s.profile import ClusterProfile
from search_spaces.explain import apply_override, explain, list_problems, nearest
from search_spaces.frozen import Frozen
from search_spaces.yaml_text import read_yaml

FILE_VARIABLE = "BO_SWEEP_CLUSTERS"
EXAMPLE = """\
default: lab
clusters:
  lab:
    namespace: sweeps
    image: registry.example.org/bo-sweep@sha256:...
    workers: {nodes: 2, gpus: 8, cpus: 96, memory: 900Gi}
    results: {claim: bo-sweep-results}
    data: {claim: datasets}"""
OPTION = "--cluster-set"
FLAT = {"nodes": ("workers", "nodes"), "gpus_per_node": ("workers", "gpus")}
"""Options that stand for a value inside of a section."""


class ProfileError(ValueError):
    """A profile that cannot be used; the message lists every problem."""


class _File(Frozen):
    """The file as a whole; its profiles are validated one at a time, so that a wrong one does not block the others."""

    default: str | None = None
    clusters: dict[str, dict[str, Any]] = Field(min_length=1)


def profiles_file() -> Path:
    """Where the profiles are: $BO_SWEEP_CLUSTERS, or bo-sweep/clusters.yaml in the user's configuration folder."""
    configuration = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(os.environ.get(FILE_VARIABLE) or Path(configuration) / "bo-sweep" / "clusters.yaml")


def profile_names(path: Path | None = None) -> list[str]:
    """The names in the file, sorted; none where there is no file. Raises ProfileError."""
    where = path or profiles_file()
    return sorted(_read(where).clusters) if where.is_file() else []


def load_profile(
    name: str | None = None, overrides: Iterable[str] = (), path: Path | None = None, **given: Any
) -> ClusterProfile:
    """A profile of the file, with values of the command line in the place of its own.

    Without a name it is the default one, or the only one. Where there is no file the command line may say it all.

    Args:
        overrides: `key=value` with a dotted key and a YAML value, for example `workers.cpus=32`.
        path: of the file, where not the user's.
        given: values of the profile by name, and `nodes` and `gpus_per_node`; None is not given.

    Raises:
        ProfileError: with all problems in one message.
    """
    where = path or profiles_file()
    data, source = _entry(name, where)
    for key, value in given.items():
        if value is not None:
            _put(data, FLAT.get(key, (key,)), value)
    applied = [apply_override(data, override, OPTION, "workers.cpus=32") for override in overrides]
    problems = list(filter(None, applied))
    if problems:
        raise ProfileError(list_problems(source, problems))
    try:
        return ClusterProfile.model_validate(data)
    except ValidationError as error:
        message = list_problems(source, explain(error, ClusterProfile, "the profile"))
        hint = "" if where.is_file() else f"\n{_how_to_write(where)}"
        raise ProfileError(message + hint) from error


def _entry(name: str | None, where: Path) -> tuple[dict[str, Any], str]:
    """The content of a profile, and how to call it in messages."""
    if not where.is_file():
        if name is not None:
            raise ProfileError(
                f"there is no profile {name!r}, since there is no file of profiles. {_how_to_write(where)}"
            )
        return {}, "the cluster, as the command line has it"
    file = _read(where)
    names = sorted(file.clusters)
    chosen = name or file.default or (names[0] if len(names) == 1 else None)
    if chosen is None:
        raise ProfileError(f"{where} has no `default`: choose one with --profile. There are: {', '.join(names)}")
    if chosen not in file.clusters:
        said = "" if name else " (its `default`)"
        raise ProfileError(
            f"{where} has no profile {chosen!r}{said}.{nearest(chosen, names)} There are: {', '.join(names)}"
        )
    return file.clusters[chosen], f"profile {chosen} in {where}"


def _read(where: Path) -> _File:
    try:
        content = read_yaml(where.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{where}: cannot be read as text ({error})") from error
    except yaml.YAMLError as error:
        raise ProfileError(f"{where}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ProfileError(f"{where}: must be a mapping with `clusters`. {_how_to_write(where)}")
    try:
        return _File.model_validate(content)
    except ValidationError as error:
        raise ProfileError(list_problems(f"{where}", explain(error, _File, "the file"))) from error


def _how_to_write(where: Path) -> str:
    return f"Write {where}, for example:\n{EXAMPLE}"


def _put(data: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    for key in keys[:-1]:
        inner = data.get(key)
        data[key] = dict(inner) if isinstance(inner, dict) else {}
        data = data[key]
    data[keys[-1]] = value
