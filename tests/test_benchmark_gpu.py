"""`make bench-gpu`: its table by hand, and the whole script on the CPU, without what a GPU machine may lack."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.verdicts import Line, lacking, markdown, ratio, speed

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


@pytest.mark.parametrize("lacks", [OFTEN_LACKING, OFTEN_LACKING + OF_FFCV], ids=["with FFCV", "without FFCV"])
def test_the_whole_script_runs_on_a_cpu_without_what_may_be_missing(lacks: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    code = (
        f"import runpy, sys\nsys.modules.update(dict.fromkeys({lacks}))\n"
        "runpy.run_module('benchmarks.gpu', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--device", "cpu", "--quick", "--cores", "1", "--out", str(out)],
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
    checks = [row for row in rows if "killed at step" in row or "torchvision's weights" in row]
    assert len(checks) == 3
    assert all(row.rstrip("| ").endswith("met") for row in checks)
    streams = [row for row in rows if "fed by our FFCV stream" in row]
    assert len(streams) == 2
    assert all(("ffcv is not installed here" in row) == ("ffcv" in lacks) for row in streams)
    assert sum("our stream / our step alone" in row for row in rows) == (0 if "ffcv" in lacks else 2)


def test_what_cannot_be_measured_is_said_at_once() -> None:
    for arguments, message in ((["--cores", "0"], "--cores 0"), (["--out", "nowhere/table.md"], "does not exist")):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.gpu", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert message in done.stderr
