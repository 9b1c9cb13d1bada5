"""Processes that stay, one for each way of doing the same thing, so that what is paid once a process is not measured.

They take turns: while one works, the others wait for their next call and use no CPU. Unless they are asked to work side
by side.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
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
        return self.start(function, *arguments).result()

    def start(self, function: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """The same, without waiting for it."""
        return self._pool.submit(function, *arguments)

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


def side_by_side(found: Iterable[Contestant], function: Callable[..., Result], *arguments: Any) -> list[Result]:
    """What the function gives in each of them, all at once."""
    return [future.result() for future in [each.start(function, *arguments) for each in found]]


def stay_on(cores: int) -> None:
    """Use the first so many of this process's CPUs, in all threads and children to come, and fork children.

    A process that a user starts forks too; one that was spawned would spawn, and every child import all anew.
    """
    multiprocessing.set_start_method("fork", force=True)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
