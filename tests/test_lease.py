"""The lease: one launch at a time, whoever comes when, and a dead one is soon forgotten."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from orchestrator import lease as module
from orchestrator.lease import Claim, Lease, LeaseHeldError, current_claim
from orchestrator.storage import Storage, open_storage
from tests.waiting import PATIENCE_SECONDS, wait_for


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(tmp_path / "sweep")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(module, "DEAD_SECONDS", 10 * PATIENCE_SECONDS)  # a test that is held up has not died


def foreign_claim(storage: Storage, *, seconds_old: float = 0.0, holding: bool = True) -> Claim:
    """A claim of a launch on another host, as old as wanted by the storage's clock."""
    claim = replace(module._own_claim(), claim_id="other", host="elsewhere", holder="ann@elsewhere, process 7")
    claim = replace(claim, holding=holding)
    storage.write(claim.path, json.dumps(asdict(claim)).encode())
    path = storage.local_path(claim.path)
    assert path is not None
    then = time.time() - seconds_old
    os.utime(path, (then, then))
    return claim


def test_a_second_launch_is_told_who_holds_it_and_since_when(storage: Storage) -> None:
    with Lease(storage) as held:
        with pytest.raises(LeaseHeldError, match=rf"process {os.getpid()}, since 20..-") as caught, Lease(storage):
            pass
        assert "status sweep --watch" in str(caught.value)
        assert not held.lost
    assert storage.list("lease") == []
    with Lease(storage):
        pass


def test_viewers_see_the_progress_of_the_holder(storage: Storage) -> None:
    assert current_claim(storage) is None
    with Lease(storage, lambda: {"running": 3}):
        wait_for(lambda: (claim := current_claim(storage)) and claim.progress == {"running": 3})
    assert current_claim(storage) is None


def test_a_live_claim_of_another_host_bars_and_a_stale_one_does_not(storage: Storage) -> None:
    foreign_claim(storage, seconds_old=module.DEAD_SECONDS / 2)
    with pytest.raises(LeaseHeldError, match="ann@elsewhere"), Lease(storage):
        pass
    foreign_claim(storage, seconds_old=module.DEAD_SECONDS + 1)
    with Lease(storage):
        assert len(storage.list("lease")) == 1


def test_a_patient_launch_takes_over_from_a_silent_one_and_gives_way_to_one_that_lives(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)
    foreign_claim(storage, seconds_old=module.DEAD_SECONDS - 0.5)
    with Lease(storage, patient=True):
        assert len(storage.list("lease")) == 1
    claim = foreign_claim(storage)
    content, gone = json.dumps(asdict(claim)).encode(), threading.Event()

    def live() -> None:
        while not gone.wait(0.1):
            storage.write(claim.path, content)

    living = threading.Thread(target=live)
    living.start()
    try:
        with pytest.raises(LeaseHeldError, match="ann@elsewhere"), Lease(storage, patient=True):
            pass
    finally:
        gone.set()
        living.join()


def test_a_patient_launch_outlasts_one_that_died_while_it_came(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(module, "TRIES", 1)
    foreign_claim(storage, seconds_old=module.DEAD_SECONDS - 0.5, holding=False)
    with Lease(storage, patient=True):
        assert len(storage.list("lease")) == 1


def test_a_killed_launch_of_this_host_is_replaced_at_once(storage: Storage, tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom orchestrator.lease import Lease\nfrom orchestrator.storage import open_storage\n"
        "with Lease(open_storage(sys.argv[1])): print('held', flush=True); time.sleep(3600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "sweep")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(LeaseHeldError), Lease(storage):
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    with Lease(storage):
        pass


@pytest.mark.parametrize("number", range(4))
def test_of_many_that_come_at_once_at_most_one_gets_it(storage: Storage, number: int) -> None:
    inside: list[int] = []
    together: list[int] = []
    start = threading.Barrier(6)

    def contend() -> None:
        start.wait()
        with suppress(LeaseHeldError), Lease(storage):
            inside.append(1)
            together.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    threads = [threading.Thread(target=contend) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(together) <= {1}
    assert storage.list("lease") == []


def test_a_launch_that_slept_too_long_gives_way_to_its_successor(storage: Storage) -> None:
    gave_way = threading.Event()
    with Lease(storage, on_loss=gave_way.set) as sleeper:
        successor = foreign_claim(storage)  # took over while this process was suspended
        assert successor.since > sleeper._claim.since
        assert gave_way.wait(PATIENCE_SECONDS)
        assert sleeper.lost
    assert [file.path for file in storage.list("lease")] == [successor.path]


def test_a_foreign_file_bars_nobody(storage: Storage) -> None:
    storage.write("lease/notes.txt", b"mine")
    with Lease(storage):
        pass
    assert current_claim(storage) is None
