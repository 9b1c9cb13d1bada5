"""What a dashboard shows, planned from the sweep alone: the workspace and the report are two views of one plan."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.analysis.definitions import DECIDED_PHASES, METRICS
from orchestrator.phase_diagram import HEAT_MAPS
from orchestrator.publishing import columns
from orchestrator.publishing.dashboard import words
from orchestrator.publishing.dashboard.charts import HEAT_MAP, PHASE_MAP, SLICE, Chart
from search_spaces.spec import FlowRecipe, SearchSpace


@dataclass(frozen=True)
class ChartPanel:
    """A chart of a table of the summary run; `fields` says which column stands for which field of the chart."""

    title: str
    chart: Chart
    table: str
    fields: Mapping[str, str]
    strings: Mapping[str, str]


@dataclass(frozen=True)
class CurvePanel:
    """Curves of histories: keys `y` against key `x`, averaged by W&B over the runs of each value of config `by`."""

    title: str
    x: str
    y: tuple[str, ...]
    by: str | None = None
    logarithmic_y: bool = False


@dataclass(frozen=True)
class TablePanel:
    """A table of the summary run as it is."""

    table: str


@dataclass(frozen=True)
class ImagePanel:
    """Images of the summary run, by key."""

    keys: tuple[str, ...]


Panel = ChartPanel | CurvePanel | TablePanel | ImagePanel


@dataclass(frozen=True)
class Section:
    """Panels over the W&B runs of one kind (a job type), and what is to be known when reading them (Markdown)."""

    title: str
    text: str
    kind: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Dashboard:
    """A sweep's dashboard. `key` tells sweeps of one name apart; `text` is Markdown."""

    sweep: str
    key: str
    title: str
    text: str
    sections: tuple[Section, ...]

    @property
    def slug(self) -> str:
        """Of the workspace, in its address (?nw=...): always the same for a sweep, so that it is found again."""
        number = int(hashlib.sha256(f"bo-sweep/{self.sweep}/{self.key}".encode()).hexdigest(), 16)
        letters = ""
        for _ in range(11):
            number, digit = divmod(number, 36)
            letters += "0123456789abcdefghijklmnopqrstuvwxyz"[digit]
        return letters

    @property
    def description(self) -> str:
        """Of the report; by this it is found again, whatever title somebody gave it."""
        told = f"bo-sweep dashboard of sweep {self.sweep} ({self.key})"
        return f"{told}. Edits are lost when it is made again; keep them in a copy."

    @property
    def charts(self) -> tuple[Chart, ...]:
        """Those that W&B has to know."""
        panels = (panel for section in self.sections for panel in section.panels)
        return tuple({panel.chart.name: panel.chart for panel in panels if isinstance(panel, ChartPanel)}.values())


def plan_dashboard(sweep: str, key: str, space: SearchSpace) -> Dashboard:
    """The dashboard of a sweep over `space`. key: what `reading.sweep_key` gives."""
    text = words.introduction(sweep, space)
    return Dashboard(sweep, key, f"Benign overfitting in {sweep}", text, (*_of_summary(space), *_of_curves(space)))


def _of_summary(space: SearchSpace) -> tuple[Section, ...]:
    along = "width" if space.axis == "width" else "number of samples"
    shares = {f"p_{phase}": f"p_{phase}" for phase in DECIDED_PHASES}
    phases = ChartPanel("phase", PHASE_MAP, "cells", _PLACE | {"phase": "phase", "n": "n"} | shares, {"title": "phase"})
    maps = tuple(_metric_panel(metric, HEAT_MAP, {"phase": "phase"}) for metric in HEAT_MAPS)
    slices = tuple(_metric_panel(metric, SLICE, {}) for metric in ("err_last", "train_error_last", "noise_cost"))
    figures = ImagePanel(tuple(f"{columns.FIGURE_PREFIX}{name}" for name in ("overview", "boundary")))
    kind = columns.SUMMARY
    return (
        Section("Phase diagram", words.phase_diagram(space, HEAT_MAPS), kind, (phases, *maps)),
        Section(f"Double descent along the {along}", words.slices(space), kind, slices),
        Section("Figures", words.FIGURES, kind, (figures,)),
        Section("Failures", words.FAILURES, kind, (TablePanel("failures"),)),
    )


_PLACE = {"noise": "noise_rate", "ratio": "ratio", "in_grid": "in_grid"}


def _metric_panel(metric: str, chart: Chart, more: dict[str, str]) -> ChartPanel:
    told = {"value": f"{metric}_mean", "low": f"{metric}_low", "high": f"{metric}_high", "n": f"{metric}_n"}
    known = METRICS[metric]
    return ChartPanel(known.label, chart, "cells", _PLACE | told | more, {"title": known.label, "unit": known.unit})


def _of_curves(space: SearchSpace) -> tuple[Section, ...]:
    loss = not isinstance(space.recipe, FlowRecipe)
    shown = (
        ("test error", "test_error", False),
        ("train error on given labels", "train_error_given", False),
        ("memorised", "memorised", False),
        ("test loss", "test_loss", loss),
    )
    by_cell = tuple(
        CurvePanel(f"{title}, by cell", columns.EPOCH, (key,), "cell", logarithmic) for title, key, logarithmic in shown
    )
    means = tuple(
        CurvePanel(f"{title}, mean over seeds", columns.EPOCH, (f"{key}_mean",), None, logarithmic)
        for title, key, logarithmic in shown
    )
    return (
        Section("Epoch curves by cell", words.RUN_CURVES, columns.RUN, by_cell),
        Section("Epoch curves of cell means", words.CELL_CURVES, columns.CELL, means),
    )
