"""Golden numbers: a real sweep of the digits, and what an analysis has to make of it, to the last digit that matters.

tests/fixtures/golden-digits is what a launch of digits-grid with widths 4 and 16, noise rates 0, 0.2 and 0.4 and three
seeds left (its parts put together, the machine's name taken out). A change of these numbers is a change of a
definition: it needs a reason, not a new golden number.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from orchestrator.cli import main
from orchestrator.ledger import Ledger
from orchestrator.ledger_schema import ENDS
from orchestrator.parts import list_parts, read_parts
from orchestrator.phase_diagram import Diagram, analyse, planned_runs, run_metrics
from search_spaces.spec import Cell

FIXTURE = Path(__file__).parent / "fixtures" / "golden-digits"
TEST_IMAGES = 797

# Wrong of 797 test images at the end, at the best epoch, and where the validation error is lowest; clean twin's wrong
# ones; share of corrupted examples memorised; first epoch that interpolates.
RUNS = {
    "e68a58d3330211ee": (72, 72, 72, 72, None, 60.0),
    "ab44b49dc4bf32e5": (80, 80, 80, 80, None, 60.0),
    "e2d131d7b9b5a98b": (69, 69, 69, 69, None, 30.256),
    "065e054e912c85a5": (17, 16, 18, 17, None, 15.256),
    "18d1a432cedd3130": (29, 29, 29, 29, None, 7.64),
    "321ee4216efba5a5": (20, 20, 21, 20, None, 15.256),
    "1ec4cb6cdbef2bff": (195, 171, 171, 72, 0.51, None),
    "d01493cec7d55ea2": (234, 201, 201, 80, 0.51, None),
    "471fed608a2285d3": (246, 245, 246, 69, 0.5, None),
    "6e611a3df61bab29": (299, 101, 101, 17, 0.76, 30.256),
    "cb33805d9dd4b369": (114, 71, 71, 29, 1.0, 30.256),
    "f40b974afb94edb6": (123, 112, 117, 20, 1.0, 30.256),
    "f8e7e38b87a9dfd1": (351, 345, 351, 72, 0.47, None),
    "046b5d26c415a8b4": (334, 330, 334, 80, 0.47, None),
    "3d7ea170ed4442f2": (385, 284, 301, 69, 0.53, None),
    "ffcc2375d98adc4c": (262, 112, 112, 17, 1.0, 30.256),
    "d2e03d5826eb1332": (279, 143, 143, 29, 1.0, 30.256),
    "dda127f185065e29": (281, 174, 174, 20, 1.0, 30.256),
}
CELL = (
    *("noise_rate", "width", "err_last_mean", "err_last_low", "err_last_high", "noise_cost_mean", "noise_cost_se"),
    *("gap_err_mean", "memorised_mean", "p_underfit", "p_tempered", "phase"),
)
CELLS = [
    (0.0, 4, 0.09243, 0.074707, 0.110153, 0.0, 0.0, 0.0, None, 0.0, 0.0, "benign"),
    (0.0, 16, 0.027604, 0.008139, 0.047068, 0.0, 0.0, 0.000418, None, 0.0, 0.0, "benign"),
    (0.2, 4, 0.282309, 0.199199, 0.365418, 0.189879, 0.01963, 0.024258, 0.506667, 1.0, 0.0, "underfit"),
    (0.2, 16, 0.224174, -0.100942, 0.54929, 0.19657, 0.078898, 0.105395, 0.92, 0.695, 0.305, "undecided"),
    (0.4, 4, 0.447512, 0.366573, 0.52845, 0.355082, 0.022596, 0.046424, 0.49, 1.0, 0.0, "underfit"),
    (0.4, 16, 0.343789, 0.311248, 0.37633, 0.316186, 0.00593, 0.164366, 1.0, 0.0, 1.0, "tempered"),
]


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Diagram:
    folder = tmp_path_factory.mktemp("golden") / "golden-digits"
    shutil.copytree(FIXTURE, folder)
    return analyse(Ledger(folder), metrics=("err_last", "noise_cost"), formats=("svg",))


def phase_folder(diagram: Diagram) -> Path:
    return Path(diagram.files[0]).parent


def close(found: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(expected, float):
        return found is not None and abs(found - expected) <= tolerance
    return bool(found == expected)


def test_every_run_has_its_golden_metrics(golden: Diagram) -> None:
    names = ("err_last", "err_best", "err_valsel", "noise_cost", "memorised", "interpolation_epoch")
    found = {row[0]: row[1:] for row in golden.runs.select("run_id", *names).rows()}
    assert found.keys() == RUNS.keys()
    for run_id, (last, best, chosen, twin, memorised, epoch) in RUNS.items():
        wrong = [round(value * TEST_IMAGES, 3) for value in found[run_id][:4]]
        assert wrong == [last, best, chosen, last - twin], run_id
        assert close(found[run_id][4], memorised, 1e-6), run_id
        assert close(found[run_id][5], epoch, 1e-6), run_id


def test_every_cell_has_its_golden_means_intervals_and_phase(golden: Diagram) -> None:
    rows = golden.cells.select(*CELL).rows()
    assert len(rows) == len(CELLS)
    for found, expected in zip(rows, CELLS, strict=True):
        wrong = [name for name, a, b in zip(CELL, found, expected, strict=True) if not close(a, b, 2e-6)]
        assert not wrong, (found, expected)


def test_the_manifest_says_what_was_written_from_what_and_comes_out_the_same(golden: Diagram) -> None:
    folder = phase_folder(golden)
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {Path(name).name for name in golden.files} - {"manifest.json"}
    assert manifest["files"].keys() == files == {path.name for path in folder.iterdir()} - {"manifest.json"}
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert manifest["runs"] == {"done": sorted(RUNS)}
    assert manifest["missing_cells"] == []
    assert manifest["dataset"]["name"] == "digits"
    assert manifest["thresholds"]["interval"] == 0.95
    assert "code " in manifest["versions"]["analysis"]
    assert len(manifest["versions"]["runs"]) == 1
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    analyse(Ledger(folder.parent), metrics=("err_last", "noise_cost"), formats=("svg",))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_cell_whose_runs_are_lost_is_missing_in_every_table_and_figure(tmp_path: Path) -> None:
    """The ends of one cell are taken away, so that the ledger holds no finished run of it."""
    folder = tmp_path / "sweep"
    shutil.copytree(FIXTURE, folder)
    ledger = Ledger(folder)
    lost = {"ffcc2375d98adc4c", "d2e03d5826eb1332", "dda127f185065e29"}
    kept = [end for end in read_parts(ledger.storage, "ends", ENDS).to_pylist() if end["run_id"] not in lost]
    for part in list_parts(ledger.storage, "ends"):
        (folder / part.path).unlink()
    ledger.write_ends("kept", kept)
    boundaries = ("--boundary", "noise_cost=0.1", "--metric", "noise_cost", "--format", "svg")
    result = CliRunner().invoke(main, ["phase", "sweep", "--storage", str(tmp_path), *boundaries])
    assert result.exit_code == 0, result.output
    cells = pl.read_parquet(folder / "phase" / "cells.parquet").filter(noise_rate=0.4, width=16)
    assert cells.select("n", "n_unfinished", "phase", "err_last_mean").row(0) == (0, 3, "missing", None)
    manifest = json.loads((folder / "phase" / "manifest.json").read_text())
    assert manifest["runs"]["running"] == sorted(lost)
    assert [(cell["noise_rate"], cell["width"]) for cell in manifest["missing_cells"]] == [(0.4, 16)]
    for name in ("noise_cost", "phase", "overview", "boundary", "boundary-noise_cost"):
        table = pl.read_csv(folder / "phase" / f"{name}.csv", infer_schema_length=None)
        cell = table.filter(pl.col("layer") == "cell", noise_rate=0.4).filter(pl.col("ratio") > 30)
        assert set(cell["state"]) == {"missing"}, name
        assert set(cell["value"]) == {None}, name
        drawn = (folder / "phase" / f"{name}.svg").read_text()
        place = 'id="missing 5"' if name.startswith("boundary") else 'id="missing 2 1"'
        assert place in drawn, name
        assert place.replace("missing", "measured") not in drawn, name


def test_cells_that_a_space_holds_beside_its_grid_and_runs_of_a_larger_launch_are_all_in_the_table() -> None:
    ledger = Ledger(FIXTURE)
    space, ends = ledger.manifest().space, ledger.ends()
    runs, _ = run_metrics(ledger)
    more = (
        Cell(noise_rate=0.27, width=8, samples=500, seeds=(0, 1)),
        Cell(noise_rate=0.4, width=4, samples=500, seeds=(7,)),
    )
    planned = planned_runs(space.model_copy(update={"cells": more}), ends, runs)
    assert planned.height == len(RUNS) + 3
    assert planned.filter(~pl.col("in_grid")).select("noise_rate", "width").unique().rows() == [(0.27, 8)]
    smaller = space.model_copy(update={"widths": (4,), "noise": space.noise.model_copy(update={"rates": (0.0, 0.2)})})
    kept = planned_runs(smaller, ends, runs)
    assert sorted(kept["run_id"]) == sorted(RUNS)
    assert kept["in_grid"].all()  # whole rows and columns, as before


def test_a_boundary_that_cannot_be_read_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    shutil.copytree(FIXTURE, tmp_path / "sweep")
    result = CliRunner().invoke(main, ["phase", "sweep", "--storage", str(tmp_path), "--boundary", "accuracy=0.9"])
    assert result.exit_code == 2
    assert "unknown metric 'accuracy'" in result.output
    assert not (tmp_path / "sweep" / "phase").exists()
