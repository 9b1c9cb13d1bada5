"""The report as a file: what is in it, what is not, and the same bytes for the same ledger."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result

from orchestrator.analysis.definitions import METRICS
from orchestrator.cli import main
from orchestrator.ledger import Ledger
from orchestrator.report.assembly import MODULES, page_script, static
from orchestrator.report.contents import Commands, Contents, read_contents
from orchestrator.report.curves import SERIES, curve_rows, packed, thinned
from orchestrator.report.document import as_json, axes, report_document
from orchestrator.report.downloads import HOLDS, curve_table, make, read_parquet
from orchestrator.report.page import write_report
from orchestrator.report.words import headline
from search_spaces.catalog import load_space
from tests.report_ledger import ATTACK, EPOCHS, make_ledger

COMMANDS = Commands("bo-sweep reproduce s", "bo-sweep logs s", "bo-sweep launch s")


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return make_ledger(tmp_path_factory.mktemp("sweeps") / "sweep")


@pytest.fixture(scope="module")
def contents(ledger: Ledger) -> Contents:
    return read_contents(ledger)


@pytest.fixture(scope="module")
def page(ledger: Ledger, tmp_path_factory: pytest.TempPathFactory) -> str:
    to = tmp_path_factory.mktemp("pages") / "report.html"
    return Path(write_report(ledger, COMMANDS, to).location).read_text()


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def unpacked(content: bytes) -> dict[str, dict[str, list[float]]]:
    """Packed curves by run and series, read independently of the page's script."""
    raw = gzip.decompress(content)
    (length,) = struct.unpack("<I", raw[:4])
    header = json.loads(raw[4 : 4 + length])
    planes = np.frombuffer(raw[4 + length :], np.uint8).reshape(4, -1)
    numbers = np.ascontiguousarray(planes.T).view("<f4").reshape(-1).tolist()
    found: dict[str, dict[str, list[float]]] = {}
    for run_ in header["runs"]:
        found[run_["id"]] = {}
        for name in header["series"]:
            found[run_["id"]][name], numbers = numbers[: run_["points"]], numbers[run_["points"] :]
    assert not numbers
    return found


# ---- the file ----


def test_the_same_ledger_gives_the_same_bytes_wherever_it_is_written(ledger: Ledger, page: str, tmp_path: Path) -> None:
    again = write_report(ledger, COMMANDS)
    assert Path(again.location).read_text() == page
    assert again.location.endswith("phase/report.html")
    assert again.size == len(page.encode())


def test_compacting_the_ledger_changes_no_byte(ledger: Ledger, page: str, tmp_path: Path) -> None:
    folder = ledger.storage.local_path()
    assert folder is not None
    shutil.copytree(folder, tmp_path / "sweep")
    assert run("compact", "sweep", "--storage", tmp_path).exit_code == 0
    copy = write_report(Ledger(tmp_path / "sweep"), COMMANDS, tmp_path / "report.html")
    assert Path(copy.location).read_text() == page


def test_the_page_names_no_address_and_its_policy_allows_no_network(page: str) -> None:
    outside_plotly = re.sub(r'<script type="text/plain" id="packed-plotly">[^<]*', "", page)
    found = set(re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s\"']*", outside_plotly))
    assert found == {"http://www.w3.org/2000/svg"} or not found  # a name of XML, not an address
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "connect-src 'none'" in policy[1]
    assert "unsafe-inline" not in policy[1].split("style-src")[0]
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"'](?!data:,)", outside_plotly)


def test_no_string_of_the_ledger_becomes_markup(page: str) -> None:
    assert "<img" not in page
    assert page.count("</script>") == len(re.findall(r"<script[ >]", page))
    assert unescape(page).count(ATTACK) >= 4  # failure, trace, versions, device, description: all are told
    document = json.loads(re.search(r'id="document">([^<]*)</script>', page)[1])  # type: ignore[index]
    assert ATTACK in document["runs"]["signature"][document["runs"]["status"].index("failed")]


@pytest.mark.parametrize("text", ["</script>", "<!--<script>", "&lt;", "\u2028", "a\\u003cb", "\x00", "\ud800"])
def test_json_in_the_page_reads_back_as_it_was_and_cannot_end_its_element(text: str) -> None:
    written = as_json({"text": text, "numbers": [float("nan"), float("inf"), 0.1]})
    assert not set(written) & set("<>&\u2028")
    assert json.loads(written) == {"text": text, "numbers": [None, None, 0.1]}


def test_scripts_are_joined_in_an_order_in_which_every_import_comes_first() -> None:
    assert {f"{name}.js" for name in MODULES} == {
        path.name for path in (Path(sys.modules["orchestrator.report"].__path__[0]) / "static").glob("*.js")
    }
    for place, name in enumerate(MODULES):
        for imported in re.findall(r'from "\./([a-z-]+)\.js"', static(f"{name}.js")):
            assert imported in MODULES[:place], f"{name} imports {imported}"
    script = page_script()
    assert not re.search(r"^(?:import|export) ", script, re.MULTILINE)
    names = re.findall(r"^(?:async )?(?:function|const|let|class) (\w+)", script, re.MULTILINE)
    assert len(names) == len(set(names)), "two modules use one name"


# ---- what it says ----


def test_the_headline_tells_what_was_found_and_what_is_missing(contents: Contents) -> None:
    measured, phases, missing = headline(contents)
    assert measured == "8 of 12 cells measured, over 3 noise rates and 4 widths, from 23 finished runs."
    assert "benign in 4" in phases
    assert "no cell is underfit or catastrophic" in phases
    assert missing == (
        "Missing: 4 cells without a finished run, 4 runs diverged, 3 runs failed and 6 runs not finished."
    )


def test_the_document_has_every_metric_with_its_interval_and_every_run_with_its_status(contents: Contents) -> None:
    document = report_document(contents, COMMANDS)
    assert [metric["id"] for metric in document["metrics"]] == list(METRICS)
    for metric in document["metrics"]:
        for short in ("mean", "low", "high", "n"):
            assert metric[short] == contents.cells[f"{metric['id']}_{short}"].to_list()
    cells, runs = document["cells"], document["runs"]
    statuses = dict(zip(runs["run_id"], runs["status"], strict=True))
    places = dict(zip(runs["run_id"], runs["cell"], strict=True))
    for row in contents.planned.iter_rows(named=True):
        place = places[row["run_id"]]
        assert (cells["noise_rate"][place], cells["width"][place]) == (row["noise_rate"], row["width"])
    counts = {name: list(statuses.values()).count(name) for name in set(statuses.values())}
    assert counts == {"done": 23, "diverged": 4, "failed": 3, "unfinished": 3, "waiting": 3}


def test_a_cell_without_data_has_no_number_in_any_metric(contents: Contents) -> None:
    document = report_document(contents, COMMANDS)
    empty = [place for place, n in enumerate(document["cells"]["n"]) if n == 0]
    assert [document["cells"]["phase"][place] for place in empty] == ["missing", "missing", "missing", "diverged"]
    for metric in document["metrics"]:
        assert [metric["mean"][place] for place in empty] == [None] * 4


def test_axes_that_would_show_the_same_numbers_are_offered_once() -> None:
    table = {"ratio": [0.8, 2.0], "samples": [500, 500], "width": [3, 9]}
    assert [axis["id"] for axis in axes(pl.DataFrame(table), "width")] == ["ratio", "width", "parameters"]
    assert [axis["id"] for axis in axes(pl.DataFrame(table | {"width": [400, 1000]}), "width")] == [
        "ratio",
        "parameters",
    ]
    by_samples = pl.DataFrame({"ratio": [2.0, 1.0], "samples": [500, 1000], "width": [8, 8]})
    assert [axis["id"] for axis in axes(by_samples, "samples")] == ["ratio", "samples"]


def test_failures_stand_by_signature_with_the_last_lines_and_the_command_that_shows_all(page: str) -> None:
    text = unescape(re.sub(r"<[^>]+>", "", page[page.index('data-part="failures"') :]))
    assert f"3 failed: RuntimeError {ATTACK}" in text
    assert "Traceback" in text
    assert "bo-sweep logs s --run " in text


# ---- the curves ----


def test_packed_curves_are_the_ledger_s_rows_as_float32(ledger: Ledger, contents: Contents) -> None:
    ids = contents.plan.filter(pl.col("cell") == 5)["run_id"].to_list()
    rows = curve_rows(contents.snapshot, ids)
    found = unpacked(packed(rows))
    assert sorted(found) == sorted(ids)
    table = ledger.load()
    for run_id in ids:
        of_run = table.filter(pl.col("run_id") == run_id).sort("evaluation")
        for name in SERIES:
            expected = of_run[name].cast(pl.Float32).fill_null(float("nan")).to_list()
            assert found[run_id][name] == pytest.approx(expected, nan_ok=True, rel=0, abs=0)


def test_infinite_time_and_numbers_that_were_not_measured_stay_what_they_are() -> None:
    rows = pl.DataFrame({"run_id": ["a", "a"]} | {name: [1.0, None] for name in SERIES}, strict=False)
    rows = rows.with_columns(epoch=pl.Series([1.0, float("inf")]))
    found = unpacked(packed(rows))["a"]
    assert found["epoch"] == [1.0, float("inf")]
    assert np.isnan(found["memorised"][1])
    assert unpacked(packed(rows.clear())) == {}


def test_thinning_keeps_the_first_the_last_and_the_best_evaluation() -> None:
    errors = [0.9, 0.8, 0.7, 0.1, 0.5, 0.6, 0.6]
    rows = pl.DataFrame({"run_id": "a", "evaluation": range(7), "test_error": errors})
    assert thinned(rows, 1).equals(rows)
    assert thinned(rows, 5)["evaluation"].to_list() == [0, 3, 5, 6]


def test_the_page_carries_the_curves_of_every_run_that_has_rows_also_of_unfinished_ones(
    page: str, contents: Contents
) -> None:
    lines = re.search(r'id="packed-curves">([^<]*)<', page)[1].split("\n")  # type: ignore[index]
    found: dict[str, Any] = {}
    for line in lines:
        place, content = line.split(" ")
        of_cell = unpacked(base64.b64decode(content))
        assert set(of_cell) <= set(contents.plan.filter(pl.col("cell") == int(place))["run_id"])
        found |= of_cell
    points = {run_id: len(series["epoch"]) for run_id, series in found.items()}
    expected = {"done": len(EPOCHS), "diverged": len(EPOCHS), "unfinished": 3}
    assert points == {
        row["run_id"]: expected[row["status"]]
        for row in contents.plan.iter_rows(named=True)
        if row["status"] in expected
    }


def test_a_page_that_would_grow_too_large_thins_its_curves_and_says_what_it_leaves_out(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("curves", "downloads"):
        monkeypatch.setattr(f"orchestrator.report.{module}.MOST_ROWS", 60)
    page = Path(write_report(ledger, COMMANDS, tmp_path / "report.html").location).read_text()
    assert json.loads(re.search(r'id="document">([^<]*)</script>', page)[1])["thinned"] == 3  # type: ignore[index]
    assert 'data-content="curves.parquet"' not in page
    assert "curves.parquet is too large for this page" in page


# ---- the tables ----


def test_the_tables_read_back_as_they_are_and_the_manifest_has_their_digests(
    contents: Contents, ledger: Ledger
) -> None:
    assert read_parquet(make(contents, "cells.parquet").content).equals(contents.cells)
    assert read_parquet(make(contents, "runs.parquet").content).equals(contents.runs)
    assert pl.read_csv(make(contents, "cells.csv").content).height == contents.cells.height
    curves = curve_table(contents)
    assert curves.schema.field("test_error").metadata[b"unit"] == b"fraction in [0, 1]"
    table = ledger.load()
    assert pl.DataFrame(curves)["test_error"].to_list() == table["test_error"].to_list()
    manifest = json.loads(make(contents, "manifest.json").content)
    assert manifest["files"] == {name: make(contents, name).sha256 for name in HOLDS if name != "manifest.json"}
    assert sorted(manifest["runs"]) == ["diverged", "done", "failed", "running", "waiting"]
    with pytest.raises(ValueError, match=r"unknown file 'x'; choose from cells.csv"):
        make(contents, "x")


def test_cells_beside_the_grid_are_told_apart(contents: Contents) -> None:
    beside = contents.cells.with_columns(in_grid=pl.int_range(pl.len()) != 3)
    document = report_document(replace(contents, cells=beside), COMMANDS)
    assert document["cells"]["in_grid"].count(False) == 1


# ---- the command ----


def test_the_command_prints_where_the_file_is_and_what_comes_next(ledger: Ledger, tmp_path: Path) -> None:
    folder = ledger.storage.local_path()
    assert folder is not None
    result = run("report", "sweep", "--storage", folder.parent, "--to", tmp_path / "r.html")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'r.html'}\n"
    assert "4 of 12 cells have no finished run yet; they are hatched." in result.stderr
    assert f"bo-sweep report sweep --storage {folder.parent} --live" in result.stderr
    page = (tmp_path / "r.html").read_text()
    assert f"bo-sweep reproduce sweep --storage {folder.parent}" in page
    document = json.loads(run("report", "sweep", "--storage", folder.parent, "--json").stdout)
    assert document["cells"] == {"total": 12, "empty": 4}
    assert Path(document["file"]).stat().st_size == document["bytes"]


def test_the_command_says_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    make_ledger(tmp_path / "empty", load_space("digits-grid", ["seeds=1", "widths=2"]), lambda run: "unfinished")
    nothing = run("report", "empty", "--storage", tmp_path)
    assert nothing.exit_code == 2
    assert "no finished run yet" in nothing.stderr
    assert "bo-sweep report empty --live" in nothing.stderr
    unknown = run("report", "emtpy", "--storage", tmp_path)
    assert unknown.exit_code == 2
    assert "Sweeps there: empty" in unknown.stderr
    both = run("report", "empty", "--storage", tmp_path, "--live", "--to", tmp_path / "x.html")
    assert both.exit_code == 2
    assert "give one of the two" in both.stderr
    lost = run("report", "empty", "--storage", tmp_path, "--to", tmp_path / "no" / "x.html")
    assert lost.exit_code == 2
    assert "its folder does not exist" in lost.stderr


def test_damaged_parts_are_named_and_nothing_is_written(ledger: Ledger, tmp_path: Path) -> None:
    folder = ledger.storage.local_path()
    assert folder is not None
    shutil.copytree(folder, tmp_path / "sweep", ignore=shutil.ignore_patterns("phase"))
    (part,) = (tmp_path / "sweep" / "rows").iterdir()
    part.write_bytes(part.read_bytes()[:-9])
    result = run("report", "sweep", "--storage", tmp_path)
    assert result.exit_code == 4
    assert part.name in result.stderr
    assert not (tmp_path / "sweep" / "phase").exists()


def test_the_command_imports_neither_torch_nor_ray_nor_matplotlib(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom orchestrator.cli import main\n"
        "try: main(['report', 'nothing'])\nexcept SystemExit: pass\n"
        "import orchestrator.report.page, orchestrator.report.server\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not set(result.stdout.split()) & {"torch", "ray", "matplotlib", "sklearn", "scipy", "plotly"}
