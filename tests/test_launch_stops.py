"""Launches that are stopped, killed or started twice: nothing that was committed is lost, and the next one goes on."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import polars as pl
import psutil
import pytest
from polars.testing import assert_frame_equal

from orchestrator.ledger import Ledger
from orchestrator.verify import verify
from tests.launches import (
    LONGER,
    ONE_WORKER,
    assert_verified,
    bo_sweep_here,
    commands_below,
    creeping,
    end_of,
    has_saved,
    in_training,
    launch,
    table,
)
from tests.waiting import PATIENCE_SECONDS, wait_for

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Path:
    storage = tmp_path_factory.mktemp("longer")
    result = launch(storage, data_folder, *LONGER, *ONE_WORKER)
    assert result.returncode == 0, result.stderr
    return storage


def test_the_first_ctrl_c_saves_what_runs_and_the_next_launch_goes_on_from_there(
    tmp_path: Path, data_folder: Path, longer: Path
) -> None:
    with creeping(tmp_path / "creeps", tmp_path, data_folder, *LONGER) as process:
        wait_for(lambda: has_saved(process, tmp_path))
        os.killpg(process.pid, signal.SIGINT)  # on a terminal it reaches the workers too
        errors = end_of(process)
    assert process.returncode == 3, errors
    assert "Stopped before the end" in errors
    assert "bo-sweep launch digits-grid" in errors
    assert "Traceback" not in errors
    saved = [path.stem for path in (tmp_path / "digits-grid" / "checkpoints").iterdir()]
    assert saved, "what was in training has a checkpoint"
    assert list((tmp_path / "digits-grid" / "lease").iterdir()) == []
    kept = set(Ledger(tmp_path / "digits-grid").statuses())
    result = launch(tmp_path, data_folder, *LONGER, *ONE_WORKER)
    assert result.returncode == 0, result.stderr
    assert f"{8 - len(kept)} of 8 runs to train" in result.stderr
    events = Ledger(tmp_path / "digits-grid").logs()
    assert set(events.filter(pl.col("event") == "resumed")["run_id"]) == set(saved)
    assert list((tmp_path / "digits-grid" / "checkpoints").iterdir()) == []
    assert_verified(tmp_path)
    assert_frame_equal(table(tmp_path), table(longer))


def test_a_second_launch_is_refused_while_the_first_one_runs_and_a_second_stop_of_that_one_stops_at_once(
    tmp_path: Path, data_folder: Path
) -> None:
    with creeping(tmp_path / "creeps", tmp_path, data_folder, *LONGER) as process:
        wait_for(lambda: in_training(process, tmp_path))
        second = launch(tmp_path, data_folder, *LONGER)
        assert second.returncode == 4
        assert f"process {process.pid}" in second.stderr
        assert "status digits-grid --watch" in second.stderr
        status = json.loads(bo_sweep_here("status", "digits-grid", "--storage", tmp_path, "--json").stdout)
        assert status["live"]["workers"] == 2
        assert status["runs"]["running"] > 0
        shown = bo_sweep_here("status", "digits-grid", "--storage", tmp_path).stdout
        assert f"process {process.pid}" in shown
        assert verify(Ledger(tmp_path / "digits-grid")).problems == [], "safe while it runs"
        process.terminate()
        process.terminate()
        time.sleep(0.3)
        process.terminate()
        errors = end_of(process)
    assert process.returncode == 3, errors
    assert "Traceback" not in errors
    assert verify(Ledger(tmp_path / "digits-grid")).problems == [], "nothing that was committed is lost"


@pytest.mark.parametrize("sign", ["gcs_server", "raylet"])
def test_a_stop_while_the_cluster_starts_is_a_stop(sign: str, tmp_path: Path, data_folder: Path) -> None:
    with creeping(tmp_path / "creeps", tmp_path, data_folder, *LONGER) as process:
        wait_for(lambda: any(sign in name for name in commands_below(process)))
        process.terminate()
        errors = end_of(process)
    assert process.returncode == 3, errors
    assert "Stopped" in errors


@pytest.mark.parametrize("victim", ["worker", pytest.param("driver", marks=pytest.mark.chaos)])
def test_after_a_kill_the_table_is_that_of_an_undisturbed_sweep(
    victim: str, longer: Path, tmp_path: Path, data_folder: Path
) -> None:
    sign = tmp_path / "creeps"
    with creeping(sign, tmp_path, data_folder, *LONGER) as process:
        wait_for(lambda: has_saved(process, tmp_path))
        children = commands_below(process)
        if victim == "worker":
            next(child for command, child in children.items() if "ImplicitFunc" in command).kill()
            sign.unlink()
            errors = end_of(process)
            assert process.returncode == 0, errors
        else:
            process.kill()
            end_of(process)
            psutil.wait_procs(children.values(), timeout=PATIENCE_SECONDS)
            result = launch(tmp_path, data_folder, *LONGER)
            assert result.returncode == 0, result.stderr
    assert_verified(tmp_path)
    assert_frame_equal(table(tmp_path), table(longer))
