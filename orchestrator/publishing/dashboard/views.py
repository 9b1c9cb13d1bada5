"""From a plan to the objects of wandb-workspaces: a workspace and a report."""

from __future__ import annotations

import importlib
from typing import Any

from orchestrator.publishing import columns
from orchestrator.publishing.dashboard.plan import ChartPanel, CurvePanel, Dashboard, ImagePanel, Panel, Section

MOST_RUNS_IN_A_CHART = 100
WIDTH, CHART_HEIGHT, TABLE_HEIGHT = 24, 10, 12
"""Of a report's grid, and of panels in it, in its units."""


def make_workspace(dashboard: Dashboard, entity: str, project: str) -> Any:
    """The workspace of a sweep: its runs only, the summary run always among them."""
    workspaces, expressions = _package("workspaces"), _package("expr")

    sections = [
        workspaces.Section(
            name=section.title,
            panels=[_panel(panel, entity) for panel in section.panels],
            is_open=section.kind == columns.SUMMARY,
            layout_settings=workspaces.SectionLayoutSettings(columns=3 if len(section.panels) > 2 else 1, rows=2),
        )
        for section in dashboard.sections
    ]
    first = expressions.Ordering(expressions.Config(columns.KIND), ascending=False)
    latest = expressions.Ordering(expressions.Metric("CreatedTimestamp"), ascending=False)
    runs = workspaces.RunsetSettings(
        filters=_filter(dashboard.key),
        # charts ask for the first few hundred runs: the one with the tables has to be one of them
        order=[first, latest],
        pinned_runs=[columns.summary_id(dashboard.sweep, dashboard.key)],
        pinned_columns=[f"config:{key}.value" for key in (columns.KIND, "noise_rate", "ratio", "width", "seed")],
    )
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=dashboard.title,
        sections=sections,
        runset_settings=runs,
        settings=workspaces.WorkspaceSettings(x_axis=columns.EPOCH, max_runs=MOST_RUNS_IN_A_CHART),
    )


def make_report(dashboard: Dashboard, entity: str, project: str) -> Any:
    """The report of a sweep: its text, and every section over the W&B runs that it is about."""
    reports = _package("reports.v2")

    blocks: list[Any] = [reports.MarkdownBlock(text=dashboard.text), reports.TableOfContents()]
    for section in dashboard.sections:
        panels = [_panel(panel, entity, layout) for panel, layout in zip(section.panels, _places(section), strict=True)]
        runs = _runset(dashboard.key, section.kind, entity, project)
        blocks += [
            reports.H2(text=section.title),
            reports.MarkdownBlock(text=section.text),
            reports.PanelGrid(runsets=[runs], panels=panels),
        ]
    return reports.Report(
        entity=entity,
        project=project,
        title=dashboard.title,
        description=dashboard.description,
        blocks=blocks,
        width="fluid",
    )


def _runset(key: str, kind: str, entity: str, project: str) -> Any:
    reports = _package("reports.v2")

    name = {columns.SUMMARY: "summary", columns.RUN: "runs", columns.CELL: "cells"}[kind]
    return reports.Runset(entity=entity, project=project, name=name, filters=_filter(key, kind))


def _filter(key: str, kind: str | None = None) -> Any:
    expressions = _package("expr")
    # by its key: another sweep, of another storage, may have the same name
    parts = [expressions.Config(columns.SWEEP_KEY) == key, expressions.Tags().notin([columns.SUPERSEDED])]
    return expressions.And(*parts, *([] if kind is None else [expressions.Config(columns.KIND) == kind]))


def _places(section: Section) -> list[Any]:
    """Charts two in a row; tables and images take a whole one."""
    reports = _package("reports.v2")

    places, x, y = [], 0, 0
    for panel in section.panels:
        small = isinstance(panel, ChartPanel | CurvePanel)
        width, height = (WIDTH // 2, CHART_HEIGHT) if small else (WIDTH, TABLE_HEIGHT)
        if x + width > WIDTH:
            x, y = 0, y + CHART_HEIGHT
        places.append(reports.Layout(x=x, y=y, w=width, h=height))
        x += width
    return places


def _panel(panel: Panel, entity: str, layout: Any = None) -> Any:
    reports = _package("reports.v2")

    place = {} if layout is None else {"layout": layout}
    if isinstance(panel, ChartPanel):
        return reports.CustomChart(
            query={"summaryTable": {"tableKey": panel.table}},
            chart_name=f"{entity}/{panel.chart.name}",
            chart_fields=dict(panel.fields),
            chart_strings=dict(panel.strings),
            **place,
        )
    if isinstance(panel, CurvePanel):
        grouped: dict[str, Any] = {}
        if panel.by is not None:
            grouped = {"groupby": reports.Config(panel.by), "groupby_aggfunc": "mean", "groupby_rangefunc": "stderr"}
        return reports.LinePlot(
            title=panel.title,
            x=panel.x,
            y=list(panel.y),
            log_y=panel.logarithmic_y or None,
            max_runs_to_show=MOST_RUNS_IN_A_CHART,
            **grouped,
            **place,
        )
    if isinstance(panel, ImagePanel):
        return reports.MediaBrowser(media_keys=list(panel.keys), num_columns=1, **place)
    return reports.WeavePanelSummaryTable(table_name=panel.table, **place)


def _package(name: str) -> Any:
    """A module of wandb-workspaces: heavy, optional, and without declared names for type checkers."""
    return importlib.import_module(f"wandb_workspaces.{name}")
