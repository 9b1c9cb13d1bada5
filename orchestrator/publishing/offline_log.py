"""What a file that W&B wrote offline holds. W&B's client says that a run is finished some milliseconds before its file
is, and only logs where it cannot write; so what was written is read again before it counts.

Records stand in the log format of LevelDB, in blocks with a header for each piece; each record is a protobuf.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

_BLOCK_BYTES, _HEADER, _FILE_HEADER_BYTES = 32768, struct.Struct("<IHB"), 7
_FULL, _LAST = 1, 4
PATIENCE_SECONDS = 10.0
_LOOK_SECONDS = 0.002


def rows_once_written(path: Path, seconds: float = PATIENCE_SECONDS) -> int | None:
    """`rows_in`, as soon as the file is whole; None where it is not after so long."""
    deadline = time.monotonic() + seconds
    while (rows := rows_in(path)) is None and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    return rows


def rows_in(path: Path) -> int | None:
    """How many rows a finished W&B run has in its file; None where the file is cut short, damaged, or not finished."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined, unused-ignore]

    rows, finished = 0, False
    try:
        for content in _records(path.read_bytes()):
            kind = Record.FromString(content).WhichOneof("record_type")
            rows += kind == "history"
            finished |= kind == "exit"
    except (ValueError, FileNotFoundError, DecodeError):
        return None
    return rows if finished else None


def _records(content: bytes) -> Iterator[bytes]:
    at, record = _FILE_HEADER_BYTES, b""
    while at < len(content):
        left = _BLOCK_BYTES - at % _BLOCK_BYTES
        if left < _HEADER.size:  # padding
            at += left
            continue
        if len(content) - at < _HEADER.size:
            raise ValueError("cut short")
        checksum, length, kind = _HEADER.unpack_from(content, at)
        piece = content[at + _HEADER.size : at + _HEADER.size + length]
        if len(piece) != length or checksum != zlib.crc32(piece, zlib.crc32(bytes([kind]))):
            raise ValueError("cut short or damaged")
        record += piece
        at += _HEADER.size + length
        if kind in (_FULL, _LAST):
            yield record
            record = b""
    if record:
        raise ValueError("cut short")
