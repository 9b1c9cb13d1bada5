"""The machine that figures are taken on, and whether it is free for it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, TypeVar

import psutil

from orchestrator.console import LOG

Name = TypeVar("Name")
Result = TypeVar("Result")

FREE_PERCENT = 20.0
"""Share of all CPUs' time that may be in use before a measurement starts."""
LOOK_SECONDS, PATIENCE_SECONDS = 1.0, 60.0


def describe_machine() -> dict[str, Any]:
    """CPUs, memory and versions; nothing that names the machine or its user."""
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "python": platform.python_version(),
        **{name: version(name) for name in ("bo-sweep", "torch", "ray", "ffcv")},
    }


def in_turn(steps: Mapping[Name, Callable[[], Any]], number: int) -> dict[Name, Any]:
    """Round `number`: the result of every step, each taken on a free machine; every round starts one step further on.

    So no step always runs first, and a drift of the machine favours none of them.
    """
    first = number % len(steps)
    names = list(steps)
    return {name: when_free(steps[name]) for name in names[first:] + names[:first]}


def when_free(measure: Callable[[], Result]) -> Result:
    """What `measure` gives, once nothing else of weight is running; after a minute's wait it says so and goes on."""
    until = time.monotonic() + PATIENCE_SECONDS
    while (busy := psutil.cpu_percent(LOOK_SECONDS)) > FREE_PERCENT:
        if time.monotonic() > until:
            LOG.print(
                f"[bold]The machine is busy[/bold] ({busy:.0f} % of its CPUs): what follows is no figure to quote"
            )
            break
    return measure()
