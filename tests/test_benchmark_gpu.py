"""`make bench-gpu`: its table by hand, and the whole script on the CPU, without what a GPU machine may lack."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import sharing
from benchmarks.gpu.grid_hours import Speeds, between_widths, grid_hours, hours
from benchmarks.gpu.packs import Cell, Taken, judge
from benchmarks.gpu.sizes import QUICK
from benchmarks.gpu.verdicts import Line, lacking, markdown, ratio, speed
from search_spaces.catalog import load_space
from search_spaces.packs import group_packs
from search_spaces.runs import expand

ROOT = Path(__file__).resolve().parent.parent
OFTEN_LACKING = ("ray", "wandb", "polars", "click", "rich", "psutil", "yaml", "matplotlib")
OF_FFCV = ("ffcv", "numba", "llvmlite", "cv2", "sklearn", "scipy")


def test_speeds_and_ratios_come_with_their_number_median_and_spread() -> None:
    assert speed("step", [3000.4, 1000.0, 2000.0]).found == "2,000 (1,000 to 3,000) images/s"
    line = ratio("fed / step", [90.0, 99.0, 100.0], [100.0, 100.0, 100.0], 0.95)
    assert (line.found, line.goal, line.verdict, line.n) == ("0.990 (0.900 to 1.000)", ">= 0.95", "met", 3)
    assert ratio("fed / step", [0.5], [1.0], 0.95).verdict == "MISSED"
    assert ratio("fed / step", [0.5], [1.0]).verdict == ""


def test_the_table_is_markdown_with_aligned_columns() -> None:
    table = markdown("# Title", [Line("a", "1.0", ">= 1", True), lacking("a longer one")])
    title, empty, *rows = table.splitlines()
    assert (title, empty) == ("# Title", "")
    assert len({len(row) for row in rows}) == 1
    assert [cell.strip() for cell in rows[-1].split("|")] == [
        *("", "a longer one", "0", "ffcv is not installed here", "", "", "")
    ]


def test_packs_are_judged_by_the_way_that_a_first_round_chose() -> None:
    def cell(models: int, fused: float, in_turn: float, processes: float) -> Cell:
        ways = {"alone": Taken(100.0, [100.0, 110.0, 90.0]), f"{models} processes": Taken(processes, [processes] * 3)}
        ways |= {"one after another": Taken(in_turn, [in_turn] * 3), f"fused by {models}": Taken(fused, [fused] * 3)}
        return Cell(4, models, ways, "fused by 2" if models == 2 else "one after another")

    alone, processes, worst = judge(4, [cell(2, 300.0, 100.0, 150.0), cell(4, 400.0, 380.0, 200.0)])
    assert (alone.what, alone.found, alone.verdict) == (
        "CIFAR ResNet18 k=4: 4 models, one after another / one model alone in one process",
        "3.800 (3.455 to 4.222)",
        "MISSED",
    )
    assert (processes.found, processes.goal, processes.verdict) == ("1.900 (1.900 to 1.900)", ">= 2", "MISSED")
    assert worst.verdict == "met"
    assert "at its worst (4 models" in worst.what
    *_, worst = judge(4, [cell(2, 100.0, 100.0, 150.0)])
    assert (worst.found, worst.verdict) == ("0.667 (0.667 to 0.667)", "MISSED")


def test_the_hours_of_the_grid_are_its_samples_over_the_speeds() -> None:
    same = {width: Speeds(alone=1000.0, packed={2: 2000.0, 4: 4000.0}) for width in (4, 16)}
    space = load_space("cifar10-grid", ["widths=[4]", "seeds=1", "recipe.epochs=2", "evaluation.first_epoch_points=0"])
    runs = expand(space)
    samples = 50_000 * 2 + (50_000 + 10_000) * 2 / 3  # two evaluations on all images
    assert hours(group_packs(runs, "off"), same) == pytest.approx(5 * samples / 1000 / 3600)
    assert hours(group_packs(runs, "auto"), same) == pytest.approx(5 * samples / 4000 / 3600)  # 5 a pack: as for 4
    faster = {4: Speeds(100.0, {2: 400.0}), 16: Speeds(100.0, {2: 100.0})}
    assert between_widths(faster, 8, 5) == pytest.approx(200.0)
    assert (between_widths(faster, 2, 2), between_widths(faster, 64, 2)) == pytest.approx((400.0, 100.0))
    alone, by_rate, by_seed = grid_hours(same)
    assert "135 runs" in alone.what
    assert "27 packs of up to 5" in by_rate.what
    assert "9 packs of up to 15" in by_seed.what
    assert "takes 4.00 times as long" in by_rate.found


def test_without_ffcv_sharing_a_stream_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "HAS_FFCV", False)
    (line,) = sharing.measure(torch.device("cpu"), QUICK, Path("nowhere"), [1])
    assert line.found == "ffcv is not installed here"


@pytest.mark.parametrize("lacks", [OFTEN_LACKING, OFTEN_LACKING + OF_FFCV], ids=["with FFCV", "without FFCV"])
def test_the_whole_script_runs_on_a_cpu_without_what_may_be_missing(lacks: tuple[str, ...], tmp_path: Path) -> None:
    out, without_ffcv = tmp_path / "table.md", "ffcv" in lacks
    some = ["--only", "speeds"] if without_ffcv else []  # the rest needs it for one line at most
    code = (
        f"import runpy, sys\nsys.modules.update(dict.fromkeys({lacks}))\n"
        "runpy.run_module('benchmarks.gpu', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--device", "cpu", "--quick", "--cores", "1", "--out", str(out), *some],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    table = out.read_text(encoding="utf-8")
    assert done.stdout.strip().endswith(table.strip())
    rows = [row for row in table.splitlines() if row.startswith("|")]
    of_checks = ("killed at step", "torchvision's weights", "fused in packs", "fused against alone", "that is NaN")
    checks = [row for row in rows if any(name in row for name in of_checks)]
    assert len(checks) == (0 if without_ffcv else 7)
    assert all(row.rstrip("| ").endswith("met") for row in checks)
    streams = [row for row in rows if "fed by our FFCV stream" in row]
    assert len(streams) == 2
    assert all(("ffcv is not installed here" in row) == without_ffcv for row in streams)
    assert sum("our stream / our step alone" in row for row in rows) == (0 if without_ffcv else 2)
    if not without_ffcv:
        assert_packs_are_measured(rows)


def assert_packs_are_measured(rows: list[str]) -> None:
    (speeds,) = [row for row in rows if "2 models: samples x models/s" in row]
    assert all(way in speeds for way in ("alone ", "2 processes ", "one after another ", "fused by 2 "))
    assert sum("the way chosen / the best other way" in row for row in rows) == 1
    (grid,) = [row for row in rows if "cifar10-grid, GPU-hours" in row]
    assert "PyYAML is not installed here" in grid
    assert sum("on one stream" in row for row in rows) == 4


def test_what_cannot_be_measured_is_said_at_once() -> None:
    for arguments, message in ((["--cores", "0"], "--cores 0"), (["--out", "nowhere/table.md"], "does not exist")):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.gpu", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert message in done.stderr
