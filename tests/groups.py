"""Several real processes that train together over gloo, and what came out of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.waiting import PATIENCE_SECONDS


def in_group(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(group, *arguments)` returns in each of `size` new processes, in their order.

    It and the arguments have to be picklable.
    """
    context, meeting = mp.get_context("spawn"), tempfile.TemporaryDirectory()
    pipes = [context.Pipe(duplex=False) for _ in range(size)]
    processes = [
        context.Process(target=_join, args=(rank, size, meeting.name, pipes[rank][1], function, arguments))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    try:
        for _, sender in pipes:
            sender.close()
        answers = [receiver.recv() if receiver.poll(PATIENCE_SECONDS) else "no answer" for receiver, _ in pipes]
    finally:
        for process in processes:
            process.join(5)
            process.kill()
        meeting.cleanup()
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers


def _join(rank: int, size: int, meeting: str, answer: Connection, function: Callable[..., Any], arguments: Any) -> None:
    from workers.group import join_group

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}/meeting", rank=rank, world_size=size)
    try:
        answer.send(function(join_group(), *arguments))
    except BaseException as error:
        answer.send(error)
        raise
    finally:
        dist.destroy_process_group()


def train_together(
    group: Any, runs: Sequence[Any], folder: Path, *, pause_at: int | None = None, saved: dict[str, bytes] | None = None
) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """Rows of a pack without timing, and the checkpoints of where it paused (of the first process)."""
    from workers.checkpoint import load_checkpoint
    from workers.placement import Placement
    from workers.schema import TIMING_COLUMNS
    from workers.train import train_pack

    asked = 0

    def pause() -> bool:
        nonlocal asked
        asked += 1
        return pause_at is not None and asked >= pause_at

    resume = {run.run_id: load_checkpoint(saved[run.run_id], run) for run in runs} if saved else {}
    rows: list[dict[str, Any]] = []
    training = train_pack(
        runs, folder, torch.device("cpu"), resume=resume, pause=pause, placement=Placement(group=group)
    )
    for progress in training:
        rows += [{key: value for key, value in row.items() if key not in TIMING_COLUMNS} for row in progress.rows]
        if group.told(pause_at is not None and asked >= pause_at):
            checkpoints = progress.checkpoints() if group.rank == 0 else {}
            training.close()  # type: ignore[attr-defined]
            return rows, checkpoints
    return rows, {}
