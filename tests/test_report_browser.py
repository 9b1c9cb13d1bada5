"""The report in a real browser: what is drawn is what was measured, and all of it can be reached without a mouse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgb

from orchestrator.figures.page import ratio_edges
from orchestrator.ledger import Ledger
from orchestrator.report.assembly import assemble
from orchestrator.report.contents import Commands, Contents, read_contents
from orchestrator.report.document import report_document
from orchestrator.report.downloads import curve_table, read_parquet
from orchestrator.report.page import write_report
from orchestrator.report.sections import sections
from tests.report_ledger import chromium, make_ledger
from tests.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.xdist_group("report page")
COMMANDS = Commands("bo-sweep reproduce s --storage /x", "bo-sweep logs s", "bo-sweep launch s")
DESK: Any = {"width": 1280, "height": 900}
PHONE: Any = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return make_ledger(tmp_path_factory.mktemp("sweeps") / "sweep")


@pytest.fixture(scope="module")
def contents(ledger: Ledger) -> Contents:
    return read_contents(ledger)


@pytest.fixture(scope="module")
def address(ledger: Ledger, tmp_path_factory: pytest.TempPathFactory) -> str:
    to = tmp_path_factory.mktemp("pages") / "report.html"
    write_report(ledger, COMMANDS, to)
    return to.as_uri()


class Opened:
    """A page, and whatever it said or asked for."""

    def __init__(self, browser: Browser, address: str, **options: Any) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page: Page = browser.new_page(offline=True, **options)
        self.page.set_default_timeout(1000 * PATIENCE_SECONDS)
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)
        self.page.locator("#map [role=gridcell]").first.wait_for()

    def cell(self, rate: float, width: int) -> Any:
        return self.page.locator(f'[data-cell="{rate!r}/{width}/500"]')

    def readout(self) -> str:
        return self.page.locator("#readout").inner_text()

    def drawn(self, rate: float, width: int) -> list[dict[str, Any]]:
        """The traces of the figure, once it is that cell's."""
        self.page.locator(f'#curves[data-drawn="{rate!r}/{width}/500"]').wait_for()
        traces: list[dict[str, Any]] = json.loads(
            self.page.evaluate(
                "() => JSON.stringify(document.getElementById('curves').data.map("
                "({name, x, y, mode}) => ({name, mode, x: Array.from(x), y: Array.from(y)})))"
            )
        )
        return traces


@pytest.fixture(scope="module")
def shared(browser: Browser, address: str) -> Iterator[Opened]:
    """One page for all tests but one: opening it and unpacking Plotly takes seconds. It is opened without a network."""
    opened = Opened(browser, f"{address}#cell=0.2%2F8%2F500", viewport=DESK)
    yield opened
    opened.page.close()


def rgb(text: str) -> tuple[float, ...]:
    return tuple(float(part) / 255 for part in text[text.index("(") + 1 : -1].split(",")[:3])


def style(node: Any, name: str) -> str:
    return str(node.evaluate(f"node => getComputedStyle(node)['{name}']"))


def press(opened: Opened, group: str, name: str) -> None:
    opened.page.locator(group).get_by_role("radio", name=name, exact=True).check()


def choose(page: Page, metric: str) -> None:
    page.select_option("#metric", metric)


def test_an_address_with_a_cell_opens_at_that_cell(shared: Opened) -> None:
    assert len(shared.drawn(0.2, 8)) == 9
    assert shared.page.locator("#cell-title").inner_text() == "Curves and runs at noise rate 0.2, p/n 10.2"
    assert shared.page.title() == "sweep: phase diagram"


# ---- colour only where there is data ----


@pytest.mark.parametrize("metric", ["err_last", "memorised", "gap_err"])
def test_measured_cells_have_the_colour_of_the_printed_figures_and_all_others_are_hatched(
    shared: Opened, contents: Contents, metric: str
) -> None:
    choose(shared.page, metric)
    known = contents.cells[f"{metric}_mean"].drop_nulls().to_list()
    low, high = min([0.0, *known]), max([0.01, *known])
    for row in contents.cells.iter_rows(named=True):
        node, value = shared.cell(row["noise_rate"], row["width"]), row[f"{metric}_mean"]
        colour, image = style(node, "backgroundColor"), style(node, "backgroundImage")
        if value is None:
            assert "repeating-linear-gradient" in image
            assert colour == "rgba(0, 0, 0, 0)"
            kind = "diverged" if row["phase"] == "diverged" else "no data"
            assert kind in node.text_content()
        else:
            assert image == "none"
            expected = to_rgb(colormaps["cividis"]((value - low) / (high - low)))
            assert rgb(colour) == pytest.approx(expected, abs=2.5 / 255)


def test_phases_are_told_by_letter_and_colour(shared: Opened, contents: Contents) -> None:
    choose(shared.page, "phase")
    letters = {"benign": "B", "tempered": "T", "underfit": "U", "catastrophic": "C", "undecided": "?"}
    for row in contents.cells.filter(pl.col("n") > 0).iter_rows(named=True):
        text = shared.cell(row["noise_rate"], row["width"]).inner_text()
        assert text.startswith(letters[row["phase"]])
        assert ("†" in text) == (row["n_diverged"] > 0)
    assert "benign (4)" in shared.page.locator("#legend").inner_text()


def test_cells_lie_where_the_axis_says_with_edges_midway_between_neighbours(shared: Opened, contents: Contents) -> None:
    lane = shared.page.locator(".lane").first.bounding_box()
    assert lane is not None
    for label, column in (("p/n", "ratio"), ("width", "width"), ("p", "ratio")):
        press(shared, "#axis", label)
        table = contents.cells.select({"width", column}).unique().sort(column)
        edges = ratio_edges(table[column].to_numpy().astype(float))
        for i, width in enumerate(table["width"]):
            share = [(edge - edges[0]) / (edges[-1] - edges[0]) for edge in (edges[i], edges[i + 1])]
            place = shared.cell(0.2, width).evaluate("({style}) => [style.left, style.width].map(parseFloat)")
            assert place == pytest.approx([100 * share[0], 100 * (share[1] - share[0])], abs=0.01)
    press(shared, "#axis", "p/n")


# ---- the numbers of a cell ----


def test_pointing_at_a_cell_shows_its_mean_interval_seeds_phase_and_runs(shared: Opened, contents: Contents) -> None:
    choose(shared.page, "err_last")
    shared.cell(0.2, 8).hover()
    row = contents.cells.filter(pl.col("noise_rate") == 0.2, pl.col("width") == 8).row(0, named=True)
    text = shared.readout()
    for number in ("err_last_mean", "err_last_low", "err_last_high"):
        assert f"{row[number]:.3f}".replace("-", "\N{MINUS SIGN}") in text
    assert "3 seeds" in text
    assert "T tempered 100\N{NO-BREAK SPACE}%" in text
    for run_id in contents.plan.filter(pl.col("cell") == 6)["run_id"]:
        assert run_id in text
    shared.cell(0.4, 32).hover()
    assert "diverged" in shared.readout()
    shared.cell(0.4, 8).hover()
    assert "3 not finished of 3 planned runs" in shared.readout()
    shared.page.mouse.move(0, 0)


def test_a_selected_cell_shows_the_curve_of_every_seed_exactly_and_marks_the_best(
    shared: Opened, ledger: Ledger, contents: Contents
) -> None:
    shared.cell(0.2, 8).click()
    traces = shared.drawn(0.2, 8)
    table = ledger.load()
    runs = contents.plan.filter(pl.col("cell") == 6)
    assert len(traces) == 9
    for run_id, seed in runs.select("run_id", "seed").iter_rows():
        rows = table.filter(pl.col("run_id") == run_id)
        by_name = {trace["name"]: trace for trace in traces}
        test, train = by_name[f"test error, seed {seed}"], by_name[f"train error, given labels, seed {seed}"]
        assert test["x"] == pytest.approx(rows["epoch"].to_list(), rel=1e-6)
        assert test["y"] == pytest.approx(rows["test_error"].to_list(), rel=1e-6)
        assert train["y"] == pytest.approx(rows["train_error_given"].to_list(), rel=1e-6, abs=1e-9)
        best = by_name[f"lowest test error, seed {seed}"]
        assert best["y"] == pytest.approx([rows["test_error"].min()], rel=1e-6)
    press(shared, "#view", "Corrupted labels")
    shared.page.locator("#curves-note").get_by_text("Memorised").wait_for()
    assert {trace["name"].split(",")[0] for trace in shared.drawn(0.2, 8)} == {"memorised", "recovered"}
    press(shared, "#view", "Errors")


def test_curves_of_unfinished_runs_are_drawn_so_far_and_said_to_be_unfinished(shared: Opened) -> None:
    shared.cell(0.4, 8).click()
    traces = [trace for trace in shared.drawn(0.4, 8) if trace["name"].startswith("test error")]
    assert [len(trace["y"]) for trace in traces] == [3, 3, 3]
    assert all(trace["name"].endswith("(unfinished)") for trace in traces)
    assert "they enter no mean" in shared.page.locator("#curves-note").inner_text()
    shared.cell(0.4, 4).click()
    assert shared.drawn(0.4, 4) == []
    assert "No run of this cell has an evaluation yet" in shared.page.locator("#curves-note").inner_text()


def test_runs_are_listed_with_status_and_the_command_that_tells_their_origin(
    shared: Opened, contents: Contents
) -> None:
    shared.cell(0.2, 32).click()
    lines = shared.page.locator("#runs tbody tr").all_inner_texts()
    assert ["diverged" in line for line in lines] == [False, False, True]
    assert all("13 s" in line for line in lines)
    run_id = contents.plan.filter(pl.col("cell") == 7)["run_id"][0]
    shared.page.get_by_label(f"Copy the command of run {run_id}").click()
    shared.page.locator("#announcer").get_by_text("Copied").wait_for()
    assert f"bo-sweep reproduce s --storage /x {run_id}" in lines[0]


# ---- without a mouse, and by ear ----


def test_the_map_is_one_tab_stop_and_arrows_home_end_and_enter_do_the_rest(shared: Opened) -> None:
    opened, page = shared, shared.page
    opened.cell(0.4, 2).focus()
    page.locator("#lines").focus()
    page.keyboard.press("Tab")
    focused = "() => document.activeElement.dataset.cell"
    assert page.evaluate(focused) == "0.4/2/500"
    steps = [
        ("ArrowRight", "0.4/4/500"),
        ("ArrowDown", "0.2/4/500"),
        ("End", "0.2/32/500"),
        ("ArrowRight", "0.2/32/500"),
    ]
    steps += [("ArrowDown", "0.0/32/500"), ("ArrowDown", "0.0/32/500"), ("Home", "0.0/2/500"), ("ArrowUp", "0.2/2/500")]
    steps += [("Control+End", "0.0/32/500"), ("Control+Home", "0.4/2/500"), ("ArrowDown", "0.2/2/500")]
    for key, expected in steps:
        page.keyboard.press(key)
        assert page.evaluate(focused) == expected, key
    assert "Noise rate 0.2, p/n 0.8" in opened.readout()
    assert style(opened.cell(0.2, 2), "outlineStyle") == "solid"
    page.keyboard.press("Enter")
    opened.drawn(0.2, 2)
    assert opened.cell(0.2, 2).get_attribute("aria-selected") == "true"
    assert page.locator('[aria-selected="true"]').count() == 1
    assert page.locator("#announcer").inner_text().startswith("Selected: noise rate 0.2, p/n 0.8, 3 runs")
    assert page.evaluate(focused) == "0.2/2/500"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "0.2/2/500", "the map remembers where one was"


def test_every_cell_says_its_numbers_to_a_screen_reader(shared: Opened, contents: Contents) -> None:
    choose(shared.page, "err_last")
    grid = shared.page.get_by_role("grid")
    assert grid.get_attribute("aria-label") == "final test error by noise rate and p/n"
    assert grid.get_by_role("gridcell").count() == contents.cells.height
    assert grid.get_by_role("rowheader").count() == 3
    row = contents.cells.filter(pl.col("noise_rate") == 0.2, pl.col("width") == 8).row(0, named=True)
    label = shared.cell(0.2, 8).get_attribute("aria-label")
    assert label == (
        f"noise rate 0.2, p/n 10.2, width 8, n 500: final test error {row['err_last_mean']:.3f}, 95 % interval "
        f"{row['err_last_low']:.3f} to {row['err_last_high']:.3f}, n = 3; "
        "phase tempered (tempered 100\N{NO-BREAK SPACE}%)"
    )
    missing = shared.cell(0.4, 2).get_attribute("aria-label")
    assert missing == "noise rate 0.4, p/n 0.8, width 2, n 500: no data: 3 failed of 3 planned runs"


CONTRASTS = """() => {
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const found = getComputedStyle(at).backgroundColor;
      const [, , , alpha] = numbers(found);
      if (alpha === undefined || alpha === 1) return numbers(found);
    }
  };
  const found = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || ['SCRIPT', 'NOSCRIPT', 'OPTION'].includes(node.tagName) || node.closest('svg, .crowded')) continue;
    if (!node.getClientRects().length) continue;
    const [a, b] = [light(numbers(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), node.textContent.trim().slice(0, 60)]);
  }
  return found;
}"""


def test_all_text_can_be_read_in_either_scheme_and_the_button_changes_it(shared: Opened) -> None:
    page, backgrounds = shared.page, []
    shared.cell(0.2, 8).click()
    shared.drawn(0.2, 8)
    for scheme in ("dark", "light", "button"):
        if scheme == "button":
            page.locator("#theme").click()
        else:
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        for metric in ("phase", "err_last"):
            choose(page, metric)
            contrasts = page.evaluate(CONTRASTS)
            assert len(contrasts) > 60
            assert [pair for pair in contrasts if pair[0] < 4.5] == []
        backgrounds.append(sum(rgb(style(page.locator("html"), "backgroundColor"))))
    dark, light, button = backgrounds
    assert dark == button < light
    page.locator("#theme").click()


def test_nothing_moves_for_readers_who_asked_for_that(shared: Opened) -> None:
    shared.page.emulate_media(reduced_motion="no-preference")
    assert "0.25s" in style(shared.cell(0.2, 8), "transitionDuration")
    shared.page.emulate_media(reduced_motion="reduce")
    assert style(shared.cell(0.2, 8), "transitionDuration") == "0s"


# ---- anywhere ----


def test_a_message_that_attacks_the_page_is_shown_as_it_was_written(shared: Opened) -> None:
    shared.page.locator("[data-part=failures] summary").click()
    assert "</script><img src=x onerror" in shared.page.locator("[data-part=failures] pre").inner_text()
    assert shared.page.locator("img").count() == 0
    assert shared.page.title() == "sweep: phase diagram"


def test_a_script_that_slipped_in_could_not_run(shared: Opened) -> None:
    before = len(shared.said)
    shared.page.evaluate(
        "() => { document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.owned=1\">') }"
    )
    while not any("Content Security Policy" in text for text in shared.said[before:]):
        shared.page.wait_for_event("console")
    assert shared.page.evaluate("() => window.owned === undefined")
    shared.page.evaluate("() => document.querySelector('img').remove()")


def test_it_fits_a_phone_and_a_sheet_of_paper(shared: Opened) -> None:
    page = shared.page
    page.set_viewport_size(PHONE)
    shared.cell(0.2, 4).click()
    shared.drawn(0.2, 4)
    assert page.evaluate("() => document.documentElement.scrollWidth") == PHONE["width"]
    for place in ("#map", "#readout", "#curves", "#legend", "#metric"):
        box = page.locator(place).bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["width"]
    page.emulate_media(media="print")
    assert not page.locator(".controls").is_visible()
    assert page.locator("#map").is_visible()
    page.emulate_media(media="screen")
    page.set_viewport_size(DESK)


def test_the_tables_come_out_of_the_page_as_they_were_put_in(
    shared: Opened, contents: Contents, tmp_path: Path
) -> None:
    for name in ("cells.parquet", "runs.parquet", "curves.parquet", "cells.csv", "runs.csv", "manifest.json"):
        with shared.page.expect_download() as waiting:
            shared.page.locator(f'a[download="{name}"]').click()
        assert waiting.value.suggested_filename == name
        waiting.value.save_as(tmp_path / name)
    assert read_parquet((tmp_path / "cells.parquet").read_bytes()).equals(contents.cells)
    assert read_parquet((tmp_path / "runs.parquet").read_bytes()).equals(contents.runs)
    assert read_parquet((tmp_path / "curves.parquet").read_bytes()).equals(pl.DataFrame(curve_table(contents)))
    assert (tmp_path / "cells.csv").read_text() == contents.cells.write_csv()
    assert json.loads((tmp_path / "manifest.json").read_text())["sweep"] == "sweep"


def test_cells_beside_the_grid_are_marks_at_their_true_place(
    browser: Browser, contents: Contents, tmp_path: Path
) -> None:
    off = (pl.col("noise_rate") == 0.2) & (pl.col("width") == 8)
    cells = contents.cells.with_columns(
        in_grid=~off,
        noise_rate=pl.when(off).then(0.3).otherwise("noise_rate"),
        ratio=pl.when(off).then(5.0).otherwise("ratio"),
    )
    changed = replace(contents, cells=cells)
    document = report_document(changed, COMMANDS) | {"thinned": 1}
    to = tmp_path / "report.html"
    to.write_bytes(assemble("t", document, sections(changed, COMMANDS)))
    opened = Opened(browser, to.as_uri())
    assert opened.page.locator("#map [role=gridcell]").count() == 11
    mark = opened.page.locator(".mark")
    assert mark.count() == 1
    assert "noise rate 0.3, p/n 5" in str(mark.get_attribute("aria-label"))
    place = mark.evaluate("({style}) => [style.left, style.top].map(parseFloat)")
    edges = ratio_edges(cells.filter("in_grid")["ratio"].unique().sort().to_numpy())
    across = (pl.Series([5.0]).log10()[0] - edges[0]) / (edges[-1] - edges[0])
    assert place == pytest.approx([100 * across, 100 * (3 - 0.5 - 1.5) / 3], abs=0.05)
    mark.click()
    assert "beside the grid" in opened.readout()
    assert mark.get_attribute("aria-pressed") == "true"
    opened.page.close()


def test_the_page_said_nothing_and_asked_for_nothing_all_the_while(shared: Opened, address: str) -> None:
    assert [text for text in shared.said if "Content Security Policy" not in text] == []
    assert [url for url in shared.asked if not url.startswith(("data:", "blob:")) and not url.endswith("/x")] == [
        address
    ]
