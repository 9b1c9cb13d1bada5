"""Where a sweep is published to, from options and W&B's own environment variables; options win."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MODES = ("auto", "runs", "cells", "summary")
Connection = Literal["online", "offline", "disabled"]
DEFAULT_PROJECT = "bo-sweep"
MOST_TAG_CHARACTERS = 64
MOST_NAME_CHARACTERS = 128
RESERVED = "/\\#?%:"
"""What W&B allows in the name of no project and no entity."""
CONNECTIONS: dict[str, Connection | None] = {
    "": None,
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
_OWN = ("RUN_ID", "NAME", "NOTES", "RESUME", "RESUME_FROM", "FORK_FROM", "JOB_TYPE", "RUN_GROUP", "TAGS", "MODE")
_OF_OTHERS = ("SERVICE", "SWEEP_ID", "SWEEP_PARAM_PATH", "CONFIG_PATHS", "DIR", "LAUNCH", "DISABLED")
_NOT_PASSED_ON = frozenset(f"WANDB_{name}" for name in (*_OWN, *_OF_OTHERS))
"""Variables that would turn all of our W&B runs into the one that they speak of."""


@dataclass(frozen=True)
class Target:
    """A project of W&B, and what every W&B run of a sweep gets there.

    Attributes:
        entity: user or team; None for the default one of the key's owner.
        group: of every W&B run, in place of its cell.
        tags: of every W&B run, beside the sweep's name.
        connection: None to decide by whether there is a key.
    """

    project: str = DEFAULT_PROJECT
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    connection: Connection | None = None

    @classmethod
    def of(
        cls,
        *,
        entity: str | None = None,
        project: str | None = None,
        group: str | None = None,
        tags: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Target:
        """What options say, and where they are silent WANDB_ENTITY, _PROJECT, _RUN_GROUP, _TAGS and _MODE.

        Raises:
            ValueError: an unknown WANDB_MODE, or names or tags that W&B refuses; all of it in one message.
        """
        told = os.environ if environment is None else environment
        mode = told.get("WANDB_MODE", "")
        project = project or told.get("WANDB_PROJECT") or DEFAULT_PROJECT
        entity = entity or told.get("WANDB_ENTITY") or None
        tags = tags or tuple(tag.strip() for tag in told.get("WANDB_TAGS", "").split(",") if tag.strip())
        problems = [*_misnamed("project", project), *_misnamed("entity", entity or "x")]
        problems += [
            f"tag {tag!r} has {len(tag)} characters; W&B allows 1 to {MOST_TAG_CHARACTERS}: choose another"
            for tag in tags
            if not 0 < len(tag) <= MOST_TAG_CHARACTERS
        ]
        if mode not in CONNECTIONS:
            known = ", ".join(name for name in CONNECTIONS if name)
            problems.append(f"WANDB_MODE is {mode!r}; allowed are {known}: set one of them, or none")
        if problems:
            raise ValueError("; ".join(problems))
        return cls(
            project=project,
            entity=entity,
            group=group or told.get("WANDB_RUN_GROUP") or None,
            tags=tags,
            connection=CONNECTIONS[mode],
        )


def _misnamed(what: str, name: str) -> list[str]:
    found = sorted({character for character in name if character in RESERVED or character.isspace()} - {" "})
    if len(name) <= MOST_NAME_CHARACTERS and not found and name.strip() == name:
        return []
    return [
        f"{what} {name!r} is no name that W&B allows: {MOST_NAME_CHARACTERS} characters at most, none of {RESERVED}, "
        f"and no space around it; choose another with --{what} or WANDB_{what.upper()}"
    ]


def sweep_tag(sweep: str) -> str:
    """The tag of all W&B runs of a sweep."""
    return sweep[:MOST_TAG_CHARACTERS]


def passed_on(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of the process that calls W&B: the key and the server's address stay, one run's names do not."""
    told = os.environ if environment is None else environment
    kept = {name: value for name, value in told.items() if name not in _NOT_PASSED_ON}
    return kept | {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "OMP_NUM_THREADS": "1", "GOMAXPROCS": "2"}
