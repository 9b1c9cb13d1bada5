"""Work spread over processes: results in order, constant memory, no process left behind, errors told."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import TypeVar

from workers.preparation.errors import HostError

T = TypeVar("T")
R = TypeVar("R")
WAITING_A_WORKER = 2


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def in_order(function: Callable[[T], R], tasks: Iterable[T], workers: int) -> Iterator[R]:
    """`map(function, tasks)` over `workers` processes; tasks are taken as results are used up, two a worker ahead.

    One worker means this process. The processes are new ones, not forks; Ctrl-C is this process's to handle, and they
    end with it, however it ends. Raises HostError if one is killed.
    """
    if workers <= 1:
        yield from map(function, tasks)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin_worker)
    try:
        waiting: deque[Future[R]] = deque()
        for task in tasks:
            with _no_interrupt_for_new_processes():
                waiting.append(pool.submit(function, task))
            if len(waiting) >= workers * (1 + WAITING_A_WORKER):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise HostError(
            "a process that read images was killed, most likely for lack of memory. Give the same command again with "
            f"fewer processes than --workers {workers}"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _no_interrupt_for_new_processes() -> Iterator[None]:
    """Ctrl-C reaches every process of a terminal. It waits for the end of the block here; who is born inside never
    sees it."""
    came: list[int] = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        with _noted(came):
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number in came[:1]:
            signal.raise_signal(number)


@contextmanager
def _noted(came: list[int]) -> Iterator[None]:
    """Keep Ctrl-C and SIGTERM for later: what this thread blocks another one takes, and Python handles it in this one
    all the same, which would leave a process half started."""
    if threading.current_thread() is not threading.main_thread():  # Python handles no signals there
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, lambda number, _: came.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _begin_worker() -> None:
    import cv2

    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """The pool's queues stay open on both sides in a worker, so it would not notice that its parent was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
