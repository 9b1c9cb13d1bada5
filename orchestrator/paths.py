"""Names of all files and folders of a sweep, relative to its own folder, in one place."""

from __future__ import annotations

import re

MANIFEST = "sweep.json"
"""What was launched: the resolved space, versions, the number of launches."""
SPACE = "space.yaml"
"""The resolved space alone, to launch or to change by hand."""
RUNS = "runs"
"""Parquet parts: a row a planned run, with its hyperparameters."""
ROWS = "rows"
"""Parquet parts: a row an evaluation."""
ENDS = "ends"
"""Parquet parts: a row a finished attempt; written after its rows, it is what makes a run count as done."""
LOGS = "logs"
"""Parquet parts: a row an event of a run or a worker."""
CHECKPOINTS = "checkpoints"
"""The state of each run in training; none is left of a run that ended."""
LEASE = "lease"
"""Who launches this sweep right now."""
DAMAGED = "damaged"
"""Parts that were found damaged, moved here by a launch; never read again."""
PHASE = "phase"
"""Tables and figures; all of it can be drawn again from the rest."""

SETTLED = "settled"
"""First word in the names of parts of rows that hold finished runs only: every claimed row once, sorted by run."""
MERGED = "merged"
"""First word in the names of other parts that compaction wrote."""


def check_sweep_name(name: str) -> None:
    """A sweep lies in a folder of its name, which must not lead to another place. Raises ValueError."""
    if not re.fullmatch(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]{0,99}", name):
        raise ValueError(
            f"{name!r} is no name of a sweep: 1 to 100 characters, no slash or backslash, and no dot in front"
        )


def checkpoint(run_id: str) -> str:
    """The one checkpoint of a run."""
    return f"{CHECKPOINTS}/{run_id}.pt"
