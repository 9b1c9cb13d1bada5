"""The log of a job's driver, followed over lost connections: nothing twice, nothing left out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

from orchestrator.ray_jobs.connection import RayCluster
from orchestrator.ray_jobs.jobs import LOOK_SECONDS, PATIENCE_SECONDS, job_status
from orchestrator.ray_jobs.trouble import RayJobError, UnknownJobError

QUIET_SECONDS = 30.0
"""Of silence, after which the cluster is asked whether the job still runs."""
AGAIN_SECONDS = 2.0
"""Between two tries to connect."""


def job_log(cluster: RayCluster, job_id: str) -> str:
    """All that the job has written so far. Raises UnknownJobError, RayJobError."""
    return str(cluster.ask("get_job_logs", job_id))


def last_line(cluster: RayCluster, job_id: str) -> str | None:
    """The last line that says something, for a status. Raises UnknownJobError, RayJobError."""
    lines = [line.strip() for line in job_log(cluster, job_id).splitlines() if line.strip()]
    return lines[-1] if lines else None


def follow_logs(cluster: RayCluster, job_id: str, patience: float = PATIENCE_SECONDS) -> Iterator[str]:
    """Yield pieces of the log as they are written, from its first line until the job has ended.

    A connection that was lost is made anew. Every one begins with the first line, so what was given before is counted
    and skipped. Between two of them the log is read as a whole: a proxy may let requests through, but no websocket.

    Args:
        patience: seconds for which the cluster may be out of reach.

    Raises:
        UnknownJobError: the cluster does not know the job (any more).
        RayJobError: the cluster was out of reach for too long; the job may go on.
    """
    given, answered, ended, cut = 0, time.monotonic(), False, False
    while not ended:
        try:
            ended = job_status(cluster, job_id).is_over
            answered, seen = time.monotonic(), 0
            pieces = [job_log(cluster, job_id)] if ended or cut else _tail(cluster, job_id)
            cut = False
            for piece in pieces:
                answered, seen = time.monotonic(), seen + len(piece)
                if seen > given:
                    yield piece[len(piece) - (seen - given) :]
                    given = seen
            if not ended:
                time.sleep(LOOK_SECONDS)
        except UnknownJobError:
            raise
        except RayJobError:
            ended, cut = False, True
            if time.monotonic() - answered > patience:
                raise
            time.sleep(AGAIN_SECONDS)


def _tail(cluster: RayCluster, job_id: str) -> Iterator[str]:
    """The log from its first line on, until the connection ends, by the job's end or otherwise. Raises RayJobError."""
    import aiohttp

    with asyncio.Runner() as runner:
        stream = cluster.jobs.tail_job_logs(job_id)
        try:
            while True:
                piece = runner.run(_next(stream, cluster, job_id))
                if piece is None:
                    return
                yield piece
        except (RuntimeError, aiohttp.ClientError, OSError) as error:
            if isinstance(error, RayJobError):
                raise
            raise RayJobError(f"the log of {job_id} was cut off: {error}") from None
        finally:
            with suppress(Exception):
                runner.run(stream.aclose())


async def _next(stream: AsyncIterator[str], cluster: RayCluster, job_id: str) -> str | None:
    """The next piece, or None at the end; also where a connection died silently and the job has ended meanwhile."""
    waiting: asyncio.Future[Any] = asyncio.ensure_future(anext(stream, None))  # type: ignore[arg-type]
    try:
        while True:
            done, _ = await asyncio.wait({waiting}, timeout=QUIET_SECONDS)
            if done:
                return waiting.result()  # type: ignore[no-any-return]
            if (await asyncio.to_thread(job_status, cluster, job_id)).is_over:
                return None
    finally:
        waiting.cancel()
