"""The coordinator's actor, as workers call it."""

from __future__ import annotations

import faulthandler
import os
import socket
from collections.abc import Sequence
from typing import Any

from orchestrator.failures import Failure
from orchestrator.messages import Beat, Orders, WorkerFacts


class RayBoss:
    """The coordinator's actor as one worker sees it. Answers are waited for only where there is one."""

    def __init__(
        self, coordinator: Any, slot: int, *, lane: int, gpus: float = 0.0, peers: tuple[str, ...] = ()
    ) -> None:
        import ray

        self._ray, self._coordinator, self._who = ray, coordinator, (slot, os.getpid())
        facts = WorkerFacts(node_id(), socket.gethostname(), os.getpid(), _stderr_file(), lane, gpus, peers)
        faulthandler.enable()
        ray.get(coordinator.hello.remote(slot, facts))

    def pull(self) -> Orders:
        orders: Orders = self._ray.get(self._coordinator.pull.remote(*self._who))
        return orders

    def beat(self, beat: Beat) -> bool:
        return bool(self._ray.get(self._coordinator.beat.remote(*self._who, beat)))

    def acknowledge(self, ended: Sequence[tuple[str, str]]) -> None:
        self._coordinator.acknowledge.remote(*self._who, list(ended))

    def finished(self, failure: Failure | None) -> None:
        self._coordinator.finished.remote(*self._who, failure)

    def paused(self) -> None:
        self._coordinator.paused.remote(*self._who)

    def goodbye(self) -> None:
        self._ray.get(self._coordinator.goodbye.remote(*self._who))

    def report_trouble(self, message: str) -> None:
        self._ray.get(self._coordinator.report_trouble.remote(message))


def _stderr_file() -> str:
    """The file that this process's stderr goes to, if it is one."""
    try:
        target = os.readlink("/proc/self/fd/2")
    except OSError:
        return ""
    return target if os.path.isfile(target) else ""


def node_id() -> str:
    """The node that this process is on, as the cluster calls it."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


def tell_failure(coordinator: Any, slot: int, first_process: int, failure: Failure) -> None:
    """Tell that the pack in training failed in another process of a group than the first."""
    import ray

    ray.get(coordinator.finished.remote(slot, first_process, failure))
