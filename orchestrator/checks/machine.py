"""Checks of the machine: CPUs, memory, GPUs, limits."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from orchestrator.checks.finding import Finding, failed, ok, skipped, warning
from orchestrator.slots import local_hardware
from search_spaces.memory import WORKER_BASE_BYTES

if TYPE_CHECKING:
    import torch

SHARED_MEMORY = Path("/dev/shm")
SHARED_MEMORY_BYTES = 1e9
OPEN_FILES = 4096
"""Ray opens hundreds of files and sockets a worker, and raises the soft limit to the hard one itself."""
SIDE = 64
"""Of the matrices of the tiny product."""


def check_cpus_and_memory() -> Finding:
    """What this process may use, affinity and container limits counted in, holds a worker on each CPU."""
    hardware, machine = local_hardware(), psutil.virtual_memory()
    memory = hardware.memory_bytes_per_cpu * hardware.cpus
    found = (
        f"{hardware.cpus:g} of {os.cpu_count()} CPUs, {memory / 1e9:.1f} of {machine.total / 1e9:.1f} GB of memory, "
        f"{min(machine.available, memory) / 1e9:.1f} GB available"
    )
    if hardware.memory_bytes_per_cpu < 1.5 * WORKER_BASE_BYTES:
        workers = max(1, int(memory / (1.5 * WORKER_BASE_BYTES)))
        return warning(
            f"{found}: {hardware.memory_bytes_per_cpu / 1e9:.1f} GB a CPU, and an idle worker takes "
            f"{WORKER_BASE_BYTES / 1e9:.1f} GB",
            f"bo-sweep launch SPACE --workers {workers}, or give the container more memory",
        )
    return ok(found)


def check_gpus() -> Finding:
    """torch sees the GPUs that the machine has, and computes a product and its gradient on each device right."""
    import torch

    present, built_for = local_hardware().gpus, torch.version.cuda
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = [torch.device("cpu"), *(torch.device("cuda", number) for number in range(seen))]
    wrong = [str(device) for device in devices if not _computes(device)]
    if wrong:
        return failed(
            f"a matrix product or its gradient comes out wrong on {', '.join(wrong)}",
            "nvidia-smi tells about errors of a GPU; leave it out with CUDA_VISIBLE_DEVICES, or reinstall torch",
        )
    if present and not built_for:
        return failed(
            f"torch {torch.__version__} was built without CUDA, but this machine has {present:g} NVIDIA GPUs",
            "pip install torch torchvision (the default build has CUDA), or make install",
        )
    if present and not seen:
        return _unseen(built_for or "")
    if not seen:
        return ok(f"no GPU; torch {torch.__version__} computes right on the CPU")
    names = [f"{properties.name} ({properties.total_memory / 2**30:.0f} GiB)" for properties in _properties(seen)]
    found = f"{', '.join(names)}; torch {torch.__version__} with CUDA {built_for}, driver {_driver() or 'unknown'}"
    if seen < present:
        return warning(
            f"{found}; {present - seen:g} more GPUs are not seen",
            "unset CUDA_VISIBLE_DEVICES, or look at nvidia-smi if it is not set",
        )
    return ok(found)


def _computes(device: torch.device) -> bool:
    """Whether the sum of a product of ones, and its gradient, are exactly what they have to be."""
    import torch

    ones = torch.ones(SIDE, SIDE, device=device, requires_grad=True)
    total = (ones @ torch.ones(SIDE, SIDE, device=device)).sum()
    total.backward()  # type: ignore[no-untyped-call]
    assert ones.grad is not None
    return total.item() == SIDE**3 and bool((ones.grad == SIDE).all())


def _unseen(built_for: str) -> Finding:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return failed(
            f"torch sees no GPU although /dev/nvidia* exist: CUDA_VISIBLE_DEVICES is {visible!r}",
            "unset CUDA_VISIBLE_DEVICES, or name the GPUs to use, e.g. CUDA_VISIBLE_DEVICES=0,1",
        )
    return failed(
        f"torch was built for CUDA {built_for} but sees no device although /dev/nvidia* exist; the driver is "
        f"{_driver() or 'not loaded'}",
        f"update the driver to one for CUDA {built_for} (nvidia-smi shows what it supports), or install a torch for "
        "an older CUDA; in a container, start it with --gpus all",
    )


def _driver() -> str:
    """Version of the NVIDIA driver that the kernel has loaded; '' where there is none."""
    try:
        first = Path("/proc/driver/nvidia/version").read_text().splitlines()[0].split()
    except OSError:
        return ""
    return next((word for word in first if word[:1].isdigit() and "." in word), "")


def _properties(count: int) -> list[torch.cuda._CudaDeviceProperties]:
    import torch

    return [torch.cuda.get_device_properties(number) for number in range(count)]


def check_shared_memory() -> Finding:
    """/dev/shm is large enough for Ray's object store; containers have 64 MB of it by default."""
    if not SHARED_MEMORY.is_dir():
        return skipped(f"there is no {SHARED_MEMORY}", "Ray uses its temporary folder instead; nothing to do")
    size = shutil.disk_usage(SHARED_MEMORY).total
    found = f"{SHARED_MEMORY} has {size / 1e9:.2f} GB"
    if local_hardware().gpus and size < SHARED_MEMORY_BYTES:
        return warning(
            f"{found}, less than the 1 GB that a machine with GPUs should have",
            "docker run --shm-size=2g; in Kubernetes an emptyDir with medium: Memory mounted there",
        )
    return ok(found)


def check_open_files() -> Finding:
    """Ray may open enough files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = float("inf") if hard == resource.RLIM_INFINITY else hard
    if highest < OPEN_FILES:
        return warning(
            f"this process may open {hard} files at most; Ray wants {OPEN_FILES} or more",
            "docker run --ulimit nofile=65536:65536, or raise nofile in /etc/security/limits.conf",
        )
    return ok(f"{soft} open files, {highest:g} at most")
