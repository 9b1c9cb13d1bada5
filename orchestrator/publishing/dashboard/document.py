"""A planned dashboard as one JSON document, the same whenever and wherever it is made."""

from __future__ import annotations

from typing import Any

from orchestrator.publishing.dashboard.plan import ChartPanel, CurvePanel, Dashboard, ImagePanel, Panel, Section
from orchestrator.publishing.target import Target


def dashboard_document(dashboard: Dashboard, target: Target) -> dict[str, Any]:
    """What would be made where. `entity` is null where it is the default one of the key's owner."""
    return {
        "sweep": dashboard.sweep,
        "sweep_key": dashboard.key,
        "entity": target.entity,
        "project": target.project,
        "title": dashboard.title,
        "workspace": dashboard.slug,
        "description": dashboard.description,
        "text": dashboard.text,
        "sections": [_section(section) for section in dashboard.sections],
        "charts": [{"name": chart.name, "title": chart.title, "vega_lite": chart.spec} for chart in dashboard.charts],
    }


def _section(section: Section) -> dict[str, Any]:
    panels = [_panel(panel) for panel in section.panels]
    return {"title": section.title, "runs_of_kind": section.kind, "text": section.text, "panels": panels}


def _panel(panel: Panel) -> dict[str, Any]:
    if isinstance(panel, ChartPanel):
        return {
            "type": "chart",
            "title": panel.title,
            "chart": panel.chart.name,
            "table": panel.table,
            "fields": dict(panel.fields),
            "strings": dict(panel.strings),
        }
    if isinstance(panel, CurvePanel):
        return {
            "type": "curves",
            "title": panel.title,
            "x": panel.x,
            "y": list(panel.y),
            "by_config": panel.by,
            "logarithmic_y": panel.logarithmic_y,
        }
    return (
        {"type": "images", "keys": list(panel.keys)}
        if isinstance(panel, ImagePanel)
        else {
            "type": "table",
            "table": panel.table,
        }
    )
