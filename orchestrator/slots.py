"""Worker slots: how many runs' processes fit side by side, and what memory each may use."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

from search_spaces.memory import WORKER_BASE_BYTES
from search_spaces.spec import Resources

CGROUP = Path("/sys/fs/cgroup")
"""Where the limits of this container stand, if it is one."""


@dataclass(frozen=True)
class Hardware:
    """What there is to run on. `memory_bytes` is the host memory for each CPU."""

    cpus: float
    gpus: float
    memory_bytes_per_cpu: float


class ResourceError(ValueError):
    """The hardware cannot hold even one worker of the shape that is asked for."""


def local_hardware() -> Hardware:
    """CPUs and memory that this process may use (affinity and container limits counted in), and its NVIDIA GPUs.

    torch is not imported for it.
    """
    quota, period = _cgroup_limit("cpu.max", 2)
    allowed = quota / period if quota and period else float("inf")
    cpus = max(1, int(min(len(os.sched_getaffinity(0)), allowed)))
    gpus = sum(name.startswith("nvidia") and name[6:].isdigit() for name in os.listdir("/dev"))
    (limit,) = _cgroup_limit("memory.max", 1)
    memory = min(psutil.virtual_memory().total, limit or float("inf"))
    return Hardware(cpus, gpus, memory / cpus)


def _cgroup_limit(name: str, fields: int) -> list[int | None]:
    """Numbers in a control file of cgroup v2; None where there is no limit, or no such file."""
    try:
        words = (CGROUP / name).read_text().split()[:fields]
    except OSError:
        words = []
    words += ["max"] * (fields - len(words))
    return [int(word) if word.isdigit() else None for word in words]


def count_slots(resources: Resources, hardware: Hardware, wanted: int | None = None) -> int:
    """Workers of shape `resources` that run side by side, at most `wanted`.

    Raises:
        ResourceError: not even one fits; the message says what is there.
    """
    by_cpu = hardware.cpus / resources.cpus_per_worker
    by_gpu = hardware.gpus / resources.gpus_per_worker if resources.gpus_per_worker else by_cpu
    slots = int(min(by_cpu, by_gpu) + 1e-9)
    if slots < 1:
        raise ResourceError(
            f"one worker asks for {resources.cpus_per_worker:g} CPUs and {resources.gpus_per_worker:g} GPUs; there are "
            f"{hardware.cpus:g} CPUs and {hardware.gpus:g} GPUs. Use a larger machine or --address, or change the "
            "shape: --set resources.gpus_per_worker=0 --set resources.cpus_per_worker=1"
        )
    return min(slots, wanted) if wanted else slots


def worker_memory_bytes(resources: Resources, hardware: Hardware, slots: int) -> float:
    """Bytes that one worker may fill with models: its share of a GPU, or of the host's memory."""
    if resources.gpus_per_worker:
        return 0.9 * min(1.0, resources.gpus_per_worker) * resources.gpu_memory_gb * 1e9
    return 0.8 * hardware.memory_bytes_per_cpu * hardware.cpus / slots - WORKER_BASE_BYTES


def any_hardware(resources: Resources) -> Hardware:
    """This machine, or, where it cannot hold one worker (planning a GPU sweep on a laptop), one machine that can."""
    here = local_hardware()
    if here.cpus >= resources.cpus_per_worker and here.gpus >= resources.gpus_per_worker:
        return here
    cpus = max(here.cpus, resources.cpus_per_worker)
    return Hardware(cpus, max(here.gpus, resources.gpus_per_worker), here.memory_bytes_per_cpu)
