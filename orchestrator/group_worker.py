"""A worker of several processes, on one node or several.

All of them are in the placement group of one Tune trial, so the cluster gives and takes them together. The trial itself
is the first process: it pulls packs, keeps the ledger and beats, like any worker (worker.py). The others are tasks that
train along with it and do as it says. When one of them dies or raises, the whole worker ends, and Tune starts another.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psutil

from orchestrator.boss import RayBoss, node_id, tell_failure
from orchestrator.failures import failure_of, is_lost_peer
from orchestrator.worker import WorkerSettings, run_worker
from search_spaces.shapes import Shape

COLLECTIVE_TIMEOUT = timedelta(minutes=30)
GRACE_SECONDS = 15.0
"""How long the first process may take to notice that another one is gone, before it is ended."""
LEAVE_SECONDS = 60.0


@dataclass(frozen=True)
class Meeting:
    """Where the processes of a group meet: the address of the first, and how many they are."""

    address: str
    port: int
    size: int
    backend: str


def run_group(settings: WorkerSettings, coordinator: Any, slot: int, lane: int, shape: Shape) -> None:
    """Be the first of several processes, in the placement group of the others.

    Raises:
        BrokenGroupError: a pack failed; the coordinator knows. RuntimeError: another process is gone.
    """
    import ray

    meeting = _arrange(shape)
    others = [
        ray.remote(max_calls=1)(_follow)  # a process of its own
        .options(**_place(rank, shape))
        .remote(rank, meeting, settings, coordinator, slot, os.getpid())
        for rank in range(1, shape.processes)
    ]
    boss = None
    try:
        with _ended_without(others), _joined(0, meeting) as group:
            nodes = group.everyones(node_id())
            boss = RayBoss(coordinator, slot, lane=lane, gpus=shape.total_gpus, peers=tuple(nodes[1:]))
            run_worker(settings, boss, group)
            ray.get(others, timeout=LEAVE_SECONDS)
    except Exception as error:
        if boss is None:  # the coordinator has not heard of this worker yet
            ray.get(coordinator.worker_failed.remote(f"{socket.gethostname()}: {error}"))
        raise


def bundles(shape: Shape) -> list[dict[str, float]]:
    """What a trial of this shape reserves: a bundle for each process."""
    return [{"CPU": shape.cpus, "GPU": shape.gpus} for _ in range(shape.processes)]


def follow(settings: WorkerSettings, group: Any) -> None:
    """Train along with the first process until it says that there is nothing more."""
    train_pack, device, placement = settings.load_trainer(), settings.device(), settings.placement(group)
    while (pack := group.told()) is not None:
        runs, resume = pack
        training = train_pack(runs, settings.data_folder, device, resume=resume, placement=placement)
        for _ in training:
            if group.told():
                training.close()
                break


def _follow(
    rank: int, meeting: Meeting, settings: WorkerSettings, coordinator: Any, slot: int, first_process: int
) -> None:
    """One of the other processes."""
    try:
        with _joined(rank, meeting) as group:
            group.everyones(node_id())
            follow(settings, group)
    except Exception as error:
        if not is_lost_peer(error):
            tell_failure(coordinator, slot, first_process, failure_of(error))
        raise


def _arrange(shape: Shape) -> Meeting:
    import ray

    address = ray.util.get_node_ip_address()
    with socket.socket() as probe:
        probe.bind((address, 0))
        port = probe.getsockname()[1]
    return Meeting(address, port, shape.processes, "nccl" if shape.gpus else "gloo")


def _place(rank: int, shape: Shape) -> dict[str, Any]:
    """Options of the task that is process `rank`: its bundle in this trial's placement group."""
    from ray.util import get_current_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group = get_current_placement_group()
    assert group is not None, "Tune runs trials in placement groups"
    return {
        "num_cpus": shape.cpus,
        "num_gpus": shape.gpus,
        "max_retries": 0,
        "scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
    }


@contextmanager
def _joined(rank: int, meeting: Meeting) -> Iterator[Any]:
    """The group that all processes join at the meeting, for as long as the block runs."""
    import ray
    import torch
    import torch.distributed as dist

    from workers.group import join_group

    network = _interface_of(ray.util.get_node_ip_address())
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):  # else gloo asks what the host name resolves to
        if network:
            os.environ.setdefault(variable, network)
    if meeting.backend == "nccl":
        torch.cuda.set_device(0)  # Ray shows each process its own GPU only
    where = f"tcp://{meeting.address}:{meeting.port}"
    dist.init_process_group(
        meeting.backend, init_method=where, rank=rank, world_size=meeting.size, timeout=COLLECTIVE_TIMEOUT
    )
    yield join_group()
    dist.destroy_process_group()  # not after an error: it might wait for processes that are gone


def _interface_of(address: str) -> str | None:
    """The network interface of this machine that has an address."""
    for name, entries in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in entries):
            return name
    return None


@contextmanager
def _ended_without(others: Sequence[Any]) -> Iterator[None]:
    """End this process if another one fails meanwhile and this one does not notice: NCCL may wait for it for long."""
    over = threading.Event()

    def watch() -> None:
        import ray

        left = list(others)
        while left and not over.is_set():
            ended, left = ray.wait(left, num_returns=1, timeout=1.0)
            for each in ended:
                try:
                    ray.get(each)
                except ray.exceptions.RayError as error:
                    time.sleep(GRACE_SECONDS)
                    if not over.is_set():
                        print(f"another process of this worker is gone: {error}", file=sys.stderr, flush=True)
                        os._exit(1)

    threading.Thread(target=watch, name="others", daemon=True).start()
    try:
        yield
    finally:
        over.set()
