"""Reading the log of a sweep: events of its runs, with the last lines of those that failed."""

from __future__ import annotations

from typing import Any

import polars as pl

from orchestrator.ledger import Ledger

LEVELS = ("info", "warning", "error")


def events_of(ledger: Ledger, run_id: str | None = None, level: str = "info") -> list[dict[str, Any]]:
    """Events by time, as dictionaries with an ISO time.

    Args:
        ledger: of the sweep.
        run_id: only of runs whose id begins so.
        level: this and above.

    Raises:
        ValueError: no event of such a run.
        StorageError: the ledger cannot be read.
    """
    events = ledger.logs().filter(pl.col("level").is_in(LEVELS[LEVELS.index(level) :]))
    ends = ledger.ends().filter(pl.col("status") == "failed")
    if run_id is not None:
        events = events.filter(pl.col("run_id").str.starts_with(run_id))
        ends = ends.filter(pl.col("run_id").str.starts_with(run_id))
        if events.is_empty() and ends.is_empty():
            raise ValueError(
                f"no event of run {run_id!r} at level {level} or above in sweep {ledger.name!r}. "
                f"bo-sweep logs {ledger.name} shows all"
            )
    errors = dict(zip(ends["run_id"].to_list(), ends["error"].to_list(), strict=True))
    found = [event | {"time": event["time"].isoformat()} for event in events.iter_rows(named=True)]
    for end in ends.iter_rows(named=True):
        time = max((event["time"] for event in found if event["run_id"] == end["run_id"]), default="")
        found.append(
            {
                "time": time,
                "attempt": end["attempt"],
                "worker": end["node"] or "",
                "run_id": end["run_id"],
                "level": "error",
                "event": f"failed: {end['signature']}",
                "message": errors[end["run_id"]],
            }
        )
    return sorted(found, key=lambda event: event["time"])
