"""How far a sweep is: what is done, what runs, what went wrong, what it has cost and how long it will take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.console import duration
from orchestrator.estimate import estimate
from orchestrator.lease import Claim, current_claim
from orchestrator.ledger import Ledger, Manifest
from orchestrator.parts import consistently
from search_spaces.runs import Run, expand
from search_spaces.schedule import count_evaluations

RUNNING_SHOWN = 16
SAMPLE_LINES = 8


def status_document(ledger: Ledger, gpu_hour_price: float | None = None) -> dict[str, Any]:
    """The status as JSON. Times are in seconds, `images_per_second` counts each run of a pack.

    Raises:
        LedgerError, StorageError: a sweep that cannot be read.
    """
    manifest = ledger.manifest()
    runs = expand(manifest.space)
    claim = current_claim(ledger.storage)
    progress = claim.progress if claim else {}

    def read() -> tuple[pl.DataFrame, int]:
        snapshot = ledger.snapshot()
        return snapshot.judged_ends(), int(snapshot.counts["held"].sum())

    ends, rows = consistently(read)
    judged = _Judged.of(ends, runs, progress)
    gpu_seconds = _sum(ends["gpu_seconds"])
    gpu_hours = max(gpu_seconds / 3600, 0.0) + _live_gpu_hours(progress, ends)
    return {
        "sweep": manifest.name,
        "space": manifest.space.name,
        "launches": manifest.launches,
        "created": manifest.created,
        "runs": {"total": len(runs), **judged.counts},
        "evaluations": {
            "planned": sum(count_evaluations(run.recipe, run.evaluation, run.samples) for run in runs),
            "in_ledger": rows,
        },
        "live": _live_document(claim),
        "eta_seconds": _eta(manifest, runs, judged, progress),
        "images_per_second": _speed(ends, progress),
        "gpu_use": _mean([each["gpu_use"] for each in progress.get("running", [])]),
        "worker_seconds": _sum(ends["seconds"]),
        "gpu_hours": gpu_hours,
        "cost": None if gpu_hour_price is None else gpu_hours * gpu_hour_price,
        "failures": failures_by_signature(ends, {run.run_id for run in runs}),
    }


@dataclass(frozen=True)
class _Judged:
    """Planned runs by status, the seconds of finished ones, and who has not ended."""

    counts: dict[str, int]
    seconds: dict[str, float]
    unfinished: list[Run]

    @classmethod
    def of(cls, ends: pl.DataFrame, runs: Sequence[Run], progress: Mapping[str, Any]) -> _Judged:
        columns = (ends[name].to_list() for name in ("run_id", "status", "seconds"))
        by_id = {run_id: (status, seconds) for run_id, status, seconds in zip(*columns, strict=True)}
        in_training = {run_id for each in progress.get("running", []) for run_id in each["run_ids"]}

        def status(run: Run) -> str:
            found = by_id.get(run.run_id, ("waiting", 0.0))[0]
            unfinished = found not in ("done", "diverged")
            return "running" if unfinished and run.run_id in in_training else found

        statuses = [status(run) for run in runs]
        counts = Counter(statuses)
        names = ("done", "running", "waiting", "failed", "diverged", "lost")
        return cls(
            {name: counts[name] for name in names},
            {run_id: seconds for run_id, (found, seconds) in by_id.items() if found == "done"},
            [run for run, found in zip(runs, statuses, strict=True) if found in ("running", "waiting", "lost")],
        )


def _live_document(claim: Claim | None) -> dict[str, Any] | None:
    if claim is None:
        return None
    progress = dict(claim.progress)
    return {"holder": claim.holder, "since": claim.since, "workers": progress.get("workers", 0), **progress}


def _live_gpu_hours(progress: Mapping[str, Any], ends: pl.DataFrame) -> float:
    """GPU-hours that the running launch has spent beyond those of runs that ended in it."""
    total = float(progress.get("gpu_hours", 0.0))
    if not total or ends.is_empty():
        return total
    launch = ends["attempt"].max()
    assert isinstance(launch, int)
    recent = ends.filter(pl.col("attempt") // 1_000_000 == launch // 1_000_000)
    return max(0.0, total - _sum(recent["gpu_seconds"]) / 3600)


def _eta(manifest: Manifest, runs: Sequence[Run], judged: _Judged, progress: Mapping[str, Any]) -> float | None:
    """Seconds until the last run, from those that finished; None before the first one, or while nothing runs."""
    workers = int(progress.get("workers", 0))
    finished = [(run, judged.seconds[run.run_id]) for run in runs if run.run_id in judged.seconds]
    if not (workers and finished and judged.unfinished):
        return None
    resources = manifest.space.resources
    whole = estimate(judged.unfinished, finished, slots=workers, resources=resources)
    under_way = 0.0
    by_id = {run.run_id: run for run in runs}
    for each in progress.get("running", []):
        members = [by_id[run_id] for run_id in each["run_ids"] if run_id in by_id]
        under_way += each["share_done"] * estimate(members, finished, slots=1, resources=resources).slot_seconds
    return max(0.0, whole.slot_seconds - under_way) / workers


def _speed(ends: pl.DataFrame, progress: Mapping[str, Any]) -> float | None:
    """Samples a second over all workers: of what runs now, else of what has finished, worker by worker."""
    running = [each["images_per_second"] for each in progress.get("running", []) if each["images_per_second"]]
    if running:
        return float(sum(running))
    seconds = _sum(ends["seconds"])
    return _sum(ends["images"]) / seconds if seconds else None


def failures_by_signature(ends: pl.DataFrame, planned: set[str]) -> list[dict[str, Any]]:
    """Failed runs by signature, most frequent first, with the last lines of the latest one."""
    failed = ends.filter((pl.col("status") == "failed") & pl.col("run_id").is_in(list(planned)))
    groups: dict[str, dict[str, Any]] = {}
    for end in failed.sort("attempt", "run_id").iter_rows(named=True):
        group = groups.setdefault(end["signature"], {"signature": end["signature"], "runs": []})
        group["runs"].append(end["run_id"])
        group |= {"sample_run": end["run_id"], "sample_node": end["node"], "sample": end["error"]}
    return sorted(groups.values(), key=lambda group: -len(group["runs"]))


def _sum(column: pl.Series) -> float:
    return float(column.fill_null(0).sum())


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def status_view(document: Mapping[str, Any]) -> RenderableType:
    """The status for people: counts, what runs, and the causes of failures."""
    runs, rows, live = document["runs"], document["evaluations"], document["live"]
    share = (runs["done"] + runs["diverged"]) / runs["total"]
    counts = ", ".join(f"{runs[name]} {name}" for name in ("done", "diverged", "failed", "running", "waiting"))
    lost = f", {runs['lost']} lost" if runs["lost"] else ""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    table.add_row("  runs", f"{counts}{lost}; {share:.0%} of {runs['total']}")
    table.add_row("  rows", f"{rows['in_ledger']:,} evaluations of {rows['planned']:,} planned")
    if document["eta_seconds"] is not None:
        table.add_row("  left", f"about {duration(document['eta_seconds'])}, from finished runs")
    if document["images_per_second"]:
        table.add_row("  speed", f"{document['images_per_second']:,.0f} images/s, {_gpu_words(document)}")
    table.add_row("  time", _cost_words(document))
    if live:
        since = live["since"][:19].replace("T", " ")
        stopping = f"; stopping: {live['stopping']}" if live.get("stopping") else ""
        table.add_row("  live", f"{live['workers']} workers, launched by {live['holder']} since {since} UTC{stopping}")
    title = f"[bold]{document['sweep']}[/bold] ({document['space']}, launched {document['launches']} times)"
    parts: list[RenderableType] = [Text.from_markup(title), table]
    if live and live.get("running"):
        parts.append(_running_table(live["running"]))
    parts += [failure_view(failure) for failure in document["failures"]]
    return Group(*parts)


def failure_view(failure: Mapping[str, Any]) -> RenderableType:
    """One cause of failures, with the last lines of one run."""
    lines = "\n".join(f"    {line}" for line in failure["sample"].splitlines()[-SAMPLE_LINES:])
    where = f" on {failure['sample_node']}" if failure["sample_node"] else ""
    head = Text.from_markup(f"\n[bold]{len(failure['runs'])} failed[/bold]: ")
    head.append(failure["signature"])
    return Group(head, Text(f"  for example run {failure['sample_run']}{where}:"), Text(lines))


def _running_table(running: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 2))
    for name in ("node", "done", "images/s", "runs in training"):
        table.add_column(name, justify="right" if name in ("done", "images/s") else "left", no_wrap=True)
    for each in running[:RUNNING_SHOWN]:
        ids = ", ".join(each["run_ids"][:2]) + (f" and {len(each['run_ids']) - 2} more" if each["run_ids"][2:] else "")
        table.add_row(each["host"], f"{each['share_done']:.0%}", f"{each['images_per_second']:,.0f}", ids)
    if len(running) > RUNNING_SHOWN:
        table.add_row("...", "", "", f"{len(running) - RUNNING_SHOWN} more packs")
    return table


def _gpu_words(document: Mapping[str, Any]) -> str:
    return "no GPU in use" if document["gpu_use"] is None else f"GPUs busy {document['gpu_use']:.0%} of the time"


def _cost_words(document: Mapping[str, Any]) -> str:
    words = f"{duration(document['worker_seconds'])} of training so far"
    if document["gpu_hours"]:
        words += f", {document['gpu_hours']:.2f} GPU-hours"
    if document["cost"] is not None:
        words += f", {document['cost']:,.2f} at the price given"
    return words
