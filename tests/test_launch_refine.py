"""Refinement for real: by the command, and by Ray Tune with the searcher."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from orchestrator.ledger import Ledger
from orchestrator.refine.target import Target
from orchestrator.status import status_document
from orchestrator.verify import verify
from search_spaces.runs import count_beside
from tests.launches import ONE_WORKER, bo_sweep
from tests.test_refine import LEVEL, SIGNAL, closed_form, gmm
from workers.theory import boundary_ratio_finite

pytestmark = pytest.mark.ray


def test_ray_tune_can_use_the_searcher(tmp_path: Path) -> None:
    import ray
    from ray import tune

    from orchestrator.refine.searcher import LevelSetSearcher

    grid = ("seeds=1", "ratios=[1.25, 4, 32]", "noise.rates=[0.1, 0.3]")
    searcher = LevelSetSearcher(gmm(*grid), Target("err_last", LEVEL, precision=0.05, budget=8))
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        results = tune.Tuner(
            tune.with_resources(closed_form, {"cpu": 1}),
            tune_config=tune.TuneConfig(
                search_alg=searcher, num_samples=100, max_concurrent_trials=2, reuse_actors=True
            ),
            run_config=tune.RunConfig(storage_path=str(tmp_path), name="search", verbose=0),
        ).fit()
    finally:
        ray.shutdown()
    assert not results.errors
    assert len(results) == 6 + 8, "the grid, and then the budget"
    near = [result.config for result in list(results)[6:]]
    truth = boundary_ratio_finite([config["noise_rate"] for config in near], LEVEL, SIGNAL)
    off = np.abs(np.log([config["width"] / 200 for config in near] / truth))
    assert np.nanmedian(off) < 0.5


def test_the_command_refines_within_its_budget_and_a_second_one_trains_nothing(
    tmp_path: Path, data_folder: Path
) -> None:
    small = ("samples=60", "ratios=[1.5, 6, 24]", "noise.rates=[0, 0.3]", "evaluation.points=2")
    sets = [part for each in small for part in ("--set", each)]
    where = ("--storage", str(tmp_path), "--data", str(data_folder), "--seeds", "2", "--no-figures", *ONE_WORKER)
    refine = ("launch", "gmm-grid", *where, *sets, "--refine", "err_last=0.15", "--budget", "5")
    first = bo_sweep(*refine)
    assert first.returncode == 0, first.stderr
    assert "Round 1: 5 runs in" in first.stderr
    assert "Within budget: 5 runs beside the grid of 5, none is left" in first.stderr
    ledger = Ledger(tmp_path / "gmm-grid")
    assert list(ledger.statuses().values()) == ["done"] * 17
    assert count_beside(ledger.manifest().space) == 5
    second = bo_sweep(*refine, "--json")
    assert second.returncode == 0, second.stderr
    assert "complete: 17 of 17 runs" in second.stderr
    document = json.loads(second.stdout)
    assert (document["refine"]["state"], document["runs"]["total"], document["to_train"]) == ("spent", 17, 0)
    assert ledger.manifest().launches == 2, "the grid and one batch"
    status = status_document(ledger)
    assert (status["runs"]["total"], status["runs"]["done"]) == (17, 17)
    assert verify(ledger).is_complete
