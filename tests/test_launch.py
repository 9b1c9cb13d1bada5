"""Launching for real: Ray Tune workers, FFCV, the ledger, the figures."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from orchestrator.ledger import Ledger
from tests.launches import ONE_WORKER, TINY, assert_verified, bo_sweep, bo_sweep_here, launch, table
from workers.schema import ROWS

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Path:
    storage = tmp_path_factory.mktemp("undisturbed")
    result = launch(storage, data_folder, *TINY, "--figures", "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)  # neither Ray nor FFCV writes a word to stdout
    assert document["runs"]["done"] == 8
    assert len(document["cells"]) == 4
    return storage


def test_one_command_ends_with_a_table_figures_and_the_next_commands(undisturbed: Path) -> None:
    again = launch(undisturbed, undisturbed / "no-data-needed", *TINY, "--figures")
    assert again.returncode == 0
    assert "The ledger of digits-grid is complete: 8 of 8 runs." in again.stderr
    assert "final test error" in again.stdout
    assert "bo-sweep status digits-grid --storage" in again.stderr
    assert_verified(undisturbed)
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
    assert ends["pack_size"].max() == 2  # the last packs are cut where a worker would idle
    assert "torch" in ends["versions"][0]
    assert (ends["seconds"] > 0).all()


def test_status_and_phase_speak_json(undisturbed: Path) -> None:
    status = json.loads(bo_sweep_here("status", "digits-grid", "--storage", undisturbed, "--json").stdout)
    assert status["schema_version"] == 1
    counts = {"done": 8, "running": 0, "waiting": 0, "failed": 0, "diverged": 0, "lost": 0}
    assert status["runs"] == {"total": 8, **counts}
    assert status["live"] is None
    assert status["images_per_second"] > 0
    assert status["evaluations"] == {"planned": 48, "in_ledger": 48}
    result = bo_sweep_here(
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
    grown = launch(storage, data_folder, *TINY[:-1], "3", *ONE_WORKER)
    assert grown.returncode == 0, grown.stderr
    assert "4 of 12 runs to train" in grown.stderr
    after = table(storage)
    assert after["run_id"].n_unique() == 12
    assert_frame_equal(after.filter(pl.col("seed") < 2), before)
    shrunk = launch(storage, data_folder, *TINY[:-1], "1", "--figures")
    assert shrunk.returncode == 0
    assert (storage / "digits-grid" / "phase" / "cells.csv").read_text().count("\n") == 5
    cells = pl.read_parquet(storage / "digits-grid" / "phase" / "cells.parquet")
    assert cells["n"].to_list() == [3] * 4


def test_a_budget_of_runs_ends_with_exit_code_3_and_the_command_that_goes_on(tmp_path: Path, data_folder: Path) -> None:
    result = launch(tmp_path, data_folder, *TINY, "--max-runs", "3", *ONE_WORKER)
    assert result.returncode == 3, result.stderr
    assert "3 runs were allowed" in result.stderr
    assert "bo-sweep launch digits-grid --storage" in result.stderr
    assert list(Ledger(tmp_path / "digits-grid").statuses().values()) == ["done"] * 3


def test_finished_runs_of_another_sweep_are_taken_over_by_id(
    undisturbed: Path, tmp_path: Path, data_folder: Path
) -> None:
    storage = tmp_path / "s"
    subprocess.run(["cp", "-r", undisturbed, storage], check=True)
    result = launch(storage, data_folder, *TINY[:-1], "3", "--name", "wider", "--reuse", "digits-grid", *ONE_WORKER)
    assert result.returncode == 0, result.stderr
    assert "8 finished runs taken over from sweep digits-grid" in result.stderr
    assert "4 of 12 runs to train" in result.stderr
    assert_verified(storage, "wider")
    ends = Ledger(storage / "wider").ends()
    assert ends["reused_from"].drop_nulls().to_list() == ["digits-grid"] * 8
    assert_frame_equal(table(storage, "wider").filter(pl.col("seed") < 2), table(undisturbed))


def test_damage_is_named_and_just_what_is_lost_is_trained_again(
    undisturbed: Path, tmp_path: Path, data_folder: Path
) -> None:
    storage = tmp_path / "s"
    subprocess.run(["cp", "-r", undisturbed, storage], check=True)
    ledger = Ledger(storage / "digits-grid")
    rows = ledger.load()
    by_run = rows.partition_by("run_id", maintain_order=True)
    for path in (storage / "digits-grid" / "rows").iterdir():  # one part a run, to damage some of them
        path.unlink()
    for number, frame in enumerate(by_run):
        ledger.write_rows(f"run-{number}", frame.select(ROWS.names).to_arrow().cast(ROWS))
    cut, flipped, deleted, *_ = sorted((storage / "digits-grid" / "rows").iterdir())
    lost = {frame["run_id"][0] for frame in by_run[:3]}
    foreign = cut.with_name("foreign.parquet")
    pl.DataFrame({"x": [1]}).write_parquet(foreign)
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 16
    flipped.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[:-100])
    deleted.unlink()
    verified = bo_sweep_here("verify", "digits-grid", "--storage", storage)
    assert verified.exit_code == 1
    for part in (cut.name, flipped.name, foreign.name, *lost):
        assert part in verified.stdout
    refused = bo_sweep_here("phase", "digits-grid", "--storage", storage)
    assert refused.exit_code == 4
    assert cut.name in refused.stderr
    result = launch(storage, data_folder, *TINY, *ONE_WORKER)
    assert result.returncode == 0, result.stderr
    assert "3 of 8 runs to train" in result.stderr
    for path in (cut, flipped, foreign):
        assert path.name in result.stderr
        assert (storage / "digits-grid" / "damaged" / f"rows-{path.name}").exists()
    assert_verified(storage)
    assert_frame_equal(table(storage), table(undisturbed))
    again = Ledger(storage / "digits-grid").load().filter(pl.col("attempt") >= 2_000_000)
    assert set(again["run_id"]) == lost


def test_a_run_can_be_reproduced_from_what_the_ledger_says(undisturbed: Path, data_folder: Path) -> None:
    run_id = Ledger(undisturbed / "digits-grid").load()["run_id"][0]
    result = bo_sweep(
        *("reproduce", "digits-grid", run_id[:10], "--storage", undisturbed, "--data", data_folder, "--run", "--json")
    )
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["run_id"] == run_id
    assert document["comparison"] == {"rows_before": 6, "rows_now": 6, "differences": {}, "identical": True}
    assert "--set seeds=" in document["command"].replace("'", "")
    assert document["trained with"] == document["here"]


def test_a_run_that_fails_is_recorded_with_its_cause_and_does_not_take_others_along(
    tmp_path: Path, data_folder: Path
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(["0"] * 700))  # 90 % of the digits can be corrupted by it, not 95 %
    noise = f"noise={{model: file, file: {labels}, rates: [0, 0.3, 0.95]}}"
    arguments = ("--set", noise, "--set", "widths=[2]", "--set", "recipe.epochs=1", "--seeds", "1", *ONE_WORKER)
    result = launch(tmp_path, data_folder, *arguments)
    assert result.returncode == 1, result.stderr
    assert "1 runs failed" in result.stderr
    assert "--retry-failed" in result.stderr
    statuses = Ledger(tmp_path / "digits-grid").statuses()
    assert sorted(statuses.values()) == ["done", "done", "failed"]
    status = json.loads(bo_sweep_here("status", "digits-grid", "--storage", tmp_path, "--json").stdout)
    (failure,) = status["failures"]
    assert "noise.py" in failure["signature"]
    assert "0.95" in failure["sample"]
    again = launch(tmp_path, data_folder, *arguments)
    assert again.returncode == 1
    assert Ledger(tmp_path / "digits-grid").manifest().launches == 1
    assert "0.95" in bo_sweep_here("status", "digits-grid", "--storage", tmp_path, "--failures").stdout
    assert "0.95" in bo_sweep_here("logs", "digits-grid", "--storage", tmp_path, "--level", "error").stdout
    unknown = launch(tmp_path, data_folder, *arguments, "--retry-failed", "--signature", "no such")
    assert unknown.returncode == 2
    retried = launch(tmp_path, data_folder, *arguments, "--retry-failed", "--signature", failure["signature"])
    assert retried.returncode == 1
    assert Ledger(tmp_path / "digits-grid").manifest().launches == 2


def test_a_running_cluster_can_be_used_by_address(tmp_path: Path, data_folder: Path, undisturbed: Path) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        result = launch(tmp_path, data_folder, *TINY, *ONE_WORKER, "--address", cluster.address)
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
