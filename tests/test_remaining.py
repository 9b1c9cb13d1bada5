"""Whether there is anything to launch: what a ledger says to a request."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.entry_point import LaunchRequest
from orchestrator.plan import PlanError
from orchestrator.remaining import ledger_complete, plan_in
from orchestrator.storage import open_storage
from search_spaces.catalog import load_space
from tests.reader_server import served_folder
from tests.test_fetch import RUNS, SPACE, sweep_in, train


def test_a_ledger_is_complete_when_all_runs_of_the_request_are_there(tmp_path: Path) -> None:
    root = open_storage(tmp_path / "claim")
    request = LaunchRequest(space=SPACE, sweep="one")
    with served_folder(tmp_path / "claim") as claim:
        assert not ledger_complete(request, claim)
        source = sweep_in(root.child("one"))
        assert not ledger_complete(request, claim)
        for each in RUNS[3:]:
            train(source, each)
        assert ledger_complete(request, claim)
    assert ledger_complete(request, root)
    found = plan_in(LaunchRequest(space=SPACE, sweep="one", retry_failed=True, signature="none"), root)
    assert found is not None
    assert found.count("done") == len(RUNS)
    wider = load_space("digits-grid", ["seeds=3", "widths=[2,4]"])
    assert not ledger_complete(LaunchRequest(space=wider, sweep="one"), root)
    assert plan_in(LaunchRequest(space=SPACE, sweep="two"), root) is None
    assert not ledger_complete(LaunchRequest(space=SPACE, sweep="one", refine="err_last=0.2", budget=3), root)
    other = load_space("digits-grid", ["seeds=2", "widths=[2,4]", "recipe.epochs=3"])
    with pytest.raises(PlanError, match="another experiment"):
        ledger_complete(LaunchRequest(space=other, sweep="one"), root)
    path = root.child("one").local_path(source.storage.list("rows")[0].path)
    assert path is not None
    path.write_bytes(b"broken")
    assert not ledger_complete(request, root)
