"""Publishing to a server that fails: whatever happens in between, everything arrives, once and as it was measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.publishing import columns
from search_spaces.catalog import load_space
from search_spaces.runs import Run, expand
from search_spaces.spec import SearchSpace
from tests.report_ledger import make_ledger, rows_of
from tests.waiting import PATIENCE_SECONDS, wait_for
from tests.wandb_server import FakeWandb, Fault

COMMAND = "from orchestrator.commands.wandb import wandb; wandb(prog_name='wandb')"
PROJECT = "team/bo-sweep"


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return load_space("digits-grid", ["widths=[2, 8]", "noise.rates=[0, 0.4]", "seeds=1"])


@pytest.fixture
def sweeps(tmp_path: Path, space: SearchSpace) -> Path:
    make_ledger(tmp_path / "tiny", space, fate=lambda run: "done")
    return tmp_path


@pytest.fixture
def server() -> Iterator[FakeWandb]:
    with FakeWandb() as server:
        yield server


Publish = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def publishing(sweeps: Path, server: FakeWandb) -> Iterator[Publish]:
    """Starts `bo-sweep wandb publish tiny`, in a process that has no other key or server than those of the test."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environment |= server.environment() | {"HOME": str(sweeps), "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-c", COMMAND, "publish", "tiny", "--storage", str(sweeps)]
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*command, *options], env=environment, cwd=sweeps, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str], seconds: float = PATIENCE_SECONDS) -> tuple[int, str]:
    """Exit code and what it said to its user."""
    _, said = process.communicate(timeout=seconds)
    return process.returncode, said


def everything_is_there_once(server: FakeWandb, runs: list[Run]) -> None:
    ids = {f"{PROJECT}/{run.run_id}" for run in runs}
    (other,) = set(server.runs) - ids
    for run in runs:
        there, measured = server.run(f"{PROJECT}/{run.run_id}"), rows_of(run)
        assert [row["_step"] for row in there.rows] == [row["evaluation"] for row in measured]
        for name in ("epoch", "test_error", "train_error_given"):
            assert [row[name] for row in there.rows] == pytest.approx([row[name] for row in measured])
        assert there.config["noise_rate"] == run.noise.rate
        assert there.finished
        assert (there.contradicted, there.gaps) == ([], [])
    summary = server.run(other)
    assert other == f"{PROJECT}/{columns.summary_id('tiny', summary.config['sweep_key'])}"
    assert summary.finished
    for key, names in columns.TABLES.items():
        assert json.loads(summary.files[summary.summary[key]["path"]])["columns"] == list(names)
    assert (server.unknown, server.leaks) == ([], [])


@pytest.mark.slow
def test_everything_arrives_once_through_faults_and_kills(
    publishing: Publish, server: FakeWandb, space: SearchSpace
) -> None:
    for request in ("UpsertBucket", "file_stream history"):  # killed at its birth, and with rows under way
        seen = server.requests[f"graphql {request}"] + server.requests[request]
        server.inject(Fault("hang", on=request, seconds=PATIENCE_SECONDS, times=None))  # it goes no further
        process = publishing()
        wait_for(lambda: server.requests[f"graphql {request}"] + server.requests[request] > seen)  # noqa: B023
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=PATIENCE_SECONDS)

    server.inject(
        Fault("status", on="history", status=429, share=0.5),
        Fault("status", on="UpsertBucket", status=500, share=0.5),
        Fault("cut", on="RunResumeStatus", share=0.3),
        Fault("cut after", on="history", share=0.5),
        Fault("hang", on="file_stream", seconds=0.5, times=2),
        Fault("status", on="upload", status=503, share=0.2),
        seed=1,
    )
    code, said = ended(publishing())
    assert code == 0, said
    assert {fault.kind for _, fault in server.faults_given} == {"status", "cut", "cut after", "hang"}
    everything_is_there_once(server, expand(space))

    before = dict(server.requests)
    code, said = ended(publishing())
    assert code == 0, said
    new = {name: count - before.get(name, 0) for name, count in server.requests.items()}
    assert not any(new[name] for name in new if "file_stream" in name or "UpsertBucket" in name), new


@pytest.mark.chaos
def test_a_revoked_key_delays_and_is_told_once(publishing: Publish, server: FakeWandb, space: SearchSpace) -> None:
    process = publishing("--follow")
    wait_for(lambda: server.requests["file_stream history"] >= 1)
    server.revoke()
    refused = server.refused
    wait_for(lambda: server.refused >= refused + 4)  # tried again and again
    assert process.poll() is None, "with --follow it never ends for that"
    server.revoke(False)
    code, said = ended(process)
    assert code == 0, said
    assert said.count("W&B takes nothing right now") == 1, said
    assert said.count("W&B takes rows again") == 1, said
    assert server.environment()["WANDB_API_KEY"] not in said
    everything_is_there_once(server, expand(space))


def test_without_follow_it_ends_and_says_that_nothing_is_lost(publishing: Publish, server: FakeWandb) -> None:
    server.revoke()
    code, said = ended(publishing("--patience", "0"))
    assert code == 4
    assert "Nothing is lost" in said
    assert server.runs == {}
