"""What a machine brings along: W&B's variables and files, odd file systems, the processes of others."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.ledger import Ledger
from orchestrator.publishing.folder import Folder, FolderError
from orchestrator.publishing.items import Marker
from orchestrator.publishing.outcome import Outcome
from orchestrator.publishing.publisher import Options, Publisher
from orchestrator.publishing.stopping import Stopping
from orchestrator.publishing.target import Target
from orchestrator.publishing.writer import _end_leftover
from search_spaces.catalog import load_space
from search_spaces.runs import expand
from tests.report_ledger import end_of, make_ledger, rows_of
from tests.wandb_files import read_all_offline

SPACE = ("widths=[2]", "noise.rates=[0]", "seeds=1")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr("orchestrator.publishing.summary_item._draw", lambda *_: {})
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return make_ledger(tmp_path / "sweep", load_space("digits-grid", SPACE), lambda run: "done")


def publish(ledger: Ledger, folder: Path, mode: str = "runs", target: Target | None = None) -> Outcome:
    options = Options(mode=mode, patience_seconds=0.0)
    return Publisher(ledger, target or Target(), Folder(folder), options, print, Stopping()).run()


def test_defaults_of_other_programs_get_into_no_config(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("config-defaults.yaml").write_text("noise_rate:\n  value: 9\nlearning_rate:\n  value: 1\n")
    monkeypatch.setenv("HOME", "/proc/none")  # which nobody can write to
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    publish(ledger, tmp_path / "out")
    found = {run.job_type: run.config for run in read_all_offline(tmp_path / "out")}
    assert found["run"]["noise_rate"] == 0
    assert "noise_rate" not in found["summary"]
    assert all("learning_rate" not in config for config in found.values())


def test_a_key_that_is_none_is_told(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than files that nobody looks for: who gives a key wants to see the sweep on W&B."""
    monkeypatch.setenv("WANDB_API_KEY", "too-short")
    with pytest.raises(ConnectionError, match=r"cannot be used.*another WANDB_API_KEY.*WANDB_MODE=offline") as told:
        publish(ledger, tmp_path / "out")
    assert "too-short" not in str(told.value)
    assert publish(ledger, tmp_path / "out", target=Target(connection="offline")).written["run"] == 1


def test_what_is_synced_gets_another_id_each_time_it_changes(ledger: Ledger, tmp_path: Path) -> None:
    (run,) = expand(ledger.manifest().space)
    for attempt in (2, 3):
        for found in read_all_offline(tmp_path / "out"):
            (found.folder / f"run-{found.id}.wandb.synced").touch()
        ledger.write_rows(f"rows-{attempt}", [row | {"attempt": attempt} for row in rows_of(run)[2:]])
        ledger.write_ends(f"ends-{attempt}", [end_of(run, "done") | {"attempt": attempt}])
        publish(ledger, tmp_path / "out")
    for found in read_all_offline(tmp_path / "out"):
        (found.folder / f"run-{found.id}.wandb.synced").touch()
    ledger.write_rows("rows-4", [row | {"attempt": 4} for row in rows_of(run)[2:]])
    ledger.write_ends("ends-4", [end_of(run, "done") | {"attempt": 4}])
    publish(ledger, tmp_path / "out")
    ids = [found.id for found in read_all_offline(tmp_path / "out") if found.job_type == "run"]
    assert len(set(ids)) == len(ids) == 3


def test_notes_that_are_damaged_are_passed_over(tmp_path: Path) -> None:
    folder, marker = Folder(tmp_path / "out"), Marker("id", "key", "state", "run", 0, 5)
    with folder.locked():
        folder.remember("here", marker)
        with open(tmp_path / "out" / "finished.jsonl", "ab") as notes:
            notes.write(b"\xff\xfe\0\n[]\n5\n" + b'{"where": "here", "key": "k", "newer": 1}\n')
        folder.remember("here", marker)
        assert folder.finished("here") == {"key": marker}


def test_a_file_system_without_locks_is_called_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("orchestrator.publishing.folder.fcntl.flock", flock)
    with pytest.raises(FolderError, match=r"cannot lock .*not implemented.*--dir"), Folder(tmp_path / "out").locked():
        pass


@pytest.fixture
def core(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """What W&B's own process looks like, begun by this one."""
    (tmp_path / "wandb-core").symlink_to(sys.executable)
    script = "import subprocess, sys; sys.stdin.readline()"
    with subprocess.Popen(
        [tmp_path / "wandb-core", "-c", script, "--pid", str(os.getpid())], stdin=-1, text=True
    ) as it:
        yield it
        it.kill()


def test_a_number_that_was_given_to_another_process_ends_nothing(core: subprocess.Popen[str]) -> None:
    _end_leftover(os.getpid())
    with pytest.raises(subprocess.TimeoutExpired):
        core.wait(0.1)
