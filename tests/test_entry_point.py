"""What a RayJob runs, where attempts die and overlap; test_on_a_ray_cluster.py has one that goes well."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.ledger import ATTEMPTS_PER_LAUNCH, Ledger
from tests.launches import assert_verified
from tests.ray_cluster import end_group
from tests.ray_submission import rendered_cluster
from tests.waiting import PATIENCE_SECONDS, wait_for

pytestmark = pytest.mark.ray


@pytest.mark.chaos
def test_attempts_die_and_overlap_and_the_sweep_is_complete_once(tmp_path: Path) -> None:
    with rendered_cluster(tmp_path) as submission:
        first = submission.start("attempt-1")
        wait_for(lambda: list(submission.sweep.glob("checkpoints/*")))
        (driver,) = submission.drivers()
        driver.kill()
        log, _ = first.communicate(timeout=PATIENCE_SECONDS)
        assert "runs to train" in log
        assert submission.status("attempt-1") == "FAILED"
        assert Ledger(submission.sweep).statuses() == {}

        attempts = {"attempt-2": submission.start("attempt-2")}
        wait_for(submission.drivers)
        attempts["attempt-3"] = submission.start("attempt-3")
        try:
            logs = {name: process.communicate(timeout=PATIENCE_SECONDS)[0] for name, process in attempts.items()}
        finally:
            for process in attempts.values():
                end_group(process)
        ends = {submission.status(name): log for name, log in logs.items()}
        assert ends.keys() == {"FAILED", "SUCCEEDED"}
        assert "'digits-grid' is being launched by" in ends["FAILED"]
        assert "The ledger of digits-grid is complete: 2 of 2 runs." in ends["SUCCEEDED"]
        assert_verified(Path(submission.mounts.results))
        rows = Ledger(submission.sweep).load()
        launches = (rows["attempt"] // ATTEMPTS_PER_LAUNCH).unique().sort().to_list()
        assert launches == [1, 2], "the second attempt went on from where the first was saved"

        fourth = submission.run("attempt-4")
        assert "The ledger of digits-grid is complete: 2 of 2 runs." in fourth
        assert submission.status("attempt-4") == "SUCCEEDED"
        assert Ledger(submission.sweep).manifest().launches == 2
