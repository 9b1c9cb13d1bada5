"""Launching for real: Ray Tune workers, FFCV, the ledger, the figures; and what is left after a stop or a death."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest
from polars.testing import assert_frame_equal

from orchestrator.ledger import Ledger
from workers.schema import TIMING_COLUMNS

TINY = (
    *("--set", "widths=[2, 4]", "--set", "noise.rates=[0, 0.4]", "--set", "recipe.epochs=4"),
    *("--set", "evaluation.points=6", "--seeds", "2"),
)
"""8 runs in 4 packs, a second or two each."""


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "orchestrator.cli", *map(str, arguments)]


def bo_sweep(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300)


def launch(storage: Path, data: Path, *arguments: str, space: str = "digits-grid") -> subprocess.CompletedProcess[str]:
    return bo_sweep("launch", space, "--storage", storage, "--data", data, *arguments)


def table(storage: Path, name: str = "digits-grid") -> pl.DataFrame:
    """The whole table without what differs from one execution to the next."""
    return Ledger(storage / name).load().drop(*TIMING_COLUMNS, "attempt", "pack_size").sort("run_id", "evaluation")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Path:
    storage = tmp_path_factory.mktemp("undisturbed")
    result = launch(storage, data_folder, *TINY, "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)  # neither Ray nor FFCV writes a word to stdout
    assert document["runs"]["done"] == 8
    assert len(document["cells"]) == 4
    return storage


def test_one_command_ends_with_a_table_figures_and_the_next_commands(undisturbed: Path) -> None:
    again = launch(undisturbed, undisturbed / "no-data-needed", *TINY)
    assert again.returncode == 0
    assert "The ledger of digits-grid is complete: 8 of 8 runs." in again.stderr
    assert "final test error" in again.stdout
    assert "bo-sweep status digits-grid --storage" in again.stderr
    folder = undisturbed / "digits-grid" / "phase"
    for name in ("err_last.png", "err_last.svg", "noise_cost.png", "phase.svg", "overview.png", "cells.csv"):
        assert (folder / name).stat().st_size > 0
        assert str(folder / name) in again.stdout
    assert Ledger(undisturbed / "digits-grid").manifest().launches == 1


def test_the_table_holds_every_evaluation_of_every_run_with_its_provenance(undisturbed: Path) -> None:
    frame = Ledger(undisturbed / "digits-grid").load()
    assert frame.group_by("run_id").len()["len"].to_list() == [6] * 8
    assert frame["status"].unique().to_list() == ["done"]
    assert frame.filter(pl.col("noise_rate") == 0.4)["noise_rate_realised"].unique().to_list() == [0.4]
    assert frame["mask_hash"].null_count() == 0
    assert frame.group_by("seed").agg(pl.col("subset_hash").n_unique())["subset_hash"].to_list() == [1, 1]
    ends = Ledger(undisturbed / "digits-grid").ends()
    assert ends["pack_size"].unique().to_list() == [2]
    assert "torch" in ends["versions"][0]
    assert (ends["seconds"] > 0).all()


def test_status_and_phase_speak_json(undisturbed: Path) -> None:
    status = json.loads(bo_sweep("status", "digits-grid", "--storage", undisturbed, "--json").stdout)
    assert status["schema_version"] == 1
    assert status["runs"] == {"total": 8, "new": 0, "done": 8, "diverged": 0, "failed": 0}
    assert status["evaluations"] == {"planned": 48, "in_ledger": 48}
    result = bo_sweep(
        "phase", "digits-grid", "--storage", undisturbed, "--metric", "err_best", "--format", "svg", "--json"
    )
    phase = json.loads(result.stdout)
    assert len(phase["cells"]) == 4
    assert {cell["n"] for cell in phase["cells"]} == {2}
    assert any(path.endswith("err_best.svg") for path in phase["files"])


def test_growing_trains_only_what_is_new_and_changes_nothing_else(
    undisturbed: Path, data_folder: Path, tmp_path: Path
) -> None:
    storage = tmp_path / "grown"
    subprocess.run(["cp", "-r", undisturbed, storage], check=True)
    before = table(storage)
    grown = launch(storage, data_folder, *TINY[:-1], "3")
    assert grown.returncode == 0, grown.stderr
    assert "4 of 12 runs to train" in grown.stderr
    after = table(storage)
    assert after["run_id"].n_unique() == 12
    assert_frame_equal(after.filter(pl.col("seed") < 2), before)
    shrunk = launch(storage, data_folder, *TINY[:-1], "1")
    assert shrunk.returncode == 0
    assert Ledger(storage / "digits-grid").paths.phase.joinpath("cells.csv").read_text().count("\n") == 5
    cells = pl.read_parquet(storage / "digits-grid" / "phase" / "cells.parquet")
    assert cells["n"].to_list() == [3] * 4


def wait_for(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def start(storage: Path, data: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("launch", "digits-grid", "--storage", storage, "--data", data, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(storage: Path) -> int:
    return len(list((storage / "digits-grid" / "ends").glob("*.parquet")))


LONGER = (*TINY, "--set", "recipe.epochs=12", "--seeds", "3")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_keeps_what_was_committed_and_the_next_launch_goes_on(
    stop: signal.Signals, tmp_path: Path, data_folder: Path
) -> None:
    process = start(tmp_path, data_folder, *LONGER)
    wait_for(lambda: finished(tmp_path) >= 1)
    if stop == signal.SIGINT:
        os.killpg(process.pid, stop)  # Ctrl-C on a terminal reaches the workers too
    else:
        os.kill(process.pid, stop)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 3, errors
    assert "Stopped." in errors
    assert "bo-sweep launch digits-grid" in errors
    assert "Traceback" not in errors
    kept = set(Ledger(tmp_path / "digits-grid").statuses())
    assert 0 < len(kept) < 12
    result = launch(tmp_path, data_folder, *LONGER)
    assert result.returncode == 0, result.stderr
    assert f"{12 - len(kept)} of 12 runs to train" in result.stderr
    frame = Ledger(tmp_path / "digits-grid").load()
    assert frame.filter(pl.col("run_id").is_in(list(kept)))["attempt"].unique().to_list() == [1]
    assert frame["run_id"].n_unique() == 12


@pytest.mark.parametrize("sign", ["gcs_server", "raylet"])
def test_a_stop_while_the_cluster_starts_is_a_stop(sign: str, tmp_path: Path, data_folder: Path) -> None:
    process = start(tmp_path, data_folder, *LONGER)
    wait_for(lambda: any(sign in child.name() for child in psutil.Process(process.pid).children(recursive=True)))
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 3, errors
    assert "Stopped." in errors


@pytest.mark.parametrize("victim", ["worker", "driver"])
def test_after_a_kill_the_table_is_that_of_an_undisturbed_sweep(
    victim: str, undisturbed: Path, tmp_path: Path, data_folder: Path
) -> None:
    process = start(tmp_path, data_folder, *TINY)

    def workers() -> list[psutil.Process]:
        children = psutil.Process(process.pid).children(recursive=True)
        return [child for child in children if "ImplicitFunc" in " ".join(child.cmdline())]

    wait_for(lambda: (tmp_path / "digits-grid" / "rows").exists())
    if victim == "worker":
        workers()[0].kill()
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    else:
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        process.communicate()
        psutil.wait_procs(children, timeout=30)
        result = launch(tmp_path, data_folder, *TINY)
        assert result.returncode == 0, result.stderr
    assert_frame_equal(table(tmp_path), table(undisturbed))


def test_a_run_that_fails_is_recorded_with_its_cause_and_does_not_take_others_along(
    tmp_path: Path, data_folder: Path
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(["0"] * 700))  # 90 % of the digits can be corrupted by it, not 95 %
    noise = f"noise={{model: file, file: {labels}, rates: [0, 0.3, 0.95]}}"
    arguments = ("--set", noise, "--set", "widths=[2]", "--set", "recipe.epochs=1", "--seeds", "1")
    result = launch(tmp_path, data_folder, *arguments)
    assert result.returncode == 1, result.stderr
    assert "1 runs failed" in result.stderr
    assert "--retry-failed" in result.stderr
    statuses = Ledger(tmp_path / "digits-grid").statuses()
    assert sorted(statuses.values()) == ["done", "done", "failed"]
    status = json.loads(bo_sweep("status", "digits-grid", "--storage", tmp_path, "--json").stdout)
    (failure,) = status["failures"]
    assert "noise.py" in failure["signature"]
    assert "0.95" in failure["sample"]
    again = launch(tmp_path, data_folder, *arguments)
    assert again.returncode == 1
    assert Ledger(tmp_path / "digits-grid").manifest().launches == 1
    retried = launch(tmp_path, data_folder, *arguments, "--retry-failed")
    assert retried.returncode == 1
    assert Ledger(tmp_path / "digits-grid").manifest().launches == 2


def test_a_running_cluster_can_be_used_by_address(tmp_path: Path, data_folder: Path, undisturbed: Path) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        result = launch(tmp_path, data_folder, *TINY, "--address", cluster.address)
        assert result.returncode == 0, result.stderr
    finally:
        cluster.shutdown()
    assert_frame_equal(table(tmp_path), table(undisturbed))


def test_missing_betons_on_a_cluster_are_told_before_anything_is_recorded(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        on_cpu = ("--set", "resources={}", "--set", "widths=[2]")
        result = launch(tmp_path / "s", tmp_path / "d", *on_cpu, "--address", cluster.address, space="cifar10-grid")
    finally:
        cluster.shutdown()
    assert result.returncode == 4
    assert "train.beton" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "s").exists()


def test_an_address_where_no_cluster_answers_is_told(tmp_path: Path, data_folder: Path) -> None:
    result = launch(tmp_path, data_folder, *TINY, "--address", "127.0.0.1:1")
    assert result.returncode == 4
    assert "127.0.0.1:1" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []
