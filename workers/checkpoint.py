"""Checkpoints: all that a run needs to go on from an optimiser step as if it had never stopped.

One belongs to a run, not to a pack, since packs are placement. There is no random state in it: all randomness is keyed
(see randomness.py). Its bytes are a line that names format and version, torch's own archive, and a hash of both, since
torch reads an archive with flipped bits without a word.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import xxhash
from torch import Tensor

from search_spaces.runs import Run

Engine = Literal["sequential", "fused"]
"""What trains the networks of a pack (see stack.py)."""
VERSION = 3
"""Raise it when the fields of a checkpoint, or what they mean, change."""
HEADER = b"bo-sweep checkpoint %d\n"
SEAL_BYTES = 16


class CheckpointError(ValueError):
    """Bytes that are no checkpoint of this run in this version; the run has to start anew."""


@dataclass(frozen=True)
class Spent:
    """Seconds that a run has taken so far."""

    wall: float = 0.0
    """Of the packs that it was in."""
    training: float = 0.0
    """Of these, without evaluations and pauses."""
    share: float = 0.0
    """The run's own part: the wall time of each pack over the runs in it."""

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.wall + other.wall, self.training + other.training, self.share + other.share)


@dataclass(frozen=True)
class Checkpoint:
    """A run after `step` optimiser steps. Tensors of a loaded one are on the CPU."""

    run_id: str
    step: int
    seen: int
    """Samples trained on so far."""
    evaluations: int
    """Evaluations made so far, which is the index of the next one."""
    loss_sum: float
    loss_steps: int
    """Training loss of the steps since the last evaluation: its sum (exact, a float32) and their count."""
    watched: list[tuple[float, float]]
    """What the early stop looks at (see early_stop.py)."""
    spent: Spent
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    """State of the loss scaling of fp16; empty in other precisions."""
    engine: Engine
    """What trained it so far, and so goes on with it."""


def dump_checkpoint(checkpoint: Checkpoint) -> bytes:
    """The bytes of a checkpoint; tensors come over from the device one at a time."""
    buffer = io.BytesIO()
    buffer.write(HEADER % VERSION)
    torch.save(vars(checkpoint) | {"spent": vars(checkpoint.spent)}, buffer)
    buffer.write(_seal(buffer.getbuffer()))
    return buffer.getvalue()


def load_checkpoint(content: bytes, run: Run) -> Checkpoint:
    """The checkpoint of `run`, on the CPU.

    Raises:
        CheckpointError: damaged, of another version or of another run. Nothing is unpickled before the hash fits.
    """
    header = re.match(HEADER.replace(b"%d", rb"(\d{1,9})"), content)
    if header is None:
        raise CheckpointError(f"run {run.run_id}: these {len(content)} bytes are no checkpoint: start the run anew")
    if int(header[1]) != VERSION:
        raise CheckpointError(
            f"run {run.run_id}: a checkpoint of version {int(header[1])}, only {VERSION} is read: start the run anew, "
            "or go on with the release that wrote it"
        )
    sealed, seal = memoryview(content)[:-SEAL_BYTES], content[-SEAL_BYTES:]
    if _seal(sealed) != seal:
        raise CheckpointError(f"run {run.run_id}: its checkpoint is damaged or cut short: start the run anew")
    try:
        state = torch.load(io.BytesIO(sealed[header.end() :]), map_location="cpu", weights_only=True)
        checkpoint = Checkpoint(**state | {"spent": Spent(**state["spent"])})
    except (pickle.UnpicklingError, RuntimeError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"run {run.run_id}: torch {torch.__version__} cannot read its checkpoint: start the run anew ({error})"
        ) from error
    if checkpoint.run_id != run.run_id:
        raise CheckpointError(f"run {run.run_id}: this is a checkpoint of run {checkpoint.run_id}: start the run anew")
    return checkpoint


def group_by_progress(
    runs: Sequence[Run], checkpoints: Mapping[str, Checkpoint]
) -> list[tuple[tuple[Run, ...], dict[str, Checkpoint]]]:
    """The parts of a pack that can go on together, each with its own checkpoints (none for runs that only start).

    Those of a part are at one step, and were trained by one engine. Runs keep their order, and parts come in the order
    of their first runs. Checkpoints of other runs are left out.
    """
    parts: dict[tuple[int, Engine] | None, list[Run]] = {}
    for run in runs:
        reached = checkpoints.get(run.run_id)
        parts.setdefault((reached.step, reached.engine) if reached else None, []).append(run)
    return [
        (tuple(part), {run.run_id: checkpoints[run.run_id] for run in part if run.run_id in checkpoints})
        for part in parts.values()
    ]


def _seal(content: memoryview) -> bytes:
    return xxhash.xxh3_128_digest(content)
