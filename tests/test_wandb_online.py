"""What a server shows of runs that change: in training, tried again, and cells that gain a seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.lease import Lease
from orchestrator.ledger import Ledger
from orchestrator.publishing.columns import TABLES
from orchestrator.publishing.folder import Folder
from orchestrator.publishing.outcome import Outcome
from orchestrator.publishing.publisher import Options, Publisher
from orchestrator.publishing.reading import sweep_key
from orchestrator.publishing.stopping import Stopping
from orchestrator.publishing.target import Target
from orchestrator.sink import Sink
from search_spaces.catalog import load_space
from search_spaces.runs import Run, expand
from tests.report_ledger import EPOCHS, end_of, make_ledger, rows_of
from tests.waiting import PATIENCE_SECONDS
from tests.wandb_server import FakeWandb, Fault

SPACE = ("widths=[2]", "noise.rates=[0]", "seeds=2")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeWandb]:
    with FakeWandb() as found:
        quick = {f"WANDB__GRAPHQL_RETRY_WAIT_{end}_SECONDS": "1" for end in ("MIN", "MAX")}
        for name, value in (found.environment() | quick | {"HOME": str(tmp_path / "home")}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("orchestrator.publishing.summary_item._draw", lambda *_: {})
        yield found


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Two runs that have not begun."""
    return make_ledger(tmp_path / "sweep", load_space("digits-grid", SPACE), lambda run: "waiting")


def publish(ledger: Ledger, folder: Path, mode: str = "runs") -> Outcome:
    options = Options(mode=mode, patience_seconds=PATIENCE_SECONDS, creation_seconds=0.0)
    outcome = Publisher(ledger, Target(), Folder(folder), options, print, Stopping()).run()
    assert outcome.connection == "online"
    return outcome


def trained(ledger: Ledger, run: Run, attempt: int, status: str = "done", **changes: Any) -> None:
    """Rows and end of one attempt."""
    rows = [row | {"attempt": attempt} | changes for row in rows_of(run)]
    if status == "done":
        ledger.write_rows(f"rows-{run.seed}-{attempt}", rows)
    ledger.write_ends(f"ends-{run.seed}-{attempt}", [end_of(run, status) | {"attempt": attempt}])


def test_a_run_in_training_grows_and_becomes_the_finished_one(
    ledger: Ledger, server: FakeWandb, tmp_path: Path
) -> None:
    run = expand(ledger.manifest().space)[0]
    path = f"team/bo-sweep/{run.run_id}"
    sink = Sink(ledger, 1, "worker")
    with Lease(ledger.storage):
        sink.add(rows_of(run)[:3], [], 1_000_000)
        sink.flush()
        sink.log("checkpointed", "", run_id=run.run_id, attempt=1_000_000)
        sink.add(rows_of(run)[3:5], [], 1_000_000)
        sink.flush()
        publish(ledger, tmp_path / "out")
        assert [row["epoch"] for row in server.run(path).rows] == list(EPOCHS[:3])
        assert not server.run(path).finished
        assert server.run(path).summary["status"] == "running"
        sink.add(rows_of(run)[5:], [end_of(run, "done")], 1_000_000)
        sink.flush()
    publish(ledger, tmp_path / "out")

    found = server.run(path)
    assert [row["epoch"] for row in found.rows] == list(EPOCHS)
    assert (found.summary["status"], found.exit_code) == ("done", 0)
    assert (found.repeated, found.gaps, server.unknown) == (0, [], [])


@pytest.mark.parametrize("remembers", [True, False])
def test_a_run_that_was_shown_and_is_trained_anew_gets_another_id(
    ledger: Ledger, server: FakeWandb, tmp_path: Path, remembers: bool
) -> None:
    """As after damage to a checkpoint or to the ledger: what was shown stays, and says what took its place."""
    run = expand(ledger.manifest().space)[0]
    trained(ledger, run, 1)
    publish(ledger, tmp_path / "out")
    trained(ledger, run, 2, test_error=0.125)
    publish(ledger, tmp_path / ("out" if remembers else "other"))

    old, new = (server.run(f"team/bo-sweep/{name}") for name in (run.run_id, f"{run.run_id}-2"))
    assert [row["attempt"] for row in old.rows] == [1] * len(EPOCHS)
    assert "superseded" in old.tags
    assert old.config["superseded_by"] == f"{run.run_id}-2"
    assert [row["test_error"] for row in new.rows] == [0.125] * len(EPOCHS)
    assert "superseded" not in new.tags


def test_a_failed_run_that_is_tried_again_becomes_a_finished_one(
    ledger: Ledger, server: FakeWandb, tmp_path: Path
) -> None:
    run = expand(ledger.manifest().space)[0]
    trained(ledger, run, 1, "failed")
    publish(ledger, tmp_path / "out")
    found = server.run(f"team/bo-sweep/{run.run_id}")
    assert (found.summary["status"], found.exit_code, found.rows) == ("failed", 1, [])
    trained(ledger, run, 2)
    publish(ledger, tmp_path / "out")
    found = server.run(f"team/bo-sweep/{run.run_id}")
    assert (found.summary["status"], found.exit_code, len(found.rows)) == ("done", 0, len(EPOCHS))


def test_a_run_that_was_deleted_is_told_and_the_rest_is_published(
    ledger: Ledger, server: FakeWandb, tmp_path: Path
) -> None:
    first, second = expand(ledger.manifest().space)
    trained(ledger, first, 1)
    publish(ledger, tmp_path / "out")
    path = f"team/bo-sweep/{first.run_id}"
    server.state.delete(path)
    trained(ledger, second, 1)
    kept = publish(ledger, tmp_path / "out")
    assert not kept.refused, "who remembers it does not ask for it again"

    lost = publish(ledger, tmp_path / "other")

    assert list(lost.refused) == [first.run_id]
    assert path not in server.runs
    assert len(server.run(f"team/bo-sweep/{second.run_id}").rows) == len(EPOCHS)
    assert lost.document()["not_published"] == lost.refused
    assert first.run_id in lost.words()
    assert "--project" in lost.words()


def test_a_project_that_refuses_ends_it_at_once(ledger: Ledger, server: FakeWandb, tmp_path: Path) -> None:
    trained(ledger, expand(ledger.manifest().space)[0], 1)
    server.state.forbidden.add("lab")
    options = Options(mode="runs", follow=True, creation_seconds=0.0)  # which would try for ever
    publisher = Publisher(ledger, Target(entity="lab"), Folder(tmp_path / "out"), options, print, Stopping())
    with pytest.raises(ValueError, match=r"permission denied.*--entity and --project"):
        publisher.run()


@pytest.mark.parametrize("reused_from", [None, "sweep"])
def test_sweeps_that_share_a_run_leave_each_other_alone(
    ledger: Ledger, server: FakeWandb, tmp_path: Path, reused_from: str | None
) -> None:
    run = expand(ledger.manifest().space)[0]
    trained(ledger, run, 1)
    publish(ledger, tmp_path / "out")
    before = server.run(f"team/bo-sweep/{run.run_id}")
    stood = (before.tags, before.config, before.rows)

    other = make_ledger(tmp_path / "wider", ledger.manifest().space, lambda run: "waiting")
    rows = [row | {"attempt": 2_000_000} for row in rows_of(run)]
    other.write_rows("reused", rows)
    other.write_ends("reused", [end_of(run, "done") | {"attempt": 2_000_000, "reused_from": reused_from}])
    for _ in range(2):
        publish(other, tmp_path / "out")  # the same folder serves both

    assert (before.tags, before.config, before.rows) == stood
    (copy,) = (each for each in server.runs.values() if each.name.startswith(f"{run.run_id}-"))
    assert (copy.tags, copy.config["sweep"]) == (["wider"], "wider")
    assert [row["attempt"] for row in copy.rows] == [2_000_000] * len(EPOCHS)
    assert publish(ledger, tmp_path / "out").written.total() == 0
    summaries = [each.config["sweep"] for each in server.runs.values() if each.name.endswith("-summary")]
    assert sorted(summaries) == ["sweep", "wider"]


def test_sweeps_of_one_name_in_one_project_are_kept_apart(ledger: Ledger, server: FakeWandb, tmp_path: Path) -> None:
    space = ledger.manifest().space
    other = make_ledger(tmp_path / "elsewhere" / "sweep", space, lambda run: "waiting")
    other.write_manifest(replace(other.manifest(), created="2026-02-02T00:00:00.000001+00:00"))
    run, *_ = expand(space)
    trained(ledger, run, 1)
    trained(other, run, 1, test_error=0.5)
    for each in (ledger, other, ledger):
        publish(each, tmp_path / "out")

    keys = [sweep_key("sweep", each.manifest()) for each in (ledger, other)]
    assert len(set(keys)) == 2
    for key, errors in zip(keys, ([row["test_error"] for row in rows_of(run)], [0.5] * len(EPOCHS)), strict=True):
        own = {each.name: each for each in server.runs.values() if each.config["sweep_key"] == key}
        (one,) = (each for name, each in own.items() if name.startswith(run.run_id))
        assert [row["test_error"] for row in one.rows] == errors
        assert own.keys() == {one.name, f"sweep-{key}-summary"}


def test_a_run_that_is_trained_anew_twice_mixes_no_rows(ledger: Ledger, server: FakeWandb, tmp_path: Path) -> None:
    """From one checkpoint, three times: each time other rows come after it."""
    run = expand(ledger.manifest().space)[0]
    for attempt in (1, 2, 3):
        rows = rows_of(run) if attempt == 1 else rows_of(run)[2:]
        ledger.write_rows(f"rows-{attempt}", [row | {"attempt": attempt, "test_error": attempt / 10} for row in rows])
        ledger.write_ends(f"ends-{attempt}", [end_of(run, "done") | {"attempt": attempt}])
        publish(ledger, tmp_path / "out")

    found = {each.name: each for each in server.runs.values() if each.name.startswith(run.run_id)}
    assert len(found) == 3
    (current,) = (each for each in found.values() if "superseded" not in each.tags)
    assert [row["attempt"] for row in current.rows] == [1, 1] + [3] * (len(EPOCHS) - 2)
    assert all(len({row["attempt"] for row in each.rows[2:]}) == 1 for each in found.values())


def test_what_its_reader_named_and_tagged_stays(ledger: Ledger, server: FakeWandb, tmp_path: Path) -> None:
    first, second = expand(ledger.manifest().space)
    trained(ledger, first, 1)
    publish(ledger, tmp_path / "out")
    for run in server.runs.values():
        run.fields |= {"displayName": "figure 3", "tags": [*run.tags, "paper"]}
    trained(ledger, second, 1)
    publish(ledger, tmp_path / "other")  # whose notes are lost looks at all of them again
    kept = [run for run in server.runs.values() if run.name != second.run_id]
    assert [(run.fields["displayName"], run.tags) for run in kept] == [("figure 3", ["sweep", "paper"])] * 2


def test_a_summary_whose_tables_are_not_taken_is_not_there_yet(
    ledger: Ledger, server: FakeWandb, tmp_path: Path
) -> None:
    trained(ledger, expand(ledger.manifest().space)[0], 1)
    server.inject(Fault("status", on="CommitArtifact", status=400))
    publish(ledger, tmp_path / "out", "summary")
    assert len(server.faults_given) == 1
    committed = {each.collection for each in server.state.artifacts.values() if each.state == "COMMITTED"}
    (summary,) = server.runs.values()
    assert committed == {f"team/bo-sweep/run-{summary.name}-{table}" for table in TABLES}
    assert summary.finished
    assert "digest" in summary.config


@pytest.mark.parametrize("remembers", [True, False])
def test_a_cell_that_changes_is_superseded(ledger: Ledger, server: FakeWandb, tmp_path: Path, remembers: bool) -> None:
    first, second = expand(ledger.manifest().space)
    trained(ledger, first, 1)
    trained(ledger, second, 1, "failed")
    publish(ledger, tmp_path / "out", "cells")
    (old,) = (run for run in server.runs.values() if "-cell-" in f"-{run.name}")
    assert old.config["seeds"] == [0]
    trained(ledger, second, 2)
    for _ in range(2):
        publish(ledger, tmp_path / ("out" if remembers else "other"), "cells")

    cells = [run for run in server.runs.values() if run.name.startswith("cell-")]
    assert sorted(("superseded" in run.tags, run.config["seeds"]) for run in cells) == [(False, [0, 1]), (True, [0])]
    (summary,) = (run for run in server.runs.values() if run.name.endswith("-summary"))
    assert len(summary.rows) == 2  # what it was before, and what it is now
    assert server.unknown == []
