"""The live report: it follows a sweep, writes nothing, and keeps its head when the ledger is not there or damaged."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from orchestrator.cli import main
from orchestrator.lease import Lease, current_claim
from orchestrator.ledger import Ledger
from orchestrator.report.contents import Commands, read_contents
from orchestrator.report.downloads import read_parquet
from orchestrator.report.server import ReportServer
from orchestrator.report.watching import Watch
from search_spaces.catalog import load_space
from search_spaces.runs import Run, expand
from tests.launches import end_of, running
from tests.report_ledger import chromium, make_ledger, write_runs
from tests.test_report import unpacked
from tests.waiting import PATIENCE_SECONDS, wait_for

pytestmark = pytest.mark.xdist_group("report page")
COMMANDS = Commands("bo-sweep reproduce s", "bo-sweep logs s", "bo-sweep launch s --storage /x")
SPACE = load_space("digits-grid", ["widths=[2, 8]", "noise.rates=[0, 0.2]", "seeds=2"])
RUNS = expand(SPACE)


def none_yet(run: Run) -> str:
    return "waiting"


@contextmanager
def served(folder: Path, **options: Any) -> Iterator[ReportServer]:
    with ReportServer(Ledger(folder), COMMANDS, "127.0.0.1", 0, refresh_seconds=0.0, **options) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def get(server: ReportServer, path: str, **headers: str) -> tuple[int, bytes, Any]:
    request = urllib.request.Request(server.url + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def state(server: ReportServer) -> dict[str, Any]:
    status, body, _ = get(server, "state")
    assert status == 200
    found: dict[str, Any] = json.loads(body)
    return found


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


# ---- what is served ----


def test_the_state_counts_as_status_does_and_has_a_tag_that_spares_the_next_answer(tmp_path: Path) -> None:
    make_ledger(tmp_path / "sweep")
    before = files_of(tmp_path)
    with served(tmp_path / "sweep") as server:
        status, body, headers = get(server, "state")
        assert status == 200
        content = json.loads(body)
        assert content["words"] == (
            "23 done, 4 diverged, 3 failed, 0 running, 6 waiting; 75% of 36 runs. Nothing runs now."
        )
        assert content["share"] == 27 / 36
        assert content["problem"] is None
        assert len(body) < 400
        again, empty, _ = get(server, "state", **{"If-None-Match": headers["ETag"]})
        assert (again, empty) == (304, b"")
        document, _, document_headers = get(server, "document")
        assert document == 200
        assert document_headers["ETag"] == f'"{content["document"]}"'
    assert files_of(tmp_path) == before, "the server writes nothing"


def test_document_curves_and_tables_are_those_of_the_file(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "sweep")
    contents = read_contents(ledger)
    with served(tmp_path / "sweep") as server:
        document = json.loads(get(server, "document")[1])["document"]
        by_id = {metric["id"]: metric for metric in document["metrics"]}
        assert by_id["err_last"]["mean"] == contents.cells["err_last_mean"].to_list()
        place = document["cells"]["id"].index("0.4/8/500")
        found = unpacked(get(server, "curves?cell=0.4%2F8%2F500")[1])
        assert sorted(found) == sorted(contents.plan.filter(pl.col("cell") == place)["run_id"])
        assert {len(series["test_error"]) for series in found.values()} == {3}
        assert by_id["err_last"]["mean"][place] is None, "runs that have not finished enter no mean"
        assert get(server, "curves?cell=nowhere")[0] == 404
        assert read_parquet(get(server, "download/cells.parquet")[1]).equals(contents.cells)
        assert get(server, "download/..%2Fsweep.json")[0] == 404
        page = get(server, "")
        assert page[0] == 200
        assert "connect-src 'self'" in page[1].decode()


def test_runs_in_training_are_called_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.lease.BEAT_SECONDS", 0.02)
    ledger = make_ledger(tmp_path / "sweep", SPACE, lambda run: "unfinished" if run.width == 8 else "done")
    training = [run.run_id for run in RUNS if run.width == 8][:3]
    pack = {"run_ids": training, "host": "h", "share_done": 0.5, "images_per_second": 10.0, "gpu_use": None}
    with (
        Lease(ledger.storage, lambda: {"workers": 2, "running": [pack]}, lambda: None),
        served(tmp_path / "sweep") as server,
    ):
        wait_for(lambda: (claim := current_claim(ledger.storage)) and claim.progress)
        assert state(server)["words"].startswith("4 done, 0 diverged, 0 failed, 3 running, 1 waiting; 50% of 8 runs. ")
        assert "Running on 2 workers" in state(server)["words"]
        runs = json.loads(get(server, "document")[1])["document"]["runs"]
        assert {run_id for run_id, word in zip(runs["run_id"], runs["status"], strict=True) if word == "running"} == {
            *training
        }
        assert runs["status"].count("unfinished") == 1


def test_the_ledger_is_read_again_only_when_it_has_changed_and_not_too_often(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "sweep", SPACE, none_yet)
    eager = Watch(ledger, COMMANDS, refresh_seconds=0.0)
    patient = Watch(ledger, COMMANDS, refresh_seconds=3600.0)
    first = {watch: watch.state().body for watch in (eager, patient)}
    eager._due = 0.0
    assert eager.state().body == first[eager]
    assert (eager.readings, patient.readings) == (1, 1)
    write_runs(ledger, RUNS, lambda run: "done")
    eager._due = 0.0
    assert json.loads(eager.state().body)["share"] == 1.0
    assert "The sweep has ended." in json.loads(eager.state().body)["words"]
    assert patient.state().body == first[patient]
    assert (eager.readings, patient.readings) == (2, 1)


def test_curves_are_found_again_after_the_ledger_was_compacted(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "sweep")
    watch = Watch(ledger, COMMANDS, refresh_seconds=3600.0)
    assert CliRunner().invoke(main, ["compact", "sweep", "--storage", str(tmp_path)]).exit_code == 0
    watch.state()
    before = watch.curves("0.2/8/500")
    for part in (tmp_path / "sweep" / "rows").glob("settled-*"):  # as the next compaction would
        shutil.copy(part, tmp_path / "kept")
        part.unlink()
        digest = part.name.split(".")[1]
        shutil.move(tmp_path / "kept", part.with_name(f"settled-again.{digest}.parquet"))
    assert watch.curves("0.2/8/500") == before


# ---- what can go wrong ----


def test_it_waits_for_a_sweep_that_is_not_there_yet_and_sees_it_come(tmp_path: Path) -> None:
    with served(tmp_path / "sweep") as server:
        waiting = state(server)
        assert "there is no sweep sweep" in waiting["words"]
        assert "bo-sweep launch s --storage /x" in waiting["words"]
        assert waiting["document"] is None
        assert get(server, "document")[0] == 404
        assert get(server, "download/cells.csv")[0] == 404
        make_ledger(tmp_path / "sweep", SPACE, none_yet)
        server.watch._due = 0.0
        assert state(server)["words"].startswith("0 done")
        cells = json.loads(get(server, "document")[1])["document"]["cells"]
        assert cells["phase"] == ["missing"] * 4


def test_a_damaged_part_is_named_and_the_last_sound_page_stays(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "sweep", SPACE, lambda run: "done")
    with served(tmp_path / "sweep") as server:
        sound = state(server)
        (part,) = (tmp_path / "sweep" / "rows").iterdir()
        content = part.read_bytes()
        part.write_bytes(content[:-5])
        server.watch._due = 0.0
        damaged = state(server)
        assert part.name in damaged["problem"]
        assert damaged["document"] == sound["document"]
        assert get(server, "document")[0] == 200
        part.write_bytes(content)
        server.watch._due = 0.0
        assert state(server)["problem"] is None
        assert ledger.exists()


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::2]", ""])
def test_a_request_that_names_another_host_gets_nothing(tmp_path: Path, host: str) -> None:
    with served(tmp_path / "sweep") as server:
        for path in ("", "state", "document", "download/cells.csv"):
            status, body, _ = get(server, path, Host=host)
            assert status == 421
            assert b"sweep" not in body
        assert get(server, "state", Host=f"LocalHost:{server.server_address[1]}")[0] == 200


def test_a_port_in_use_is_a_clear_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(main, ["report", "s", "--storage", str(tmp_path), "--live", "--port", port])
    assert result.exit_code == 4
    assert f"port {port} on 127.0.0.1 is taken: choose another with --port" in result.stderr


def test_the_command_serves_until_ctrl_c_and_ends_with_zero(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "orchestrator.cli", "report", "s", "--storage", str(tmp_path), "--live", "--json"]
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with running(command, environment) as process:
        assert process.stdout is not None
        printed = ""
        while not printed.endswith("}\n"):
            assert process.poll() is None, process.communicate()
            printed += process.stdout.readline()
        url = json.loads(printed)["url"]
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{url}state", timeout=PATIENCE_SECONDS) as answer:
            assert "Waiting" in json.loads(answer.read())["words"]
        process.send_signal(signal.SIGINT)
        errors = end_of(process)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert f"bo-sweep report s --storage {tmp_path}" in errors


# ---- in a browser ----


def test_the_page_follows_the_sweep_and_keeps_selection_scroll_and_focus(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    with chromium() as browser, served(folder) as server:
        page = browser.new_page(viewport={"width": 1000, "height": 500})
        page.set_default_timeout(1000 * PATIENCE_SECONDS)
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(server.url)
        page.locator("#live-state").get_by_text("Waiting: there is no sweep").wait_for()
        assert not page.locator("#map").is_visible()

        ledger = make_ledger(folder, SPACE, lambda run: "unfinished" if run.width == 8 else "waiting")
        page.locator('[data-cell="0.2/8/500"]').click()
        page.locator('#curves[data-drawn="0.2/8/500"]').wait_for()
        lengths = (
            "() => document.getElementById('curves').data.filter((t) => t.mode === 'lines').map((t) => t.y.length)"
        )
        assert page.evaluate(lengths) == [3, 3, 3, 3]
        assert page.locator('[data-cell="0.2/8/500"]').inner_text() == "no data"

        page.evaluate("() => window.scrollTo(0, 140)")
        write_runs(ledger, RUNS, lambda run: "done" if run.width == 8 else "failed", "later")
        page.locator("#live-state").get_by_text("4 done, 0 diverged, 4 failed").wait_for()
        page.locator('[data-cell="0.2/8/500"]').get_by_text("n=2").wait_for()
        page.locator("#runs").get_by_text("done").first.wait_for()
        assert page.locator('[data-cell="0.2/8/500"]').get_attribute("aria-selected") == "true"
        assert page.evaluate("() => document.activeElement.dataset.cell") == "0.2/8/500"
        assert page.evaluate("() => window.scrollY") == 140
        page.locator("#curves-note").get_by_text("2 runs").wait_for()
        page.wait_for_function(f"() => JSON.stringify(({lengths})()) === '[6,6,6,6]'")  # drawn a moment later
        assert "4 failed" in page.locator("[data-part=failures]").inner_text()
        assert [text for text in said if "404" not in text] == []
        page.close()
