"""The names of this machine's processors, found without importing torch."""

from __future__ import annotations

import platform
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
GPU_FOLDERS = Path("/proc/driver/nvidia/gpus")
"""NVIDIA's driver has a folder here for each GPU."""


def cpu_name() -> str:
    """The CPU's model, or at least its architecture."""
    return _value_of("model name", CPU_INFO) or platform.machine()


def gpu_names() -> set[str]:
    """The models of the NVIDIA GPUs here, as torch names them; empty where there are none."""
    found = (_value_of("Model", path) for path in GPU_FOLDERS.glob("*/information"))
    return {name for name in found if name}


def _value_of(key: str, path: Path) -> str | None:
    """What stands behind the first `key:` of a file in /proc; None where there is nothing, or no such file."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        name, separator, value = line.partition(":")
        if separator and name.strip() == key and value.strip():
            return value.strip()
    return None
