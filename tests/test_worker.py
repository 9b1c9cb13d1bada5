"""A worker and its coordinator in one process: what is durable when, what is saved at a stop, and who is told what."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from orchestrator import sink as sink_module
from orchestrator import worker as worker_module
from orchestrator.coordinator import Coordinator
from orchestrator.failures import Failure
from orchestrator.ledger import Ledger, Manifest
from orchestrator.local_storage import LocalStorage
from orchestrator.messages import Beat, Orders, WorkerFacts
from orchestrator.repair import repair
from orchestrator.storage import StorageError
from orchestrator.worker import WorkerSettings, run_worker
from search_spaces.catalog import load_space
from search_spaces.packs import group_packs
from search_spaces.runs import expand
from tests.waiting import PATIENCE_SECONDS
from workers.schema import TIMING_COLUMNS

SPACE = load_space(
    "digits-grid",
    ["widths=[2]", "noise.rates=[0,0.2,0.4]", "seeds=2", "recipe.epochs=3", "evaluation.points=5", "samples=128"],
)
RUNS = expand(SPACE)
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("one_thread")]


class LocalBoss:
    """The coordinator, called directly; counts what it is told."""

    def __init__(self, coordinator: Coordinator, slot: int = 0) -> None:
        self.coordinator, self.who = coordinator, (slot, os.getpid())
        self.acknowledged: list[tuple[str, str]] = []
        self.failures: list[Failure | None] = []
        self.on_pull: Callable[[], None] = lambda: None
        coordinator.hello(slot, WorkerFacts("node", "host", os.getpid()))

    def pull(self) -> Orders:
        self.on_pull()
        return self.coordinator.pull(*self.who)

    def beat(self, beat: Beat) -> bool:
        return self.coordinator.beat(*self.who, beat)

    def acknowledge(self, ended: Sequence[tuple[str, str]]) -> None:
        self.acknowledged += ended
        self.coordinator.acknowledge(*self.who, ended)

    def finished(self, failure: Failure | None) -> None:
        self.failures.append(failure)
        self.coordinator.finished(*self.who, failure)

    def paused(self) -> None:
        self.coordinator.paused(*self.who)

    def goodbye(self) -> None:
        self.coordinator.goodbye(*self.who)

    def report_trouble(self, message: str) -> None:
        self.coordinator.report_trouble(message)


def new_ledger(path: Path) -> Ledger:
    ledger = Ledger(path)
    ledger.write_manifest(Manifest("sweep", SPACE, 1, "2026-01-01"))
    ledger.add_runs(RUNS, "width", 1_000_000)
    return ledger


def settings(ledger: Ledger, data: Path, **changes: Any) -> WorkerSettings:
    return WorkerSettings(ledger.storage, data, launch=1, gpus=0, threads=1, **changes)


def boss_of(ledger: Ledger, attempt: int = 1_000_000, resumable: Mapping[str, int] | None = None) -> LocalBoss:
    ended = ledger.statuses()
    packs = group_packs([run for run in RUNS if run.run_id not in ended], "auto")
    return LocalBoss(Coordinator(packs, attempt, lambda run: 1.0, resumable))


def table(ledger: Ledger) -> pl.DataFrame:
    return ledger.load().drop(*TIMING_COLUMNS, "attempt", "pack_size")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Ledger:
    ledger = new_ledger(tmp_path_factory.mktemp("undisturbed") / "sweep")
    boss = boss_of(ledger)
    run_worker(settings(ledger, data_folder), boss)
    assert boss.coordinator.state().is_over
    return ledger


def test_ends_carry_claims_and_provenance(undisturbed: Ledger) -> None:
    ends = undisturbed.ends()
    assert ends["status"].to_list() == ["done"] * 6
    assert ends["evaluations"].to_list() == [4] * 6  # five log-spaced steps of six, two of which coincide
    assert ends["images"].to_list() == [3 * 128] * 6
    assert ends["pack_size"].to_list() == [3] * 6
    assert ends["engine"].to_list() == ["sequential"] * 6
    assert (ends["gpu_seconds"] == 0).all()
    assert "code " in ends["versions"][0]
    events = undisturbed.logs()
    assert events.filter(pl.col("event") == "done")["run_id"].n_unique() == 6


def test_nothing_is_acknowledged_before_it_is_durable(tmp_path: Path, data_folder: Path) -> None:
    ledger = new_ledger(tmp_path / "sweep")
    boss = boss_of(ledger)
    acknowledge = boss.acknowledge

    def check(ended: Sequence[tuple[str, str]]) -> None:
        durable = ledger.statuses()
        assert all(durable[run_id] == status for run_id, status in ended)
        acknowledge(ended)

    boss.acknowledge = check  # type: ignore[method-assign]
    run_worker(settings(ledger, data_folder), boss)
    assert len(boss.acknowledged) == 6


def test_a_stop_saves_every_run_in_training_and_another_worker_goes_on_to_the_same_table(
    tmp_path: Path, data_folder: Path, undisturbed: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = new_ledger(tmp_path / "sweep")
    boss = boss_of(ledger)
    take = worker_module.Worker._take
    taken = 0

    def stop_in_the_middle(self: Any, *arguments: Any) -> None:
        nonlocal taken
        take(self, *arguments)
        taken += 1
        self.must_stop = taken == 3
        if self.must_stop:
            boss.coordinator.drain()

    monkeypatch.setattr(worker_module.Worker, "_take", stop_in_the_middle)
    run_worker(settings(ledger, data_folder), boss)
    assert boss.coordinator.state().is_over
    saved = [file.path.split("/")[1].removesuffix(".pt") for file in ledger.storage.list("checkpoints")]
    assert sorted(saved) == sorted(run.run_id for run in RUNS[:3])
    assert ledger.statuses() == {}
    monkeypatch.setattr(worker_module.Worker, "_take", take)
    run_worker(settings(ledger, data_folder), boss_of(ledger, 2_000_000, dict.fromkeys(saved, 3)))
    assert ledger.storage.list("checkpoints") == []
    assert set(ledger.logs().filter(pl.col("event") == "resumed")["run_id"]) == set(saved)
    assert_frame_equal(table(ledger), table(undisturbed))
    by_attempt = ledger.load().filter(pl.col("run_id").is_in(saved)).group_by("attempt").len().sort("attempt")
    assert by_attempt["len"].to_list() == [9, 3], "three evaluations before the stop, one after it"


def test_a_damaged_checkpoint_is_refused_and_the_run_starts_anew(
    tmp_path: Path, data_folder: Path, undisturbed: Ledger
) -> None:
    ledger = new_ledger(tmp_path / "sweep")
    ledger.storage.write(f"checkpoints/{RUNS[0].run_id}.pt", b"garbage")
    run_worker(settings(ledger, data_folder), boss_of(ledger, resumable={RUNS[0].run_id: 0}))
    assert_frame_equal(table(ledger), table(undisturbed))
    refused = ledger.logs().filter(pl.col("event") == "checkpoint refused")
    assert refused["run_id"].to_list() == [RUNS[0].run_id]


def test_a_checkpoint_that_claims_more_than_the_ledger_holds_is_refused(
    tmp_path: Path, data_folder: Path, undisturbed: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows from before it were deleted by hand: only from the start does the run become whole again."""
    ledger = new_ledger(tmp_path / "sweep")
    take = worker_module.Worker._take

    def stop(self: Any, *arguments: Any) -> None:
        take(self, *arguments)
        self.must_stop = True

    monkeypatch.setattr(worker_module.Worker, "_take", stop)
    boss = boss_of(ledger)
    run_worker(settings(ledger, data_folder), boss)
    monkeypatch.setattr(worker_module.Worker, "_take", take)
    for file in ledger.storage.list("rows"):
        ledger.storage.delete(file.path)
    found = repair(ledger)
    assert set(found.resumable.values()) == {0}
    run_worker(settings(ledger, data_folder), boss_of(ledger, 2_000_000, found.resumable))
    assert (ledger.logs()["event"] == "checkpoint refused").sum() == len(found.resumable)
    assert_frame_equal(table(ledger), table(undisturbed))


@pytest.mark.parametrize("engine", ["sequential", "fused"])
def test_out_of_memory_halves_the_pack_until_it_fits(
    engine: str, tmp_path: Path, data_folder: Path, undisturbed: Ledger
) -> None:
    whole = undisturbed
    if engine == "fused":
        whole = new_ledger(tmp_path / "whole")
        run_worker(settings(whole, data_folder, engine=engine), boss_of(whole))
        assert set(whole.ends()["pack_size"]) == {3}
    ledger = new_ledger(tmp_path / "sweep")
    boss = boss_of(ledger)
    run_worker(settings(ledger, data_folder, engine=engine, trainer="tests.trainers:runs_out_of_memory"), boss)
    assert [failure.kind for failure in boss.failures if failure] == ["out of memory"] * 4
    assert set(ledger.ends()["pack_size"]) == {1}
    assert set(ledger.ends()["engine"]) == {engine}
    assert_frame_equal(table(ledger), table(whole))


def test_storage_that_fails_for_a_while_is_waited_for(
    tmp_path: Path, data_folder: Path, undisturbed: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_module, "RETRY_SECONDS", (0.01, 0.02))
    write, failures = LocalStorage.write, iter(["rows", "rows", "ends", "logs"])
    wanted = next(failures)

    def failing(self: LocalStorage, path: str, content: Any) -> None:
        nonlocal wanted
        if path.startswith(wanted):
            wanted = next(failures, "nothing more")
            if path.startswith("ends"):
                write(self, path, content)  # it was stored, but the answer was lost
            raise StorageError(f"cannot write {path}: No space left on device")
        write(self, path, content)

    monkeypatch.setattr(LocalStorage, "write", failing)
    ledger = new_ledger(tmp_path / "sweep")
    run_worker(settings(ledger, data_folder), boss_of(ledger))
    assert wanted == "nothing more"
    assert_frame_equal(table(ledger), table(undisturbed))


def test_storage_that_stays_unwritable_stops_the_launch_and_says_why(
    tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_module, "PATIENCE_SECONDS", 0.0)
    ledger = new_ledger(tmp_path / "sweep")
    boss = boss_of(ledger)

    def full(self: LocalStorage, path: str, content: Any) -> None:
        raise StorageError(f"cannot write {path}: No space left on device. Free space or choose --storage")

    monkeypatch.setattr(LocalStorage, "write", full)
    run_worker(settings(ledger, data_folder), boss)
    state = boss.coordinator.state()
    assert "No space left" in (state.trouble or "")
    assert state.is_over
    assert state.tally.done == 0
    assert boss.acknowledged == []


def test_a_node_that_does_not_share_the_storage_trains_nothing_into_a_folder_of_its_own(
    tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_module, "PATIENCE_SECONDS", 0.0)
    boss = boss_of(new_ledger(tmp_path / "launching" / "sweep"))
    run_worker(settings(Ledger(tmp_path / "elsewhere" / "sweep"), data_folder), boss)
    state = boss.coordinator.state()
    assert re.search(r"the node .* does not see .*sweep\.json.*--storage", state.trouble or "")
    assert (state.is_over, state.tally.done) == (True, 0)
    assert not (tmp_path / "elsewhere").exists()


def test_a_manifest_that_comes_into_sight_late_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "RETRY_SECONDS", (0.0, 0.0))
    ledger, exists = new_ledger(tmp_path / "sweep"), LocalStorage.exists
    looks: Iterator[bool | StorageError] = iter([False, StorageError("Stale file handle")])

    def late(self: LocalStorage, path: str) -> bool:
        look = next(looks, None)
        if isinstance(look, StorageError):
            raise look
        return exists(self, path) if look is None else look

    monkeypatch.setattr(LocalStorage, "exists", late)
    sink_module.Sink(ledger, 1, "node/1").check_shared()
    assert next(looks, None) is None


def test_the_last_words_of_a_process_that_crashed_stand_in_the_failure(tmp_path: Path, data_folder: Path) -> None:
    """A segmentation fault in every worker that trains a certain run: the run is given up, all others are done."""
    code = (
        "import sys; from pathlib import Path\n"
        "from orchestrator import coordinator\n"
        "from orchestrator.launch import launch\nfrom orchestrator.launch_plan import LaunchOptions\n"
        "from orchestrator.storage import open_storage; from tests.test_worker import SPACE\n"
        "options = LaunchOptions(open_storage(sys.argv[1]), 'sweep', Path(sys.argv[2]), "
        "workers=1, trainer='tests.trainers:kills_its_process')\n"
        "space = SPACE.model_copy(update={'seeds': (0,), 'packing': 'off'})\n"
        "launch(space, options)"
    )
    root = Path(__file__).resolve().parent.parent
    environment = os.environ | {"PYTHONPATH": str(root)}
    command = [sys.executable, "-c", code, str(tmp_path), str(data_folder)]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, cwd=root, env=environment
    )
    assert result.returncode == 0, result.stderr
    ends = Ledger(tmp_path / "sweep").ends().sort("status")
    assert ends["status"].to_list() == ["done", "done", "failed"]
    failed = ends.row(2, named=True)
    assert failed["signature"] == "WorkerDiedError"
    assert "about to crash" in failed["error"]
    assert "Segmentation fault" in failed["error"]
