"""The parts of the page that are text: headline, failures, origin, definitions. HTML, with everything escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import polars as pl
import yaml

from orchestrator.analysis.definitions import METRICS
from orchestrator.figures.captions import metric_caption, phase_caption
from orchestrator.phase_diagram import describe
from orchestrator.report.contents import Commands, Contents
from orchestrator.report.downloads import Download
from orchestrator.report.words import headline
from orchestrator.status import failures_by_signature

RUNS_SHOWN = 8
MARKS = (
    "Hatched cells hold no finished run: nothing was measured there, and nothing is drawn in its place. Cross-hatched "
    "cells are those whose runs all diverged. A dagger (\N{DAGGER}) marks a cell of which some runs diverged and are "
    "left out of its mean."
)


def sections(contents: Contents, commands: Commands, files: Sequence[Download] = ()) -> dict[str, str]:
    """Every part by its place in the page. `files` are those whose digests are told."""
    return {
        "recipe": escape(describe(contents.space)),
        "about": f"<p>{escape(contents.space.description)}</p>" if contents.space.description else "",
        "headline": " ".join(f"<p>{escape(sentence)}</p>" for sentence in headline(contents)),
        "failures": _failures(contents, commands.logs),
        "origin": _origin(contents, files),
        "definitions": _definitions(contents),
        "space": escape(_space_yaml(contents)),
    }


def _failures(contents: Contents, logs: str) -> str:
    planned = set(contents.plan["run_id"].to_list())
    groups = failures_by_signature(contents.ends, planned)
    if not groups:
        return "<p>No run failed.</p>"
    return "".join(_failure(group, logs) for group in groups)


def _failure(group: Mapping[str, Any], logs: str) -> str:
    ids = group["runs"]
    more = f" and {len(ids) - RUNS_SHOWN} more" if len(ids) > RUNS_SHOWN else ""
    named = ", ".join(f"<code>{escape(run_id)}</code>" for run_id in ids[:RUNS_SHOWN])
    where = f" on {escape(group['sample_node'])}" if group["sample_node"] else ""
    return (
        f"<details><summary><b>{len(ids)} failed:</b> {escape(str(group['signature']))}</summary>"
        f"<p>Runs {named}{more}.</p><p>Last lines of <code>{escape(group['sample_run'])}</code>{where}:</p>"
        f"<pre>{escape(group['sample'] or '')}</pre>"
        f"<p>All of it: <code>{escape(logs)} --run {escape(group['sample_run'])}</code></p></details>"
    )


def _origin(contents: Contents, files: Sequence[Download]) -> str:
    manifest, runs = contents.manifest, contents.runs
    facts = [
        ("Sweep", f"{manifest.name}, launched {_times(manifest.launches)}, first on {manifest.created[:10]}"),
        ("Data", _counts(runs.select(pl.concat_str("dataset", pl.lit(" "), "dataset_version", ignore_nulls=True)))),
        ("Made by", _counts(_of_diagram(contents, "versions"))),
        ("Devices", _counts(_of_diagram(contents, "device"))),
    ]
    reused = contents.plan["reused_from"].drop_nulls()
    if len(reused):
        facts.append(("Reused from", _counts(reused.to_frame())))
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts if value)
    if files:
        listed = "".join(f"<li><code>{file.name}</code> <code class=digest>{file.sha256}</code></li>" for file in files)
        rows += f"<dt>SHA-256 of the tables</dt><dd><ul class=digests>{listed}</ul></dd>"
    return (
        f"<dl>{rows}</dl><p>The hashes of every run's noise mask and subset stand beside it in "
        "<code>runs.parquet</code>; the command beside a run tells everything that it was trained with.</p>"
    )


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _of_diagram(contents: Contents, column: str) -> pl.DataFrame:
    return contents.plan.filter(pl.col("status").is_in(["done", "diverged"])).select(column)


def _counts(column: pl.DataFrame) -> str:
    """The values of one column, with the number of runs of each where there are several."""
    counts = column.to_series().drop_nulls().value_counts(name="runs").rows()
    named = sorted(counts, key=lambda row: (-row[1], row[0]))
    return "; ".join(f"{value} ({number} runs)" if len(named) > 1 else str(value) for value, number in named)


def _definitions(contents: Contents) -> str:
    texts = {metric: about.definition for metric, about in METRICS.items()}
    texts["excess_risk"] = metric_caption(contents.cells, "excess_risk")  # it says whether it is exact or a proxy
    entries = [
        ("phase", phase_caption(contents.cells)),
        *((METRICS[metric].label, texts[metric]) for metric in METRICS),
    ]
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in entries)
    return f"<p>{escape(MARKS)}</p><dl>{listed}</dl>"


def _space_yaml(contents: Contents) -> str:
    content = contents.space.model_dump(mode="json", exclude_none=True)
    return str(yaml.safe_dump(content, sort_keys=False))
