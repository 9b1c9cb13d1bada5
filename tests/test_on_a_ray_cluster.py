"""On a Ray cluster with token authentication: the entry point of a RayJob, and sweeps sent as jobs, stopped and gone
on with. One cluster for all: to start one takes as long as what is shown."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from orchestrator.cli import main
from orchestrator.ledger import ATTEMPTS_PER_LAUNCH, Ledger
from orchestrator.ray_environment import JOB_STOP_SECONDS
from orchestrator.ray_jobs.connection import connect, takes_jobs
from orchestrator.ray_jobs.jobs import wait_for_job
from orchestrator.ray_jobs.logs import follow_logs, job_log
from orchestrator.ray_jobs.parcel import pack
from orchestrator.ray_jobs.submission import submit_job
from orchestrator.ray_jobs.wheel import Code, running_code
from tests.launches import assert_verified
from tests.ray_cluster import Relay, TokenCluster, unanswered
from tests.ray_submission import Submission, rendered_cluster
from tests.test_ray_jobs import SPACE, request
from tests.waiting import PATIENCE_SECONDS, wait_for

pytestmark = pytest.mark.ray

# What follows runs in a process that was started with the cluster's token: Ray reads its settings once.


def send(code: Code, address: str, folder: Path, *overrides: str, complete: bool = False) -> tuple[str, str, int]:
    """The job if there is one, what came of it, and the number of the attempt."""
    parcel = pack(request(*overrides, workers=1), f"{folder}/sweeps", f"{folder}/data", code)
    made = submit_job(parcel, connect(address), lambda: complete)
    return made.job_id or "", made.state, made.attempt


def follow(address: str, job_id: str, path: Path) -> str:
    """The log, which is also written to a file as it comes; returns all of it as the cluster has it at the end."""
    cluster = connect(address)
    with path.open("w") as file:
        for piece in follow_logs(cluster, job_id):
            file.write(piece)
            file.flush()
    assert wait_for_job(cluster, job_id).is_over
    return job_log(cluster, job_id)


@pytest.fixture(scope="module")
def submission(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Submission]:
    with rendered_cluster(tmp_path_factory.mktemp("pods")) as submission:
        yield submission


@pytest.fixture(scope="module")
def cluster(submission: Submission) -> TokenCluster:
    return submission.cluster


@pytest.fixture(scope="module")
def user(cluster: TokenCluster) -> Iterator[ProcessPoolExecutor]:
    """Processes that are let in."""
    before = dict(os.environ)
    os.environ.update(cluster.environment)
    try:
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            for started in [pool.submit(takes_jobs, None) for _ in range(2)]:
                started.result()
            yield pool
    finally:
        os.environ.clear()
        os.environ.update(before)


@dataclass(frozen=True)
class Printed:
    """What a command wrote, and its exit code."""

    code: int
    stdout: str
    stderr: str


def command(arguments: list[str], environment: dict[str, str]) -> Printed:
    """Carry out `bo-sweep` with these arguments."""
    result = CliRunner(env=environment).invoke(main, arguments)
    return Printed(result.exit_code, result.stdout, result.stderr)


# The entry point of a RayJob, submitted as KubeRay does it


def test_an_attempt_trains_all_and_the_next_one_finds_it_complete(submission: Submission) -> None:
    first = submission.run("attempt-1")
    assert "2 of 2 runs to train" in first
    assert submission.status("attempt-1") == "SUCCEEDED"
    assert_verified(Path(submission.mounts.results))
    assert "The ledger of digits-grid is complete: 2 of 2 runs." in submission.run("attempt-2")
    assert submission.status("attempt-2") == "SUCCEEDED"
    assert Ledger(submission.sweep).manifest().launches == 1


# Sweeps as jobs


class TestJobs:
    def test_a_sweep_is_sent_joined_stopped_and_goes_on_to_the_end(
        self, submission: Submission, cluster: TokenCluster, user: ProcessPoolExecutor, tmp_path: Path
    ) -> None:
        submission.sign.touch()  # until all is done that is to be done in the midst of training
        np.save(tmp_path / "labels.npy", np.zeros(700, int))
        space = (
            f"noise={{model: file, file: {tmp_path}/labels.npy, rates: [0, 0.4]}}",
            *("recipe.epochs=100", "evaluation.points=20", "resources.checkpoint_seconds=0.2"),
        )
        place = (running_code(), cluster.address, tmp_path)
        sweep = tmp_path / "sweeps" / "small digits"

        job_id, state, attempt = user.submit(send, *place, *space).result()
        assert (state, attempt) == ("submitted", 1)
        assert user.submit(send, *place, *space).result() == (job_id, "attached", 1)
        with pytest.raises(ConnectionError, match=r"differs in its search space\. .*bo-sweep jobs stop") as told:
            user.submit(send, *place, *space, "recipe.epochs=3").result()
        assert job_id in str(told.value)
        status = json.loads(run(user, cluster, "status", "small digits", "--json").stdout)
        assert status["state"] in ("waiting", "running")
        assert (status["job"], status["storage"]) == (job_id, f"{tmp_path}/sweeps")

        wait_for(lambda: list(sweep.glob("checkpoints/*")))
        asked_at = time.monotonic()
        stopped = run(user, cluster, "stop", "small digits")
        assert stopped.code == 0, stopped.stderr
        assert time.monotonic() - asked_at < JOB_STOP_SECONDS, "Ray saw that the driver had ended"
        assert "stopped after" in stopped.stderr
        assert f"bo-sweep launch digits-grid --storage {tmp_path}/sweeps --name 'small digits'" in stopped.stderr
        assert list((sweep / "checkpoints").iterdir()), "what was in training was saved"
        assert list((sweep / "lease").iterdir()) == [], "the launch took its leave"

        relay = Relay(cluster.dashboard)
        again, state, attempt = user.submit(send, *place, *space).result()
        assert (again, state, attempt) == (f"{job_id}-2", "submitted", 2)
        seen = tmp_path / "log.txt"
        followed: Future[str] = user.submit(follow, f"http://127.0.0.1:{relay.port}", again, seen)
        for words in ("Running entrypoint", "to train on"):
            wait_for(lambda: seen.exists() and words in seen.read_text())  # noqa: B023
            wait_for(relay.cut)  # between two connections there is nothing to cut
        submission.sign.unlink()
        log = followed.result(timeout=PATIENCE_SECONDS)
        relay.close()
        assert seen.read_text() == log
        assert log.count("The ledger of small digits is complete: 2 of 2 runs.") == 1

        assert_verified(tmp_path / "sweeps", "small digits")
        rows = Ledger(sweep).load()
        assert (rows["attempt"] // ATTEMPTS_PER_LAUNCH).unique().sort().to_list() == [1, 2]
        assert rows["noise_model"].unique().to_list() == ["file"]
        assert (sweep / "phase" / "err_last.png").stat().st_size > 0
        overrides = [part for value in (*SPACE, *space) for part in ("--set", value)]
        where = ["--storage", f"{tmp_path}/sweeps", "--name", "small digits", "--address", cluster.address]
        complete = user.submit(command, ["launch", "digits-grid", *overrides, *where, "--wait"], {}).result()
        assert (complete.code, complete.stdout) == (0, "small digits: complete: nothing to submit\n")

        listed = json.loads(run(user, cluster, "list", "--json").stdout)["jobs"]
        assert [(job["job"], job["state"]) for job in listed] == [(job_id, "stopped"), (again, "done")]
        printed = run(user, cluster, "logs", "small digits", "--no-follow")
        assert printed.stdout == log
        assert "done after" in printed.stderr
        assert f"bo-sweep phase 'small digits' --storage {tmp_path}/sweeps" in printed.stderr

    def test_a_launch_that_fails_says_why(
        self, cluster: TokenCluster, user: ProcessPoolExecutor, tmp_path: Path
    ) -> None:
        (tmp_path / "sweeps").write_text("a file")
        launch = ("launch", "digits-grid", "--storage", f"{tmp_path}/sweeps", "--address", cluster.address)
        would = user.submit(command, [*launch, "--dry-run"], {}).result()
        assert would.stdout.startswith("exec python -m orchestrator.cli launch space.yaml --storage")
        made = user.submit(command, [*launch, "--name", "in the way", "--wait"], {}).result()
        assert made.code == 4, made.stderr
        assert made.stdout.endswith(": submitted\n")
        assert "cannot be written" in made.stderr, "the log was shown"
        assert "failed after" in made.stderr
        status = run(user, cluster, "status", made.stdout.partition(":")[0])
        assert status.code == 0
        assert "with exit code 4" in status.stdout
        assert "cannot be written" in status.stdout
        assert "bo-sweep jobs logs 'in the way'" in status.stderr

    def test_an_unknown_sweep_names_those_that_are_known(
        self, cluster: TokenCluster, user: ProcessPoolExecutor
    ) -> None:
        told = run(user, cluster, "logs", "nothing")
        assert told.code == 2
        assert "no job of a sweep 'nothing'" in told.stderr
        assert told.stdout == ""

    @pytest.mark.parametrize(
        ("header", "words"),
        [("Bearer " + "f" * 32, "refuses the token"), ("", "asks for a token, and none was sent")],
        ids=["a wrong token", "no token"],
    )
    def test_who_is_not_let_in_is_told_how(
        self, cluster: TokenCluster, user: ProcessPoolExecutor, header: str, words: str
    ) -> None:
        """A header of the user's own is sent in the place of the token."""
        told = run(user, cluster, "list", environment={"RAY_JOB_HEADERS": json.dumps({"Authorization": header})})
        assert told.code == 4
        assert words in told.stderr
        assert "ray get-auth-token" in told.stderr
        assert "Traceback" not in told.stderr

    @pytest.mark.parametrize("port", ["gcs", "client", "nobody's"])
    def test_another_port_is_told_from_the_dashboard(
        self, cluster: TokenCluster, user: ProcessPoolExecutor, port: str
    ) -> None:
        with unanswered() as nobody:
            number = nobody if port == "nobody's" else getattr(cluster, port)
            told = run(user, cluster, "list", address=f"http://127.0.0.1:{number}")
        words = "no Ray dashboard answers" if port == "nobody's" else "is no Ray dashboard (it speaks no HTTP)"
        assert told.code == 4
        assert words in told.stderr
        assert "8265" in told.stderr

    @pytest.mark.chaos  # Ray Client's server now and then fails to start beside other clusters
    def test_ray_client_leads_to_the_dashboard(self, cluster: TokenCluster, user: ProcessPoolExecutor) -> None:
        listed = run(user, cluster, "list", address=f"ray://127.0.0.1:{cluster.client}")
        assert listed.code == 0, listed.stderr
        assert "No job of a sweep." in listed.stdout or "small digits" in listed.stdout

    def test_the_address_that_is_given_counts_and_not_rays_own_variables(
        self, cluster: TokenCluster, user: ProcessPoolExecutor
    ) -> None:
        with unanswered() as nobody:
            elsewhere = f"http://127.0.0.1:{nobody}"
            named = {"RAY_API_SERVER_ADDRESS": elsewhere, "RAY_ADDRESS": elsewhere}
            assert run(user, cluster, "list", environment=named).code == 0
            told = user.submit(command, ["jobs", "list"], named).result()
        assert told.code == 4
        assert elsewhere in told.stderr


def run(
    user: ProcessPoolExecutor,
    cluster: TokenCluster,
    *arguments: str,
    address: str | None = None,
    environment: dict[str, str] | None = None,
) -> Printed:
    """Carry out `bo-sweep jobs` as somebody who is let in."""
    words = ["jobs", *arguments, "--address", address or cluster.address]
    return user.submit(command, words, environment or {}).result()
