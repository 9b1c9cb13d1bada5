"""The faults. Each strikes a running launch once, and knows how the launch may end."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psutil

from tests.chaos.places import Nodes, TinyDisk
from tests.chaos.sweep import WORKER, Launch
from tests.object_store import Store

DONE, ABORTED, STOPPED, INFRASTRUCTURE = 0, 1, 3, 4
"""Exit codes of a launch; click aborts where Ctrl-C comes when all is trained and only the drawing is left."""
IMPORT_SECONDS = 3.0
"""Before that it is Python that answers to Ctrl-C, with a trace of its imports."""
KILLED = -signal.SIGKILL
WORKER_SECONDS = 60.0
"""How long a worker to kill is waited for."""

Strike = Callable[[Launch, random.Random], str]
"""Do it; returns what was done, '' where there was nothing to strike at."""


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        strike: does it.
        codes: exit codes that a launch may have which it hit.
        bound_seconds: within which the launch must end after it, by itself.
        must_say: what the launch's last words must contain where it ends with INFRASTRUCTURE.
        at_start: whether it hits from the very start, and lasts for as long as the launch.
    """

    strike: Strike
    codes: tuple[int, ...] = (DONE,)
    bound_seconds: float = 240.0
    must_say: str = ""
    at_start: bool = False


def kill_worker(launch: Launch, draw: random.Random) -> str:
    """SIGKILL one worker."""
    if not launch.wait_until(lambda: bool(launch.children(WORKER)), WORKER_SECONDS):
        return ""
    return _kill(launch.children(WORKER), draw)


def kill_driver(launch: Launch, draw: random.Random) -> str:
    """SIGKILL the launch itself."""
    launch.process.kill()
    return "killed"


def kill_gcs(launch: Launch, draw: random.Random) -> str:
    """SIGKILL the head of the launch's own cluster."""
    if not launch.wait_until(lambda: bool(launch.children("gcs_server")), WORKER_SECONDS):
        return ""
    return _kill(launch.children("gcs_server"), draw)


def _kill(found: list[psutil.Process], draw: random.Random) -> str:
    if not found:
        return ""
    with suppress(psutil.NoSuchProcess):
        victim = draw.choice(sorted(found, key=lambda process: process.pid))
        victim.kill()
        return f"killed process {victim.pid}"
    return ""


def interrupt(launch: Launch, draw: random.Random) -> str:
    """One Ctrl-C: on a terminal it reaches the whole group."""
    _wait_for_imports(launch)
    os.killpg(launch.process.pid, signal.SIGINT)
    return "interrupted"


def interrupt_twice(launch: Launch, draw: random.Random) -> str:
    """Two, up to three seconds apart."""
    _wait_for_imports(launch)
    os.killpg(launch.process.pid, signal.SIGINT)
    launch.wait(draw.uniform(0.1, 3))
    if launch.code is None:
        os.killpg(launch.process.pid, signal.SIGINT)
    return "interrupted twice"


def _wait_for_imports(launch: Launch) -> None:
    launch.wait(max(0.0, launch.started + IMPORT_SECONDS - time.monotonic()))


def lose_node(nodes: Nodes) -> Strike:
    """Take a node away, by SIGKILL of its raylet or in good order, and maybe add another one before or after."""

    def strike(launch: Launch, draw: random.Random) -> str:
        kill, add_first = draw.random() < 0.6, draw.random() < 0.3
        if add_first:
            nodes.add()
        nodes.remove(draw.randrange(2), kill=kill)
        if not add_first:
            launch.wait(draw.uniform(0, 8))
            nodes.add()
        order = "added a node, then " if add_first else ""
        return order + ("killed a raylet" if kill else "removed a node") + ("" if add_first else ", then added one")

    return strike


def kill_cluster_head(nodes: Nodes) -> Strike:
    """SIGKILL the GCS of a cluster."""

    def strike(launch: Launch, draw: random.Random) -> str:
        nodes.kill_head()
        return "killed the cluster's head"

    return strike


def fill_disk(disk: TinyDisk, *, for_good: bool) -> Strike:
    """Fill the disk, for some seconds or for as long as the launch lasts."""

    def strike(launch: Launch, draw: random.Random) -> str:
        disk.fill()
        if for_good:
            return "filled the disk"
        launch.wait(draw.uniform(1, 15))
        disk.free()
        return "filled the disk for a while"

    return strike


def forbid_writing(disk: TinyDisk) -> Strike:
    """Take the permission to write away for some seconds."""

    def strike(launch: Launch, draw: random.Random) -> str:
        disk.set_writable(False)
        launch.wait(draw.uniform(1, 15))
        disk.set_writable(True)
        return "made the disk read-only for a while"

    return strike


def slow_puts(store: Store) -> Strike:
    """Let every write take up to a second."""

    def strike(launch: Launch, draw: random.Random) -> str:
        seconds = draw.uniform(0.1, 1)
        store.set_faults(delay_seconds=seconds, seed=draw.randrange(1000))
        return f"writes take {seconds:.1f} s more"

    return strike


def failing_puts(store: Store) -> Strike:
    """Refuse three writes in ten; of some more, lose the answer."""

    def strike(launch: Launch, draw: random.Random) -> str:
        dropping = draw.choice((0.0, 0.1))
        store.set_faults(failing_share=0.3, dropping_share=dropping, seed=draw.randrange(1000))
        return f"30 % of writes are refused, the answers to {dropping:.0%} are lost"

    return strike
