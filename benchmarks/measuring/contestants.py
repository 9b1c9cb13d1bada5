"""Processes that stay, one for each way of doing the same thing, so that what is paid once a process is not measured.

They take turns: while one works, the others wait for their next call and use no CPU.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

Result = TypeVar("Result")


class Contestant:
    """A fresh process on a given number of CPU cores, which calls functions for us, one at a time."""

    def __init__(self, cores: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, context, initializer=stay_on, initargs=(cores,))

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """What a module's function gives there; its exceptions are raised here."""
        return self._pool.submit(function, *arguments).result()

    def close(self) -> None:
        self._pool.shutdown()


@contextmanager
def contestants(names: Sequence[str], cores: int) -> Iterator[dict[str, Contestant]]:
    """One for each name, all of them on the same cores; ended afterwards."""
    with ExitStack() as stack:
        found = {name: Contestant(cores) for name in names}
        for contestant in found.values():
            stack.callback(contestant.close)
        yield found


def stay_on(cores: int) -> None:
    """Use the first so many of this process's CPUs, in all threads and children to come, and fork children.

    A process that a user starts forks too; one that was spawned would spawn, and every child import all anew.
    """
    multiprocessing.set_start_method("fork", force=True)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
