"""A sweep on its way to W&B's files: everything once, with the right values, however often the publisher is killed."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from orchestrator.cli import main
from orchestrator.commands.launch_here import Publishing
from orchestrator.launch_plan import LaunchOptions
from orchestrator.lease import Lease
from orchestrator.ledger import Ledger
from orchestrator.phase_diagram import planned_cells, planned_runs, run_metrics
from orchestrator.publishing.background import BackgroundPublisher, start_publisher
from orchestrator.publishing.columns import (
    CELL_CONFIG,
    CELL_HISTORY,
    HYPERPARAMETERS,
    RUN_CONFIG,
    RUN_HISTORY,
    RUN_SUMMARY,
    TABLES,
)
from orchestrator.publishing.durable import DurableRows
from orchestrator.publishing.folder import Folder
from orchestrator.publishing.offline_log import rows_in, rows_once_written
from orchestrator.publishing.outcome import Outcome
from orchestrator.publishing.publisher import Options, Publisher
from orchestrator.publishing.reading import read
from orchestrator.publishing.run_items import live_items
from orchestrator.publishing.stopping import Stopping
from orchestrator.publishing.target import Target
from orchestrator.sink import Sink
from orchestrator.storage import StorageError
from search_spaces.catalog import load_space
from search_spaces.runs import expand
from tests.report_ledger import EPOCHS, end_of, make_ledger, rows_of, write_runs
from tests.waiting import PATIENCE_SECONDS, wait_for
from tests.wandb_files import OfflineRun, read_all_offline

KEY = "c0ffee0123456789abcdef0123456789abcdef01"
SPACE = ("widths=[2, 4]", "noise.rates=[0, 0.4]", "seeds=3")
"""Twelve runs in four cells."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Of the machine's own W&B nothing reaches a test; nothing is left in the working folder."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name, value in {"HOME": tmp_path / "home", "NETRC": tmp_path / "netrc"}.items():
        monkeypatch.setenv(name, str(value))
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home" / name))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield
    assert not list((tmp_path / "work").iterdir())


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all the rest of a small sweep."""
    monkeypatch.setattr("orchestrator.publishing.summary_item._draw", lambda *_: {})


def small_ledger(folder: Path, fate: Any = lambda run: "done") -> Ledger:
    return make_ledger(folder, load_space("digits-grid", SPACE), fate)


def publish(ledger: Ledger, folder: Path, target: Target | None = None, **options: Any) -> Outcome:
    """Publish in this process (W&B itself is called in another one)."""
    lines: list[str] = []
    publisher = Publisher(ledger, target or Target(), Folder(folder), Options(**options), lines.append, Stopping())
    return publisher.run()


def by_id(folder: Path) -> dict[str, OfflineRun]:
    """What is in the files; no W&B run is there twice."""
    found = read_all_offline(folder)
    assert len({run.id for run in found}) == len(found)
    return {run.id: run for run in found}


def listing(folder: Path) -> dict[str, str]:
    """All files with their content."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def told(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the ledger as a history holds it: without what is null, numbers by their value."""
    return {name: value for name, value in row.items() if name in RUN_HISTORY and value is not None}


def assert_all_there(ledger: Ledger, published: Mapping[str, OfflineRun]) -> None:
    """Every evaluation of every run once, in order, with its values and its step."""
    rows = ledger.load()
    for run_id in ledger.ends()["run_id"].to_list():
        expected = rows.filter(pl.col("run_id") == run_id).to_dicts()
        assert published[run_id].rows == [told(row) for row in expected]
        assert published[run_id].steps == [row["evaluation"] for row in expected]


@pytest.mark.usefixtures("no_figures")
class TestRuns:
    def test_every_evaluation_is_there_with_the_whole_config(self, tmp_path: Path) -> None:
        ledger = small_ledger(tmp_path / "sweep", lambda run: "failed" if run.width == 4 and run.seed == 2 else "done")

        outcome = publish(ledger, tmp_path / "out", Target(project="noise", tags=("paper",)))

        assert (outcome.connection, outcome.mode, outcome.written["run"], outcome.written["summary"]) == (
            "offline",
            "runs",
            12,
            1,
        )
        published = by_id(tmp_path / "out")
        assert_all_there(ledger, published)
        scores, ends = run_metrics(ledger)
        score = {row["run_id"]: row for row in scores.iter_rows(named=True)}
        hyperparameters = {row["run_id"]: row for row in ledger.runs().iter_rows(named=True)}
        status = dict(zip(ends["run_id"].to_list(), ends["status"].to_list(), strict=True))
        for run in expand(ledger.manifest().space):
            found = published[run.run_id]
            assert found.name == f"noise {run.noise.rate:g}, width {run.width}, seed {run.seed}"
            assert (found.project, found.job_type, found.tags) == ("noise", "run", ("sweep", "paper"))
            assert found.group == found.config["cell"] == f"noise {run.noise.rate:g}, width {run.width}, n 500"
            assert found.step_metrics == {"epoch": "", "*": "epoch"}
            values = hyperparameters[run.run_id]
            assert {name: found.config.get(name) for name in HYPERPARAMETERS} == {
                name: values[name] for name in HYPERPARAMETERS
            }
            assert found.config["noise_rate_realised"] == run.noise.rate
            assert found.config["ratio"] == run.parameters / run.samples
            assert found.config["recipe.learning_rate"] == 0.003
            assert {name for name in found.config if not name.startswith(("recipe.", "_"))} <= {*RUN_CONFIG, "error"}
            assert found.summary["status"] == status[run.run_id]
            if status[run.run_id] == "failed":
                assert found.summary["signature"] == end_of(run, "failed")["signature"]
                assert (found.rows, found.exit_code) == ([], 1)
            else:
                assert found.exit_code == 0
                assert set(found.summary) >= {"seconds", "final/err_last", "final/gap_err", "final/epoch_best"}
                assert found.summary["final/err_last"] == score[run.run_id]["err_last"]
                assert found.summary["evaluations"] == len(EPOCHS)
                own = {name for name in found.summary if not name.startswith("_") and name not in RUN_HISTORY}
                assert own <= set(RUN_SUMMARY)

    def test_values_that_are_not_finite_stay_what_they_are(self, tmp_path: Path) -> None:
        ledger = small_ledger(tmp_path / "sweep", lambda run: "waiting")
        run = expand(ledger.manifest().space)[0]
        rows = rows_of(run)
        rows[3]["train_loss_given"], rows[5]["epoch"], rows[5]["test_loss"] = math.nan, math.inf, math.inf
        ledger.write_rows("one", rows)
        ledger.write_ends("one", [end_of(run, "done")])

        publish(ledger, tmp_path / "out", mode="runs")

        found = by_id(tmp_path / "out")[run.run_id]
        assert math.isnan(float(found.rows[3]["train_loss_given"]))
        assert float(found.rows[5]["epoch"]) == math.inf
        assert float(found.rows[5]["test_loss"]) == math.inf

    def test_publishing_twice_changes_no_byte(self, tmp_path: Path) -> None:
        ledger = small_ledger(tmp_path / "sweep")
        before = listing(tmp_path / "sweep")
        publish(ledger, tmp_path / "out")
        first = listing(tmp_path / "out")

        outcome = publish(ledger, tmp_path / "out")

        assert not outcome.written
        assert (outcome.there["run"], outcome.there["summary"]) == (12, 1)
        assert {name: at for name, at in listing(tmp_path / "out").items() if name != ".lock"} == {
            name: at for name, at in first.items() if name != ".lock"
        }
        assert listing(tmp_path / "sweep") == before  # reading a ledger leaves no trace in it

    def test_a_failed_run_that_is_tried_again_is_replaced_and_what_was_synced_stays(self, tmp_path: Path) -> None:
        ledger = small_ledger(tmp_path / "sweep", lambda run: "failed" if run.width == 4 else "done")
        failed = [run for run in expand(ledger.manifest().space) if run.width == 4]
        publish(ledger, tmp_path / "out")
        synced, *others = failed
        (path,) = (each.folder for each in read_all_offline(tmp_path / "out") if each.id == synced.run_id)
        (path / f"run-{synced.run_id}.wandb.synced").touch()

        again = [row | {"attempt": 2} for run in failed for row in rows_of(run)]
        ledger.write_rows("again", again)
        ledger.write_ends("again", [end_of(run, "done") | {"attempt": 2} for run in failed])
        publish(ledger, tmp_path / "out")

        published = by_id(tmp_path / "out")
        assert published[synced.run_id].summary["status"] == "failed"
        assert published[f"{synced.run_id}-2"].summary["status"] == "done"
        for run in others:
            assert published[run.run_id].summary["status"] == "done"
            assert published[run.run_id].rows == [told(row | {"attempt": 2}) for row in rows_of(run)]
        assert len(published) == 12 + 1 + 1

    def test_of_a_run_in_training_only_what_a_checkpoint_covers_is_shown(self, tmp_path: Path) -> None:
        """A worker's real sink: rows, a checkpoint, more rows, and then it is killed."""
        ledger = small_ledger(tmp_path / "sweep", lambda run: "waiting")
        run = expand(ledger.manifest().space)[0]
        durable = DurableRows(ledger)

        def shown() -> list[int]:
            items = list(live_items(read(ledger), durable.counts(), Target()))
            return [step for item in items for step, _ in item.rows]

        sink = Sink(ledger, 1, "worker")
        sink.add(rows_of(run)[:2], [], 1_000_000)
        sink.flush()
        assert shown() == []
        sink.add(rows_of(run)[2:3], [], 1_000_000)
        sink.flush()
        sink.log("checkpointed", "", run_id=run.run_id, attempt=1_000_000)
        sink.add(rows_of(run)[3:5], [], 1_000_000)
        sink.flush()
        assert shown() == [0, 1, 2]

        resumed = Sink(ledger, 2, "worker")
        resumed.add(rows_of(run)[3:4], [], 2_000_000)
        resumed.flush()
        assert shown() == [0, 1, 2]

        anew = Sink(ledger, 3, "worker")  # its checkpoint was refused
        anew.add(rows_of(run)[:1], [], 3_000_000)
        anew.flush()
        assert shown() == []


@pytest.mark.usefixtures("no_figures")
class TestCells:
    def test_means_and_intervals_are_those_of_the_analysis(self, tmp_path: Path) -> None:
        from orchestrator.analysis.curves import mean_curves, read_curves

        ledger = small_ledger(tmp_path / "sweep", lambda run: "waiting" if (run.width, run.seed) == (4, 0) else "done")

        outcome = publish(ledger, tmp_path / "out", mode="cells")

        assert (outcome.written["cell"], outcome.unfinished) == (2, 2)  # width 4 has seeds left
        cells = {each.config["cell"]: each for each in read_all_offline(tmp_path / "out") if each.job_type == "cell"}
        scores, ends = run_metrics(ledger)
        space = ledger.manifest().space
        table = planned_cells(space, scores, planned_runs(space, ends, scores)).filter(pl.col("width") == 2)
        metrics = ("test_error", "train_error_given", "memorised", "val_loss")
        means = mean_curves(read_curves(ledger, scores, metrics), metrics).filter(pl.col("width") == 2)
        for cell in table.iter_rows(named=True):
            found = cells[f"noise {cell['noise_rate']:g}, width 2, n 500"]
            assert found.config["seeds"] == [0, 1, 2]
            assert {name for name in found.config if not name.startswith(("recipe.", "_"))} <= set(CELL_CONFIG)
            assert found.summary["final/err_last_mean"] == cell["err_last_mean"]
            assert found.summary["final/err_last_high"] == cell["err_last_high"]
            curves = means.filter(pl.col("noise_rate") == cell["noise_rate"])
            assert found.steps == list(range(len(EPOCHS)))
            for row in curves.iter_rows(named=True):
                history = found.rows[row["evaluation"]]
                assert set(history) <= set(CELL_HISTORY)
                assert history["epoch"] == row["epoch"]
                for bound in ("mean", "low", "high"):
                    expected = None if row[bound] is None else pytest.approx(row[bound], rel=1e-12, abs=1e-15)
                    assert history.get(f"{row['metric']}_{bound}") == expected

    def test_another_seed_makes_another_one_and_takes_the_old_one_away(self, tmp_path: Path) -> None:
        ledger = small_ledger(tmp_path / "sweep")
        publish(ledger, tmp_path / "out", mode="cells")
        before = {each.id for each in read_all_offline(tmp_path / "out") if each.job_type == "cell"}

        wider = load_space("digits-grid", [*SPACE[:2], "seeds=4"])
        runs = [run for run in expand(wider) if run.seed == 3]
        manifest = ledger.manifest()
        ledger.write_manifest(type(manifest)(**{**vars(manifest), "space": wider, "launches": 2}))
        ledger.add_runs(runs, wider.axis, 2_000_000)
        write_runs(ledger, [run for run in runs if run.width == 2], lambda run: "done", "more")
        publish(ledger, tmp_path / "out", mode="cells")

        cells = {each.config["cell"]: each for each in read_all_offline(tmp_path / "out") if each.job_type == "cell"}
        assert len(cells) == 4
        for words, cell in cells.items():  # width 4 waits for its seed, and shows what it had
            assert cell.config["seeds"] == ([0, 1, 2, 3] if "width 2" in words else [0, 1, 2])
            assert (cell.id in before) == ("width 4" in words)


class TestSummary:
    def test_tables_are_those_of_the_phase_diagram(self, tmp_path: Path) -> None:
        ledger = make_ledger(tmp_path / "sweep")  # with every fate that a run can have

        publish(ledger, tmp_path / "out", mode="summary")

        (found,) = read_all_offline(tmp_path / "out")
        assert found.id == f"sweep-{found.config['sweep_key']}-summary"
        assert (found.job_type, found.config["sweep"]) == ("summary", "sweep")
        assert found.config["resolved_space"]["widths"] == [2, 4, 8, 32]
        tables = {name: _table(found, name) for name in TABLES}
        scores, ends = run_metrics(ledger)
        space = ledger.manifest().space
        cells = planned_cells(space, scores, planned_runs(space, ends, scores))
        assert len(tables["cells"]) == cells.height
        for row, cell in zip(tables["cells"], cells.iter_rows(named=True), strict=True):
            assert {name: row[name] for name in row if name != "cell"} == {
                name: cell[name] for name in row if name != "cell"
            }
        statuses = Counter(row["status"] for row in tables["runs"])
        assert statuses == {"done": 23, "diverged": 4, "failed": 3, "running": 3, "waiting": 3}
        assert [row["runs"] for row in tables["failures"]] == [3, 3, 3]
        assert {row["metric"] for row in tables["boundary"]} == {"err_last"}
        figures = {path.stem.partition("_0_")[0] for path in (found.folder / "files/media/images/figures").iterdir()}
        assert figures == {"overview", "phase", "boundary", "err_last", "noise_cost", "gap_err", "memorised"}
        assert (found.summary["failed"], found.summary["total"]) == (3, 36)

    @pytest.mark.usefixtures("no_figures")
    def test_it_is_written_again_only_when_the_ledger_says_something_else(self, tmp_path: Path) -> None:
        ledger = small_ledger(tmp_path / "sweep", lambda run: "waiting" if run.seed == 2 else "done")
        assert publish(ledger, tmp_path / "out", mode="summary").written["summary"] == 1
        assert publish(ledger, tmp_path / "out", mode="summary").written["summary"] == 0
        write_runs(ledger, [run for run in expand(ledger.manifest().space) if run.seed == 2], lambda run: "done", "new")
        assert publish(ledger, tmp_path / "out", mode="summary").written["summary"] == 1
        (found,) = read_all_offline(tmp_path / "out")
        assert found.summary["done"] == 12


def _table(run: OfflineRun, name: str) -> list[dict[str, Any]]:
    (path,) = (run.folder / "files" / "media" / "table").glob(f"{name}_0_*.table.json")
    content = json.loads(path.read_text())
    assert tuple(content["columns"]) == TABLES[name]
    return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


@pytest.mark.usefixtures("no_figures")
class TestModes:
    def test_auto_publishes_runs_while_they_are_few(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        ledger = small_ledger(tmp_path / "sweep")
        monkeypatch.setattr("orchestrator.publishing.publisher.MOST_RUNS", 11)
        outcome = publish(ledger, tmp_path / "out")
        assert (outcome.mode, outcome.written["cell"], outcome.written["run"]) == ("cells", 4, 0)

    def test_options_win_over_variables_and_both_over_defaults(self) -> None:
        told = {"WANDB_ENTITY": "lab", "WANDB_PROJECT": "p", "WANDB_RUN_GROUP": "g", "WANDB_TAGS": "a, b"}
        assert Target.of(environment={}) == Target("bo-sweep", None, None, (), None)
        assert Target.of(environment=told) == Target("p", "lab", "g", ("a", "b"), None)
        assert Target.of(entity="me", tags=("c",), environment=told) == Target("p", "me", "g", ("c",), None)
        assert Target.of(environment={"WANDB_MODE": "dryrun"}).connection == "offline"
        with pytest.raises(ValueError, match=r"65 characters.*WANDB_MODE is 'loud'.*online, run, offline"):
            Target.of(tags=("x" * 65,), environment={"WANDB_MODE": "loud"})
        with pytest.raises(ValueError, match=r"project 'a/b' is no name.*entity ' me' is no name.*--entity"):
            Target.of(project="a/b", entity=" me", environment={})
        assert Target.of(project="my runs", environment={}).project == "my runs"

    def test_group_tags_and_entity_stand_in_the_files(self, tmp_path: Path) -> None:
        ledger = small_ledger(tmp_path / "sweep")
        publish(ledger, tmp_path / "out", Target("p", "lab", "all of it", ("a",)))
        assert {(run.group, run.tags) for run in read_all_offline(tmp_path / "out")} == {("all of it", ("sweep", "a"))}

    def test_disabled_publishes_nothing(self, tmp_path: Path) -> None:
        ledger = small_ledger(tmp_path / "sweep")
        outcome = publish(ledger, tmp_path / "out", Target(connection="disabled"))
        assert "nothing is published" in outcome.words()
        assert not (tmp_path / "out").exists()

    def test_online_without_a_key_says_what_to_do(self, tmp_path: Path) -> None:
        ledger = small_ledger(tmp_path / "sweep")
        with pytest.raises(ConnectionError, match="wandb login"):
            publish(ledger, tmp_path / "out", Target(connection="online"))

    def test_one_publisher_at_a_time(self, tmp_path: Path) -> None:
        ledger = small_ledger(tmp_path / "sweep")
        with Folder(tmp_path / "out").locked(), pytest.raises(Exception, match="another publisher"):
            publish(ledger, tmp_path / "out")


def test_a_launch_publishes_what_it_finds_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    space = ("widths=[2]", "noise.rates=[0]", "seeds=2")
    ledger = make_ledger(tmp_path / "sweeps" / "digits-grid", load_space("digits-grid", space), lambda run: "done")
    overrides = [part for value in space for part in ("--set", value)]
    options = ("--storage", str(tmp_path / "sweeps"), "--no-figures", "--wandb", "--as-job")  # which waits for it
    result = CliRunner().invoke(main, ["launch", "digits-grid", *overrides, *options])
    assert result.exit_code == 0, result.stderr
    assert "wandb sync" in result.stderr
    published = read_all_offline(tmp_path / "sweeps" / "digits-grid" / "wandb")
    assert {run.run_id for run in expand(ledger.manifest().space)} <= {run.id for run in published}


def test_what_w_and_b_refuses_ends_with_one_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_ledger(tmp_path / "sweep")
    outcome = Outcome("online", "runs", tmp_path, refused={"abc": "noise 0, width 2 (it was deleted there)"})
    monkeypatch.setattr(Publisher, "run", lambda self: outcome)
    arguments = ["wandb", "publish", "sweep", "--storage", str(tmp_path), "--priority", "normal"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "deleted: 1 (abc). Undelete them" in result.stdout.replace("\n", " ")
    assert json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)["not_published"] == outcome.refused


def test_a_launch_goes_on_where_nothing_can_be_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = small_ledger(tmp_path / "sweep")
    (tmp_path / "sweep" / "wandb").write_text("in the way")
    publishing = Publishing(LaunchOptions(ledger.storage, "sweep", tmp_path), str(tmp_path))
    monkeypatch.setattr(publishing, "_ledger", ledger)
    publishing.start()
    publishing.finish(as_job=True)
    assert "Nothing is published to W&B beside the launch" in capsys.readouterr().err


def test_ctrl_c_ends_the_waiting_for_w_and_b_and_not_the_launch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = small_ledger(tmp_path / "sweep")
    publishing = Publishing(LaunchOptions(ledger.storage, "sweep", tmp_path), str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    monkeypatch.setattr(publishing, "_publisher", BackgroundPublisher(process, tmp_path / "log", 0))
    interrupts = iter([KeyboardInterrupt()])

    def sleep(seconds: float) -> None:
        raise next(interrupts)

    monkeypatch.setattr("orchestrator.publishing.background.time.sleep", sleep)
    publishing.finish(as_job=False)
    process.communicate()
    assert "goes on by itself" in capsys.readouterr().err


def test_files_that_are_cut_short_are_noticed(tmp_path: Path) -> None:
    """W&B's client only logs that a disk is full."""
    publish(make_ledger(tmp_path / "sweep", load_space("digits-grid", SPACE), lambda run: "failed"), tmp_path / "out")
    path = next(path for path in (tmp_path / "out").glob("*/*.wandb") if "summary" in path.name)
    content = path.read_bytes()
    assert rows_in(path) == 1
    for length in (0, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert rows_in(path) is None
    writing = threading.Timer(0.05, path.write_bytes, [content])  # W&B's client calls a run finished before its file is
    writing.start()
    assert rows_once_written(path) == 1
    writing.join()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out")
    with folder.locked():
        (tmp_path / "out" / ".staging").write_text("in the way")
        with pytest.raises(StorageError, match=r"cannot write .*--dir"):
            folder.staging()


@pytest.mark.usefixtures("no_figures")
class TestFollowing:
    def test_it_takes_in_what_comes_and_ends_with_the_sweep(self, tmp_path: Path) -> None:
        ledger = small_ledger(tmp_path / "sweep", lambda run: "waiting")
        runs = expand(ledger.manifest().space)

        def grow() -> None:
            for seed in range(3):
                time.sleep(1.0)
                write_runs(ledger, [run for run in runs if run.seed == seed], lambda run: "done", f"seed{seed}")

        thread = threading.Thread(target=grow)
        thread.start()
        outcome = publish(ledger, tmp_path / "out", follow=True, poll_seconds=0.1, grace_seconds=PATIENCE_SECONDS)
        thread.join()

        assert (outcome.written["run"], outcome.unfinished) == (12, 0)
        assert outcome.there["run"] == 0, "of what was there before it began"
        assert_all_there(ledger, by_id(tmp_path / "out"))

    def test_beside_a_launch_it_ends_by_itself_and_its_words_are_told(self, tmp_path: Path) -> None:
        ledger = small_ledger(tmp_path / "sweep", lambda run: "failed")  # without figures
        background = start_publisher(ledger, str(tmp_path), arguments=("--project", "noise"))
        lines = background.finish(seconds=PATIENCE_SECONDS)
        assert background.process.wait(0) == 0
        assert any("12 runs, 1 summary" in line for line in lines)
        assert {run.project for run in read_all_offline(tmp_path / "sweep" / "wandb")} == {"noise"}

    def test_beside_a_launch_it_is_waited_for_a_little(self, tmp_path: Path) -> None:
        ledger = small_ledger(tmp_path / "sweep", lambda run: "waiting")
        with Lease(ledger.storage):  # for as long as a launch lives there is more to come
            background = start_publisher(ledger, str(tmp_path), arguments=("--mode", "summary"))
            lines = background.finish(seconds=0.0)
            assert f"process {background.process.pid}" in lines[-1]
            background.process.terminate()
            assert background.process.wait(PATIENCE_SECONDS) in (-signal.SIGTERM, 0, 3)


def command(storage: Path, out: Path, *more: str) -> list[str]:
    code = "from orchestrator.commands.wandb import wandb; wandb()"
    return [sys.executable, "-c", code, "publish", "sweep", "--storage", str(storage), "--dir", str(out), *more]


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.chaos)])
def test_after_kills_at_random_instants_all_is_there_once(tmp_path: Path, no_figures: None, kills: int) -> None:
    """Real processes, killed while they write and before all is there; then one that comes through."""
    space = load_space("digits-grid", [*SPACE[:2], "seeds=25"])
    ledger = make_ledger(tmp_path / "sweep", space, lambda run: "done")
    out, draw, seen = tmp_path / "out", random.Random(0), [0]
    code = (  # it kills itself, so that it does not matter when this process here has its turn
        "import os, signal, sys, threading, time; from pathlib import Path\n"
        "from orchestrator.ledger import Ledger; from orchestrator.publishing.folder import Folder\n"
        "from orchestrator.publishing.publisher import Options, Publisher\n"
        "from orchestrator.publishing.stopping import Stopping; from orchestrator.publishing.target import Target\n"
        "sweep, out, least, pause = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])\n"
        "def kill():\n"
        "    while not list(out.glob('.staging/*/wandb')) or len(list(out.glob('offline-run-*'))) < least:\n"
        "        time.sleep(0.002)\n"
        "    time.sleep(pause)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "threading.Thread(target=kill, daemon=True).start()\n"
        "Publisher(Ledger(sweep), Target(), Folder(out), Options(mode='runs'), print, Stopping()).run()"
    )
    for number in range(kills):
        least = seen[-1] + (number % 4 > 0)  # else while W&B's own process starts
        arguments = [str(tmp_path / "sweep"), str(out), str(least), str(draw.uniform(0.0, 0.1))]
        killed = subprocess.run([sys.executable, "-c", code, *arguments], timeout=PATIENCE_SECONDS)
        assert killed.returncode == -signal.SIGKILL
        wait_for(lambda: _is_free(out))
        seen.append(len(list(out.glob("offline-run-*"))))
    assert seen == sorted(seen)
    assert 0 < seen[-1] < 100, "killed too early or too late to prove anything"

    outcome = publish(ledger, out, mode="runs")
    assert outcome.written["run"] + outcome.there["run"] == 100
    assert_all_there(ledger, by_id(out))
    assert not (out / ".staging").exists()


def test_asked_to_stop_it_finishes_the_run_at_hand_and_says_how_to_go_on(tmp_path: Path) -> None:
    space = load_space("digits-grid", [*SPACE[:2], "seeds=250"])  # a thousand runs: minutes, if nobody stops it
    make_ledger(tmp_path / "sweep", space, lambda run: "done")
    process = started(tmp_path, tmp_path / "out")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_SECONDS) == 3
    assert process.stdout is not None
    assert "the same command goes on" in process.stdout.read()
    assert 0 < len(read_all_offline(tmp_path / "out")) < 1001


def started(storage: Path, out: Path) -> subprocess.Popen[str]:
    """A publisher that has begun to write: before that there is nothing to break."""
    arguments = command(storage, out, "--mode", "runs")
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until(process, lambda: bool(list(out.glob(".staging/*/wandb"))))
    return process


def until(process: subprocess.Popen[Any], happened: Callable[[], bool]) -> None:
    """Wait for something that a process does."""

    def happened_before_the_end() -> bool:
        assert process.poll() is None, "it ended before that"
        return happened()

    wait_for(happened_before_the_end, every=0.002)


def _is_free(folder: Path) -> bool:
    """Whether the W&B process of a killed publisher has noticed and let go."""
    with suppress(StorageError), Folder(folder).locked():
        return True
    return False


def test_no_key_is_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is there is used from the environment, and stands in no file and on no command line."""
    space = load_space("digits-grid", [*SPACE[:2], "seeds=250"])
    make_ledger(tmp_path / "sweep", space, lambda run: "failed" if run.seed else "waiting")  # without figures
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", "offline")
    lines = set[bytes]()

    def core_seen() -> bool:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                lines.add(path.read_bytes())
        return any(b"wandb-core" in line for line in lines)

    process = started(tmp_path, tmp_path / "out")
    until(process, core_seen)
    process.send_signal(signal.SIGINT)
    assert KEY not in process.communicate(timeout=PATIENCE_SECONDS)[0]
    arguments = command(tmp_path, tmp_path / "out", "--mode", "summary")
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: core_seen() and process.poll() is not None)
    assert KEY not in process.communicate()[0]
    assert process.returncode == 0
    assert not any(KEY.encode() in line for line in lines)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
