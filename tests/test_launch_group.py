"""The real thing, small: images are prepared, and imagenet-lite trains on them in two processes, one of which dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml

from orchestrator.ledger import Ledger
from search_spaces.catalog import load_space
from search_spaces.packs import group_packs
from search_spaces.runs import expand
from tests.chaos.places import nodes
from tests.groups import train_together
from tests.image_sources import image_file, pixels
from tests.launches import assert_verified, bo_sweep, commands_below, creeping, end_of, in_training, launching
from tests.waiting import PATIENCE_SECONDS, wait_for
from workers.group import ALONE

pytestmark = pytest.mark.ray

SMALL = (
    *("samples=80", "widths=[4]", "noise.rates=[0, 0.4]", "dataset.validation_samples=8"),
    *("recipe.batch_size=16", "recipe.micro_batch=8", "recipe.epochs=10", "recipe.warmup_epochs=0"),
    *("recipe.learning_rate=0.01", "recipe.precision=fp32", "evaluation.first_epoch_points=0"),
    *("evaluation.train_samples=40", "resources.cpus_per_worker=1", "resources.processes_per_worker=2"),
    *("resources.gpus_per_worker=0", "resources.checkpoint_seconds=0.5"),
)


@pytest.fixture
def photos(tmp_path: Path) -> tuple[Path, list[str]]:
    """A data folder with a prepared image folder, and what a space has to be told of it."""
    for label in range(4):
        for part, count in (("train", 25), ("val", 10)):
            folder = tmp_path / "photos" / part / f"class-{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                array = pixels(100 * label + number, height=40 + number, width=70 - number)
                (folder / f"{number}.JPEG").write_bytes(image_file(array))
    data = tmp_path / "data"
    arguments: tuple[str | Path, ...] = (
        "--source",
        tmp_path / "photos",
        "--out",
        data,
        "--name",
        "photos",
        "--resolution",
        "32",
    )
    made = bo_sweep("prepare", "folder", *arguments, "--workers", "1")
    assert made.returncode == 0, made.stderr
    snippet = (data / "photos" / "dataset.yaml").read_text()
    assert snippet in made.stdout
    return data, [f"dataset={json.dumps(yaml.safe_load(snippet)['dataset'])}", *SMALL]


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_imagenet_lite_trains_in_two_processes_and_survives_the_death_of_one(
    tmp_path: Path, photos: tuple[Path, list[str]]
) -> None:
    data, overrides = photos
    storage = tmp_path / "sweeps"
    sets = [part for override in overrides for part in ("--set", override)]
    saved = storage / "imagenet-lite" / "checkpoints"
    sign = tmp_path / "creeps"
    with creeping(sign, storage, data, *sets, space="imagenet-lite") as process:
        wait_for(lambda: in_training(process, storage, "imagenet-lite") and any(saved.glob("*")))
        (killed,) = [child for command, child in commands_below(process).items() if "_follow" in command]
        killed.send_signal(signal.SIGKILL)
        sign.unlink()
        errors = end_of(process)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert_verified(storage, "imagenet-lite")
    ledger = Ledger(storage / "imagenet-lite")
    assert "resumed" in ledger.logs()["event"].to_list()

    (pack,) = group_packs(expand(load_space("imagenet-lite", overrides)), "auto")
    expected, _ = train_together(ALONE, pack.runs, data)
    rows = ledger.load().sort("evaluation", pl.col("run_id") != pack.runs[0].run_id).to_dicts()
    for row, other in zip(rows[:4], expected[:4], strict=True):  # before rounding grows; test_group.py compares closely
        for name in ("batch_loss", "train_loss_given", "test_loss"):
            assert row[name] == pytest.approx(other[name], rel=0.03), name
    assert [(row["run_id"], row["step"]) for row in rows] == [(row["run_id"], row["step"]) for row in expected]


@pytest.mark.chaos
def test_a_run_that_fails_in_one_of_two_processes_is_set_aside_and_all_others_are_done(
    tmp_path: Path, data_folder: Path
) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from orchestrator.launch import launch\nfrom orchestrator.launch_plan import LaunchOptions\n"
        "from orchestrator.storage import open_storage; from search_spaces.catalog import load_space\n"
        "options = LaunchOptions(open_storage(sys.argv[1]), 'sweep', Path(sys.argv[2]), "
        "trainer='tests.trainers:fails_in_the_second_process')\n"
        "launch(load_space('digits-grid', sys.argv[3:]), options)"
    )
    overrides = ("widths=[2]", "noise.rates=[0, 0.2, 0.4]", "seeds=1", "recipe.epochs=3", "evaluation.points=4")
    root = Path(__file__).resolve().parent.parent
    arguments = (str(tmp_path), str(data_folder), *overrides, "resources.processes_per_worker=2")
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert result.returncode == 0, result.stderr
    ledger = Ledger(tmp_path / "sweep")
    runs = expand(load_space("digits-grid", overrides))
    statuses = ledger.statuses()
    assert [statuses[run.run_id] for run in runs] == ["done", "done", "failed"]
    (error,) = ledger.ends().filter(pl.col("status") == "failed")["error"]
    assert "CUDA out of memory" in error


@pytest.mark.chaos
def test_runs_over_three_nodes_go_on_when_one_is_lost_and_another_comes(tmp_path: Path, data_folder: Path) -> None:
    overrides = ("widths=[2]", "noise.rates=[0, 0.4]", "seeds=1", "recipe.epochs=60", "evaluation.points=20")
    more = ("resources.processes_per_worker=3", "resources.checkpoint_seconds=0.5")
    sets = [part for override in (*overrides, *more) for part in ("--set", override)]
    with nodes() as cluster, launching(tmp_path, data_folder, *sets, "--address", cluster.ray.address) as process:
        wait_for(lambda: in_training(process, tmp_path))
        cluster.remove(0, kill=True)
        cluster.add()
        errors = end_of(process)
    assert process.returncode == 0, errors
    assert_verified(tmp_path)
    events = Ledger(tmp_path / "digits-grid").logs()["event"].to_list()
    assert "resumed" in events
