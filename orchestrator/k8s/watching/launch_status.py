"""The status of a launch as a document and as a table."""

from __future__ import annotations

import shlex
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orchestrator.console import duration
from orchestrator.k8s.watching.causes import Explanation
from orchestrator.k8s.watching.observed import Manifest, Picture, time_of
from orchestrator.k8s.watching.troubles import count_ready, is_ready

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

STYLES = {"running": "green", "done": "green", "failed": "bold red", "unattended": "bold red", "retrying": "yellow"}


def status_document(picture: Picture, told: Explanation, progress: str = "") -> dict[str, Any]:
    """The status as JSON has it; ages are in seconds."""
    heads, workers = picture.of_type("head"), picture.of_type("worker")
    return {
        "sweep": picture.sweep,
        "name": picture.name,
        "namespace": picture.namespace,
        "state": told.state,
        "headline": told.headline,
        "cause": told.cause,
        "remedy": told.remedy,
        "details": list(told.details),
        "attempt": picture.attempt,
        "attempts": picture.attempts,
        "head": _pod(picture, heads[-1]) if heads else None,
        "workers": {
            "ready": count_ready(workers),
            "wanted": picture.wanted_workers,
            "pods": [_pod(picture, pod) for pod in workers],
        },
        "submitter": _pod(picture, picture.submitters[-1]) if picture.submitters else None,
        "started": picture.status.get("startTime"),
        "ended": picture.status.get("endTime"),
        "progress": "" if told.state == "done" else progress,  # of a while before the end
        "storage": storage_of(picture),
        "unread": list(picture.unread),
    }


def status_view(document: dict[str, Any]) -> RenderableType:
    """The status for people: what is, why, what to do, and where the pods are."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    lines = [Text(f"{document['sweep']}: {document['headline']}", style=STYLES.get(document["state"], "bold"))]
    lines += [Text(document["cause"])] if document["cause"] else []
    lines += [Text(f"-> {document['remedy']}", style="bold")] if document["remedy"] else []
    lines += [Text(f"also: {detail}", style="dim") for detail in document["details"]]
    lines += [Text(document["progress"])] if document["progress"] else []
    lines += [Text(f"(not readable for you: {', '.join(document['unread'])})", "dim")] if document["unread"] else []
    table = Table("pod", "state", "ready", "node", "age", box=None, padding=(0, 2, 0, 0))
    workers = document["workers"]
    rows = [
        ("head", document["head"]),
        *(("worker", pod) for pod in workers["pods"]),
        ("submitter", document["submitter"]),
    ]
    for role, pod in rows:
        if pod:
            ready = "yes" if pod["ready"] else "no"
            state = "Terminating" if pod["leaving"] else pod["phase"]
            table.add_row(role, state, ready, pod["node"] or "-", _age(pod["age_seconds"]))
    return Group(*lines, *([table] if table.rows else []))


def sweeps_table(documents: list[dict[str, Any]]) -> Table:
    """Several sweeps, a line each."""
    from rich.table import Table
    from rich.text import Text

    table = Table("sweep", "state", "", box=None, padding=(0, 2, 0, 0))
    for document in documents:
        state = Text(document["state"], style=STYLES.get(document["state"], ""))
        table.add_row(document["sweep"], state, Text(document["cause"] or document["headline"]))
    return table


def storage_of(picture: Picture) -> str | None:
    """Where the launch keeps the sweep, as its own pods see it; None where the entry point does not say."""
    try:
        words = shlex.split(picture.spec.get("entrypoint") or "")
    except ValueError:
        return None
    return words[words.index("--storage") + 1] if "--storage" in words[:-1] else None


def _pod(picture: Picture, pod: Manifest) -> dict[str, Any]:
    status = pod.get("status") or {}
    born: datetime | None = time_of(pod["metadata"].get("creationTimestamp"))
    return {
        "name": pod["metadata"]["name"],
        "phase": status.get("phase") or "Pending",
        "leaving": bool(pod["metadata"].get("deletionTimestamp")),
        "ready": is_ready(pod),
        "node": (pod.get("spec") or {}).get("nodeName"),
        "age_seconds": max(0.0, (picture.now - born).total_seconds()) if born else None,
    }


def _age(seconds: float | None) -> str:
    return duration(seconds) if seconds is not None else "-"
