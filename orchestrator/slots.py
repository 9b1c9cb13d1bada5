"""The hardware, how many workers of a shape fit on it side by side, and what memory each of their processes has."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

from search_spaces.memory import WORKER_BASE_BYTES
from search_spaces.shapes import MEMORY_SHARE, Shape

CGROUP = Path("/sys/fs/cgroup")
"""Where the limits of this container stand, if it is one."""


@dataclass(frozen=True)
class Hardware:
    """What there is to run on. `memory_bytes` is the host memory for each CPU."""

    cpus: float
    gpus: float
    memory_bytes_per_cpu: float


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


def count_slots(shape: Shape, hardware: Hardware) -> int:
    """Workers of a shape that run side by side."""
    by_cpu = hardware.cpus / shape.total_cpus
    by_gpu = hardware.gpus / shape.total_gpus if shape.gpus else by_cpu
    return int(min(by_cpu, by_gpu) + 1e-9)


def process_bytes(shape: Shape, hardware: Hardware, slots: int, gpu_memory_gb: float) -> float:
    """Bytes that a process may fill with models: its share of a GPU, or of the host's memory."""
    if shape.gpus:
        return MEMORY_SHARE * min(1.0, shape.gpus) * gpu_memory_gb * 1e9
    return 0.8 * hardware.memory_bytes_per_cpu * hardware.cpus / (slots * shape.processes) - WORKER_BASE_BYTES
