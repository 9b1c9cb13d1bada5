"""A whole sweep on S3, through a proxy that lets PUTs fail, answer late, or store and not answer."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

from orchestrator.compaction import compact
from orchestrator.ledger import as_table, open_ledger
from orchestrator.storage import open_storage
from orchestrator.verify import verify
from search_spaces.catalog import load_space
from search_spaces.packs import group_packs
from search_spaces.runs import expand
from search_spaces.spec import SearchSpace
from tests import object_store
from tests.launches import TINY, has_saved, launch, launching
from tests.object_store import BUCKET
from tests.waiting import wait_for
from workers.placement import Placement
from workers.schema import ROWS, TIMING_COLUMNS
from workers.train import train_pack

pytestmark = pytest.mark.ray


@pytest.mark.slow
@pytest.mark.chaos
def test_a_sweep_on_s3_survives_a_kill_and_a_store_that_fails(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with object_store.started("s3") as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.address)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anyone")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        store.set_faults(failing_share=0.1, dropping_share=0.05, delay_seconds=0.01, seed=1)
        url = f"s3://{BUCKET}/sweeps"
        longer = ("--set", "recipe.epochs=60", "--set", "resources.checkpoint_seconds=0.2")
        more = (*TINY, *longer, "--set", "resources.engine=fused")
        with launching(url, data_folder, *more) as process:
            wait_for(lambda: has_saved(process, url))
            os.killpg(process.pid, signal.SIGKILL)
        result = launch(url, data_folder, *more, "--figures")
        assert result.returncode == 0, result.stderr
        assert f"{url}/digits-grid/phase/overview.png" in result.stdout
        ledger = open_ledger(open_storage(url), "digits-grid")
        compact(ledger)
        found = verify(ledger)
        assert found.problems == []
        assert found.is_complete
        rows = ledger.load().drop(*TIMING_COLUMNS, "attempt", "pack_size").sort("run_id", "evaluation")
    overrides = [part for part in more if "=" in part]
    expected = trained_here(load_space("digits-grid", [*overrides, "seeds=2"]), data_folder)
    assert_frame_equal(rows.select(expected.columns), expected)


def trained_here(space: SearchSpace, data_folder: Path) -> pl.DataFrame:
    """The rows of a space by the plain training loop, by the engine of the launch."""
    placement = Placement(engine="fused", fused=4)
    packs = group_packs(expand(space), "auto")
    streams = [train_pack(pack.runs, data_folder, torch.device("cpu"), placement=placement) for pack in packs]
    rows = [row for stream in streams for progress in stream for row in progress.rows]
    table = pl.DataFrame(as_table(rows, ROWS)).drop(*TIMING_COLUMNS, "attempt")
    return table.sort("run_id", "evaluation")
