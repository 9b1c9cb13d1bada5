"""The dashboard of a sweep: charts that read what is published, made once on W&B and brought up to date after that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.ledger import Ledger
from orchestrator.publishing import columns
from orchestrator.publishing.dashboard.charts import CHARTS
from orchestrator.publishing.dashboard.plan import ChartPanel, CurvePanel, ImagePanel, TablePanel, plan_dashboard
from orchestrator.publishing.dashboard.saving import save_dashboard
from orchestrator.publishing.reading import sweep_key
from orchestrator.publishing.target import Target
from search_spaces.catalog import builtin_names, load_space
from tests.report_ledger import make_ledger
from tests.waiting import PATIENCE_SECONDS
from tests.wandb_server import FakeWandb, Fault, View

pytest.importorskip("wandb_workspaces")

COMMAND = "from orchestrator.commands.wandb_dashboard import dashboard; dashboard(prog_name='dashboard')"


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweeps")
    for name in ("digits-grid", "other-grid"):
        make_ledger(folder / name)
    return folder


@pytest.fixture
def server() -> Iterator[FakeWandb]:
    with FakeWandb() as server:
        server.state.projects.add(("team", "bo-sweep"))
        yield server


def dashboard(
    sweeps: Path, server: FakeWandb | None, *options: str, sweep: str = "digits-grid"
) -> subprocess.CompletedProcess[str]:
    """`bo-sweep wandb dashboard`, in a process that has no other key or server than those of the test."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environment |= {"HOME": str(sweeps), "PYTHONPATH": str(Path(__file__).parent.parent)}
    environment |= {} if server is None else server.environment()
    command = [sys.executable, "-c", COMMAND, sweep, "--storage", str(sweeps), *options]
    return subprocess.run(
        command, env=environment, cwd=sweeps, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )


@pytest.mark.parametrize("name", builtin_names())
def test_charts_name_only_what_is_published(name: str) -> None:
    histories = {columns.RUN: set(columns.RUN_HISTORY), columns.CELL: set(columns.CELL_HISTORY)}
    configs = {columns.RUN: set(columns.RUN_CONFIG), columns.CELL: set(columns.CELL_CONFIG)}
    panels = 0
    for section in plan_dashboard(name, "key", load_space(name)).sections:
        for panel in section.panels:
            panels += 1
            if isinstance(panel, ChartPanel):
                assert section.kind == columns.SUMMARY, "only the summary run has tables"
                assert set(panel.fields.values()) <= set(columns.TABLES[panel.table])
            elif isinstance(panel, CurvePanel):
                assert {panel.x, *panel.y} <= histories[section.kind]
                assert panel.by is None or panel.by in configs[section.kind]
            elif isinstance(panel, TablePanel):
                assert section.kind == columns.SUMMARY
                assert panel.table in columns.TABLES
            else:
                assert section.kind == columns.SUMMARY
                assert all(key.startswith(columns.FIGURE_PREFIX) for key in panel.keys)
    assert panels > 15


def test_panels_fill_every_placeholder_of_their_chart_and_no_other() -> None:
    planned = plan_dashboard("digits-grid", "key", load_space("digits-grid"))
    panels = [panel for section in planned.sections for panel in section.panels if isinstance(panel, ChartPanel)]
    for panel in panels:
        assert set(panel.fields) == panel.chart.fields, panel.title
        assert set(panel.strings) == panel.chart.strings, panel.title
    assert {panel.chart.name for panel in panels} == {chart.name for chart in CHARTS}
    assert {panel.title for panel in panels} >= {"phase", "final test error", "noise cost", "benign gap", "memorised"}


def test_expressions_of_charts_are_over_columns_of_their_own() -> None:
    """How W&B writes a column's name into an expression is not documented, so none has a placeholder."""
    for chart in CHARTS:
        for expression in expressions(chart.spec):
            assert "${" not in expression


def expressions(spec: Any) -> Iterator[str]:
    for key, value in spec.items() if isinstance(spec, dict) else enumerate(spec):
        if isinstance(value, dict | list):
            yield from expressions(value)
        elif key in ("test", "calculate", "expr") or (key == "filter" and isinstance(value, str)):
            yield value


def test_a_changed_chart_gets_a_name_of_its_own() -> None:
    chart = CHARTS[0]
    other = type(chart)(chart.kind, chart.title, chart.spec | {"padding": 1})
    assert chart.name.startswith("bo-sweep-heat-map-")
    assert other.name != chart.name


def test_sweeps_have_dashboards_of_their_own() -> None:
    space = load_space("digits-grid")
    one, other, elsewhere = (plan_dashboard(*of, space) for of in (("one", "a"), ("other", "a"), ("one", "b")))
    assert len({one.slug, other.slug, elsewhere.slug}) == 3
    assert len({one.description, other.description, elsewhere.description}) == 3
    assert one.slug == plan_dashboard("one", "a", space).slug


def test_a_dry_run_needs_neither_key_nor_network_and_is_always_the_same(sweeps: Path) -> None:
    first, second = (dashboard(sweeps, None, "--dry-run") for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    document = json.loads(first.stdout)
    assert (document["schema_version"], document["entity"], document["project"]) == (1, None, "bo-sweep")
    titles = [section["title"] for section in document["sections"]]
    assert titles[:2] == ["Phase diagram", "Double descent along the width"]
    assert {chart["name"] for chart in document["charts"]} == {chart.name for chart in CHARTS}


def test_it_is_made_once_and_then_updated(sweeps: Path, server: FakeWandb) -> None:
    theirs = View("their-id", "team", "bo-sweep", "runs", "x", "Benign overfitting in digits-grid", "mine", "{}")
    server.state.views[theirs.id] = theirs
    first = dashboard(sweeps, server, "--json")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["made"] == {"workspace": True, "report": True}
    charts, (workspace,), (report,) = dict(server.state.charts), server.workspaces, ours(server)
    assert set(charts) == {f"team/{chart.name}" for chart in CHARTS}
    assert all(json.loads(made["spec"])["data"] == {"name": "wandb"} for made in charts.values())
    for view in (workspace, report):
        reads_what_is_published(view, set(charts), sweep_key("digits-grid", Ledger(sweeps / "digits-grid").manifest()))

    report.display_name = "our paper's figure 3"  # whoever renames it meets it again
    second = dashboard(sweeps, server, "--json")
    told = json.loads(second.stdout)
    assert told["made"] == {"workspace": False, "report": False}
    assert told["doubtful_charts"] == []
    assert [told[name] for name in ("workspace", "report")] == [
        json.loads(first.stdout)[name] for name in ("workspace", "report")
    ]
    assert server.state.charts == charts
    assert [(view.id, view.saves) for view in server.workspaces] == [(workspace.id, 2)]
    assert {view.id: view.saves for view in server.reports} == {report.id: 2, "their-id": 1}
    assert stable(server.workspaces[0]) == stable(workspace)
    assert stable(ours(server)[0]) == stable(report)

    other = dashboard(sweeps, server, "--json", sweep="other-grid")
    told = json.loads(other.stdout)
    assert told["made"] == {"workspace": True, "report": True}
    assert told["doubtful_charts"] == []
    assert server.state.charts == charts
    assert len(server.workspaces) == len(ours(server)) == 2
    assert (server.unknown, server.leaks) == ([], [])


def ours(server: FakeWandb) -> list[View]:
    return [view for view in server.reports if view.id != "their-id"]


def stable(view: View) -> Any:
    """A view's content without the ids that wandb-workspaces draws anew each time."""
    return json.loads(view.spec, object_hook=lambda part: {k: v for k, v in part.items() if k not in ("id", "__id__")})


def reads_what_is_published(view: View, charts: set[str], key: str) -> None:
    """The same promise as above at the other end: in a spec as W&B reads it."""
    parts = list(nodes(json.loads(view.spec)))
    shown = [part["config"] for part in parts if part.get("viewType") == "Vega2"]
    assert len(shown) == 8
    for chart in shown:
        (runs,) = chart["userQuery"]["queryFields"]
        (table,) = [field["args"][0]["value"] for field in runs["fields"] if field["name"] == "summaryTable"]
        assert set(chart["fieldSettings"].values()) <= set(columns.TABLES[table])
        assert chart["panelDefId"] in charts
    curves = [part["config"] for part in parts if part.get("viewType") == "Run History Line Plot"]
    asked = {key for curve in curves for key in curve["metrics"]}
    assert asked <= {*columns.RUN_HISTORY, *columns.CELL_HISTORY}
    assert {curve["xAxis"] for curve in curves} == {columns.EPOCH}
    assert {curve.get("groupBy") for curve in curves} == {None, "cell.value"}
    filters = [part for part in parts if "op" in part]
    chosen = {(part["key"]["section"], part["key"]["name"], part["op"]): part["value"] for part in filters}
    by_key = ("config", columns.SWEEP_KEY, "=")
    assert chosen.keys() <= {by_key, ("run", "tags", "NIN"), ("config", columns.KIND, "=")}
    assert chosen[by_key] == key


def nodes(spec: Any) -> Iterator[dict[str, Any]]:
    """Every object in a spec."""
    for value in spec.values() if isinstance(spec, dict) else spec:
        if isinstance(value, dict | list):
            yield from nodes(value)
    if isinstance(spec, dict):
        yield spec


def test_errors_say_what_to_do(sweeps: Path, server: FakeWandb) -> None:
    without_key = dashboard(sweeps, None)
    assert without_key.returncode == 2
    assert "wandb login" in without_key.stderr
    assert "--dry-run" in without_key.stderr

    elsewhere = dashboard(sweeps, server, "--project", "nowhere")
    assert elsewhere.returncode == 2
    assert "team/nowhere" in elsewhere.stderr
    assert "bo-sweep wandb publish digits-grid" in elsewhere.stderr

    server.revoke()
    revoked = dashboard(sweeps, server)
    assert revoked.returncode == 4
    assert "wandb login --relogin" in revoked.stderr

    server.revoke(False)
    server.inject(Fault("status", on="CreateCustomChart", times=None, status=422))
    doubtful = json.loads(dashboard(sweeps, server, "--json").stdout)
    assert len(doubtful["doubtful_charts"]) == len(CHARTS)
    assert server.environment()["WANDB_API_KEY"] not in without_key.stderr + elsewhere.stderr + revoked.stderr


def test_wandb_mode_keeps_from_w_and_b() -> None:
    planned = plan_dashboard("digits-grid", "key", load_space("digits-grid"))
    for mode in ("offline", "disabled"):
        with pytest.raises(ValueError, match=f"WANDB_MODE is {mode}.*--dry-run"):
            save_dashboard(planned, Target.of(environment={"WANDB_MODE": mode}))


def test_images_are_figures_that_the_summary_has() -> None:
    planned = plan_dashboard("digits-grid", "key", load_space("digits-grid"))
    keys = [
        key
        for section in planned.sections
        for panel in section.panels
        if isinstance(panel, ImagePanel)
        for key in panel.keys
    ]
    assert keys == ["figures/overview", "figures/boundary"]
