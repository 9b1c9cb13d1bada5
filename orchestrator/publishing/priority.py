"""Publishing takes only what training leaves over: the lowest priority, inherited by all processes started here."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

NICE = 19
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_IDLE_CLASS = 3 << 13
"""The idle class of the Linux I/O scheduler: served when no one else asks."""


def yield_to_training() -> None:
    """Run when nothing else wants the processor or, where the I/O scheduler knows of it, the disk."""
    with suppress(OSError):
        os.nice(max(0, NICE - os.getpriority(os.PRIO_PROCESS, 0)))
    if hasattr(os, "SCHED_IDLE"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    lower_sessions()
    _idle_disk()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"):
        os.environ[name] = "1"


def lower_sessions() -> None:
    """Lower the sessions that this process and those that it started lead.

    Where Linux shares the processor out between sessions first, a priority counts within its session alone, and W&B's
    own process leads one of its own. A session that others lead, such as a terminal's, is not ours to lower.
    """
    with suppress(OSError):
        children = [int(pid) for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()]
        for process in (os.getpid(), *children):
            with suppress(OSError):
                if os.getsid(process) == process:
                    Path(f"/proc/{process}/autogroup").write_text(str(NICE))


def _idle_disk() -> None:
    import ctypes

    number = _IOPRIO_SET.get(os.uname().machine)
    if number is not None:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).syscall(number, 1, 0, _IDLE_CLASS)
