"""Reading W&B's offline files without W&B's own process: records in the log format of LevelDB, each a protobuf."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK_BYTES, HEADER_BYTES, FILE_HEADER = 32768, 7, b":W&B"
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class OfflineRun:
    """What one offline W&B run holds. `steps` are W&B's own."""

    folder: Path
    id: str = ""
    name: str = ""
    group: str = ""
    job_type: str = ""
    project: str = ""
    tags: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    steps: list[int] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    step_metrics: dict[str, str] = field(default_factory=dict)
    exit_code: int | None = None


def records(path: Path) -> Iterator[bytes]:
    """The records of a file; each piece is checked against its checksum."""
    content = path.read_bytes()
    assert content[:4] == FILE_HEADER
    at, parts = HEADER_BYTES, b""
    while at < len(content):
        left = BLOCK_BYTES - at % BLOCK_BYTES
        if left < HEADER_BYTES:  # padding
            at += left
            continue
        checksum, length, kind = struct.unpack("<IHB", content[at : at + HEADER_BYTES])
        piece = content[at + HEADER_BYTES : at + HEADER_BYTES + length]
        assert len(piece) == length, "cut short"
        assert checksum == zlib.crc32(piece, zlib.crc32(bytes([kind]))), "damaged"
        parts += piece
        at += HEADER_BYTES + length
        if kind in (FULL, LAST):
            yield parts
            parts = b""
    assert not parts, "cut short"


def read_offline(folder: Path) -> OfflineRun:
    """One offline W&B run."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined, unused-ignore]

    (path,) = folder.glob("*.wandb")
    found = OfflineRun(folder)
    for content in records(path):
        record = Record.FromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            found.id, found.name, found.group = run.run_id, run.display_name, run.run_group
            found.job_type, found.project, found.tags = run.job_type, run.project, tuple(run.tags)
            found.config |= _values(run.config.update)
        elif kind == "config":
            found.config |= _values(record.config.update)
        elif kind == "history":
            row = _values(record.history.item)
            found.steps.append(row.pop("_step", record.history.step.num))
            found.rows.append({key: value for key, value in row.items() if not key.startswith("_")})
        elif kind == "summary":
            found.summary |= _values(record.summary.update)
        elif kind == "metric":
            found.step_metrics[record.metric.glob_name or record.metric.name] = record.metric.step_metric
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def read_all_offline(folder: Path) -> list[OfflineRun]:
    """All offline W&B runs in a folder."""
    return [read_offline(path) for path in sorted(folder.glob("offline-run-*"))]


def _values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
