"""The server of the tests as W&B's own client meets it: what it keeps, what a resumed run hears, how it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.waiting import PATIENCE_SECONDS
from tests.wandb_server import FakeWandb, Fault, Run

WRITER = """
import sys, wandb
# whole seconds: W&B takes what is below one for nothing, and then waits for two
waits = {f"x_{of}_retry_wait_{end}_seconds": 1 for of in ("file_stream", "graphql") for end in ("min", "max")}
settings = wandb.Settings(x_disable_stats=True, console="off", x_graphql_retry_max=3, init_timeout=300, **waits)
for line in sys.stdin:
    wandb_id, last = line.split()
    try:
        run = wandb.init(
            entity="team", project="sweeps", id=wandb_id, name=f"run {wandb_id}", group="cell", tags=["grid"],
            config={"width": 8}, resume="allow", reinit="create_new", settings=settings, dir=sys.argv[1],
        )
        first = run.starting_step
        for step in range(first, int(last)):
            run.log({"epoch": step / 2, "test_error": 1 / (1 + step)}, step=step)
        if wandb_id == "tables":
            run.log({"cells": wandb.Table(columns=["ratio"], data=[[0.5], [2.0]])}, step=int(last))
        run.finish()
        print("from", first, flush=True)
    except Exception as error:
        print(type(error).__name__, flush=True)
"""


class Writer:
    """A process with W&B's client, which writes one W&B run at a time: rows up to a step, from where it is."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def write(self, wandb_id: str, last: int) -> str:
        """What it said: "from STEP", or the name of an error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{wandb_id} {last}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


@pytest.fixture(scope="module")
def server() -> Iterator[FakeWandb]:
    with FakeWandb() as server:
        yield server


@pytest.fixture(scope="module")
def writer(server: FakeWandb, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Writer]:
    folder = tmp_path_factory.mktemp("wandb")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environment |= server.environment() | {"HOME": str(folder)}
    command = [sys.executable, "-c", WRITER, str(folder)]
    with subprocess.Popen(
        command, env=environment, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Writer(process)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(PATIENCE_SECONDS)


@pytest.fixture(autouse=True)
def all_is_well_again(server: FakeWandb) -> Iterator[None]:
    yield
    server.inject()
    server.revoke(False)


def steps(run: Run) -> list[tuple[int, float]]:
    return [(row["_step"], row["epoch"]) for row in run.rows if "epoch" in row]


def up_to(last: int) -> list[tuple[int, float]]:
    return [(step, step / 2) for step in range(last)]


def test_a_run_is_kept_and_goes_on_where_it_ended(server: FakeWandb, writer: Writer) -> None:
    assert writer.write("plain", 3) == "from 0"
    run = server.run("team/sweeps/plain")
    assert steps(run) == up_to(3)
    assert run.rows[2]["test_error"] == pytest.approx(1 / 3)
    assert (run.config, run.group, run.tags) == ({"width": 8}, "cell", ["grid"])
    assert run.fields["displayName"] == "run plain"
    assert run.summary["epoch"] == 1.0
    assert (run.finished, run.exit_code) == (True, 0)

    assert writer.write("plain", 5) == "from 3"
    assert steps(run) == up_to(5)
    assert (run.repeated, run.contradicted, run.gaps) == (0, [], [])
    assert server.unknown == []


@pytest.mark.parametrize(
    ("name", "fault", "came_twice"),
    [
        ("limited", Fault("status", on="history", status=429), False),
        ("limited-politely", Fault("status", on="UpsertBucket", status=429, retry_after=0), False),
        ("broken", Fault("status", on="file_stream", status=500), False),
        ("cut", Fault("cut", on="history"), False),
        ("cut-after", Fault("cut after", on="history"), True),
        ("cut-at-birth", Fault("cut after", on="UpsertBucket"), False),
        ("slow", Fault("hang", on="history", seconds=0.5), False),
    ],
)
def test_the_client_gets_through(server: FakeWandb, writer: Writer, name: str, fault: Fault, came_twice: bool) -> None:
    server.inject(fault)
    assert writer.write(name, 4) == "from 0"
    run = server.run(f"team/sweeps/{name}")
    assert len(server.faults_given) == fault.times
    assert steps(run) == up_to(4)
    assert run.finished
    assert (run.repeated > 0) == came_twice
    assert run.contradicted == []


def test_a_revoked_key_writes_nothing_until_it_is_good_again(server: FakeWandb, writer: Writer) -> None:
    server.revoke()
    assert writer.write("revoked", 4) == "CommError"
    assert "team/sweeps/revoked" not in server.runs
    server.revoke(False)
    assert writer.write("restored", 4) == "from 0"  # the client's process does not take the same id again
    assert steps(server.run("team/sweeps/restored")) == up_to(4)


def test_a_table_arrives_as_a_file_and_as_an_artifact(server: FakeWandb, writer: Writer) -> None:
    assert writer.write("tables", 1) == "from 0"
    run = server.run("team/sweeps/tables")
    (table,) = [content for name, content in run.files.items() if name.startswith("media/table/cells")]
    assert json.loads(table)["data"] == [[0.5], [2.0]]
    assert run.summary["cells"]["_type"] == "table-file"
    (artifact,) = server.state.artifacts.values()
    assert (artifact.collection, artifact.state) == ("team/sweeps/run-tables-cells", "COMMITTED")
    assert json.loads(artifact.files["cells.table.json"])["data"] == [[0.5], [2.0]]
    assert server.unknown == []


def test_the_key_is_in_the_header_alone(server: FakeWandb, writer: Writer) -> None:
    assert writer.write("key", 1) == "from 0"
    assert server.keys_seen == {server.environment()["WANDB_API_KEY"]}
    assert server.leaks == []


def test_lines_at_an_offset_replace_those_that_are_there() -> None:
    run = Run("team", "sweeps", "id", "node")
    run.stream("wandb-history.jsonl", 0, ['{"a": 0}', '{"a": 1}'])
    run.stream("wandb-history.jsonl", 1, ['{"a": 1}', '{"a": 2}'])
    assert [row["a"] for row in run.rows] == [0, 1, 2]
    assert (run.repeated, run.contradicted, run.gaps) == (1, [], [])
    run.stream("wandb-history.jsonl", 2, ['{"a": 3}'])
    assert run.contradicted == [('{"a": 2}', '{"a": 3}')]
    run.stream("wandb-history.jsonl", 5, ['{"a": 5}'])
    assert run.gaps == [("wandb-history.jsonl", 3, 5)]


def test_faults_are_drawn_from_their_seed() -> None:
    def given(seed: int) -> list[Any]:
        with_faults = FakeWandb()
        with_faults.inject(Fault("cut", on="history", times=None, share=0.3), seed=seed)
        drawn = [with_faults._faults.draw("file_stream history") is not None for _ in range(50)]
        assert with_faults._faults.draw("upload") is None
        return drawn

    assert given(1) == given(1) != given(2)
    assert 5 < sum(given(1)) < 25
