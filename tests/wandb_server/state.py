"""What a W&B server remembers: runs with their streams and files, artifacts, views, charts."""

from __future__ import annotations

import base64
import itertools
import json
import threading
from dataclasses import dataclass, field
from typing import Any

HISTORY, SUMMARY, EVENTS, OUTPUT = "wandb-history.jsonl", "wandb-summary.json", "wandb-events.jsonl", "output.log"


@dataclass
class Run:
    """One run. `name` is its id in addresses, as the server calls it; `storage_id` is its node's id."""

    entity: str
    project: str
    name: str
    storage_id: str
    fields: dict[str, Any] = field(default_factory=dict)
    """What upserts said: displayName, group, jobType, tags, notes, ...; null and absent ones change nothing."""
    raw_config: dict[str, Any] = field(default_factory=dict)
    """As wandb sends it: {key: {"value": ...}}, with its own notes under _wandb."""
    lines: dict[str, list[str]] = field(default_factory=dict)
    """The streams, by file: lines at an offset replace those that were there."""
    files: dict[str, bytes] = field(default_factory=dict)
    finished: bool = False
    exit_code: int | None = None
    repeated: int = 0
    """History lines that came again, as after an answer that was lost."""
    contradicted: list[tuple[str, str]] = field(default_factory=list)
    """History lines that came again and were not the same: (before, after)."""
    upserts: int = 0
    gaps: list[tuple[str, int, int]] = field(default_factory=list)
    """Streams that went on beyond their end: (file, lines there, offset). The server cannot know what was between."""

    @property
    def path(self) -> str:
        return f"{self.entity}/{self.project}/{self.name}"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The history, line by line."""
        return [json.loads(line) for line in self.lines.get(HISTORY, [])]

    @property
    def summary(self) -> dict[str, Any]:
        lines = self.lines.get(SUMMARY) or ["{}"]
        summary: dict[str, Any] = json.loads(lines[-1])
        return summary

    @property
    def config(self) -> dict[str, Any]:
        """The values of the config, without wandb's own."""
        return {key: entry["value"] for key, entry in self.raw_config.items() if key != "_wandb"}

    @property
    def group(self) -> str | None:
        return self.fields.get("group")

    @property
    def tags(self) -> list[str]:
        return list(self.fields.get("tags") or [])

    def stream(self, file: str, offset: int, content: list[str]) -> None:
        """Take lines of a stream in, from line `offset` on."""
        lines = self.lines.setdefault(file, [])
        if file == SUMMARY:  # one line, always the latest
            lines[:] = content[-1:]
            return
        if offset > len(lines):
            self.gaps.append((file, len(lines), offset))
            lines.extend(["{}"] * (offset - len(lines)))
        again = lines[offset : offset + len(content)]
        if file == HISTORY:
            self.repeated += len(again)
            self.contradicted += [pair for pair in zip(again, content, strict=False) if pair[0] != pair[1]]
        lines[offset : offset + len(content)] = content


@dataclass
class View:
    """A report (type "runs", "runs/draft") or a saved workspace ("project-view"). `spec` is JSON."""

    id: str
    entity: str
    project: str
    type: str
    name: str
    display_name: str
    description: str
    spec: str
    saves: int = 1


@dataclass
class Artifact:
    """One version of a collection, and its files by storage path or name."""

    id: str
    collection: str
    digest: str
    state: str = "PENDING"
    files: dict[str, bytes] = field(default_factory=dict)


class State:
    """Everything, under one lock."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.runs: dict[str, Run] = {}
        self.views: dict[str, View] = {}
        self.charts: dict[str, dict[str, str]] = {}
        self.artifacts: dict[str, Artifact] = {}
        self.projects: set[tuple[str, str]] = set()
        self.deleted: set[str] = set()
        """Paths of runs that somebody deleted: their ids are not given again."""
        self.forbidden: set[str] = set()
        """Entities that the key may not write to."""
        self._numbers = itertools.count(1)

    def new_id(self, kind: str) -> str:
        """A node's id, opaque as the real ones."""
        return base64.b64encode(f"{kind}:{next(self._numbers)}".encode()).decode()

    def delete(self, path: str) -> None:
        """As when somebody deletes a run on its page."""
        del self.runs[path]
        self.deleted.add(path)

    def run(self, entity: str, project: str, name: str, *, create: bool = False) -> Run | None:
        """The run, made where there is none if `create`."""
        key = f"{entity}/{project}/{name}"
        if key not in self.runs and create:
            self.projects.add((entity, project))
            self.runs[key] = Run(entity, project, name, self.new_id("Run"))
        return self.runs.get(key)
