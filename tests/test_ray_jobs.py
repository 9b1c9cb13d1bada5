"""Sweeps sent to a bare Ray cluster: what travels, who is told what, and a sweep that is stopped and goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import distribution
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from orchestrator.cli import main
from orchestrator.entry_point import LaunchRequest
from orchestrator.ledger import ATTEMPTS_PER_LAUNCH, Ledger
from orchestrator.ray_environment import JOB_STOP_SECONDS
from orchestrator.ray_jobs.connection import connect, takes_jobs
from orchestrator.ray_jobs.jobs import wait_for_job
from orchestrator.ray_jobs.logs import follow_logs, job_log
from orchestrator.ray_jobs.parcel import pack
from orchestrator.ray_jobs.submission import submit_job
from orchestrator.ray_jobs.wheel import KINDS, Code, running_code, write_wheel
from search_spaces.catalog import load_space
from search_spaces.runs import expand
from tests.launches import assert_verified
from tests.ray_cluster import Relay, TokenCluster, free_ports, token_cluster
from tests.waiting import PATIENCE_SECONDS, wait_for

SPACE = ("widths=[2]", "noise.rates=[0, 0.4]", "seeds=1")


def request(*overrides: str, **options: Any) -> LaunchRequest:
    space = load_space("digits-grid", [*SPACE, *overrides])
    return LaunchRequest(space, "small digits", **options)


class TestWheel:
    def test_it_holds_all_of_the_package_and_asks_for_nothing(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(write_wheel(tmp_path, running_code())) as wheel:
            names = wheel.namelist()
            metadata = wheel.read(f"bo_sweep-{distribution('bo-sweep').version}.dist-info/METADATA").decode()
        for name in ("orchestrator/cli.py", "workers/train.py", "search_spaces/builtin/digits-grid.yaml"):
            assert name in names
        assert "orchestrator/report/static/page.html" in names
        assert not [name for name in names if "__pycache__" in name or name.startswith("tests/")]
        assert "Name: bo-sweep" in metadata
        assert "Requires-Dist" not in metadata

    def test_the_same_code_gives_the_same_bytes_from_a_checkout_and_from_an_installed_package(
        self, tmp_path: Path
    ) -> None:
        here = write_wheel(tmp_path, running_code()).read_bytes()
        installed = tmp_path / "installed"
        with zipfile.ZipFile(tmp_path / next(tmp_path.glob("*.whl"))) as wheel:
            wheel.extractall(installed)
        (installed / "search_spaces" / "__pycache__").mkdir()
        (installed / "search_spaces" / "__pycache__" / "spec.cpython-311.pyc").write_bytes(b"of this machine")
        for name in (".env", "wandb.key", "spec.py~", "spec.py.orig"):
            (installed / "search_spaces" / name).write_text("of this machine")
        assert write_wheel(tmp_path, running_code(installed)).read_bytes() == here
        (installed / "search_spaces" / "spec.py").write_text("changed = True\n")
        assert running_code(installed).digest != running_code().digest

    def test_all_kinds_of_files_that_are_packaged_travel(self) -> None:
        project = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text())
        packaged = [name for names in project["tool"]["setuptools"]["package-data"].values() for name in names]
        assert {Path(name).suffix for name in packaged} | {".py"} == set(KINDS)

    def test_unpacked_it_is_what_runs(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(write_wheel(tmp_path, running_code())) as wheel:
            wheel.extractall(tmp_path)
        code = "import orchestrator, importlib.metadata as m; print(orchestrator.__file__, m.requires('bo-sweep'))"
        found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert found.stdout.split() == [str(tmp_path / "orchestrator" / "__init__.py"), "None"]


class TestParcel:
    def test_the_same_launch_has_the_same_id_and_any_other_another(self) -> None:
        code = running_code()
        parcel = pack(request(), "/shared", None, code)
        assert parcel == pack(request(), "file:///shared", None, code)
        assert parcel.job_id == f"small-digits-{parcel.digest}"
        others = [
            pack(request("recipe.epochs=3"), "/shared", None, code),
            pack(request(workers=2), "/shared", None, code),
            pack(request(), "s3://bucket/sweeps", None, code),
            pack(request(), "/shared", "/data", code),
            pack(request(), "/shared", None, replace(code, files=code.files[1:])),
        ]
        assert len({each.digest for each in (parcel, *others)}) == 6

    def test_the_command_is_one_line_for_a_shell(self) -> None:
        parcel = pack(request(cells=("noise_rate>=0.2 ratio<10",), figures=False), "/shared", "/data")
        assert parcel.entrypoint == (
            "python -m orchestrator.cli launch space.yaml --storage /shared --name 'small digits' --data /data "
            "--address auto --as-job --no-figures --cells 'noise_rate>=0.2 ratio<10'"
        )

    def test_a_label_file_travels_and_runs_keep_their_ids(self, tmp_path: Path) -> None:
        np.save(tmp_path / "noisy.npy", np.zeros(500, int))
        asked = request(f"noise={{model: file, file: {tmp_path}/noisy.npy, rates: [0.1]}}")
        parcel = pack(asked, "/shared", None)
        content = dict(parcel.files)
        assert content["labels.npy"] == (tmp_path / "noisy.npy").read_bytes()
        assert str(tmp_path) not in content["space.yaml"].decode()
        unpacked = tmp_path / "unpacked"
        unpacked.mkdir()
        for name, written in content.items():
            (unpacked / name).write_bytes(written)
        there = load_space(str(unpacked / "space.yaml"))
        assert [run.run_id for run in expand(there)] == [run.run_id for run in expand(asked.space)]
        (tmp_path / "noisy.npy").write_bytes(b"another")
        with pytest.raises(ValueError, match="file_sha256"):
            pack(asked, "/shared", None)

    def test_what_nodes_could_not_find_is_told_at_once(self) -> None:
        with pytest.raises(ValueError, match="'sweeps' is a folder of this machine") as told:
            pack(request(), "sweeps", "data")
        assert "--data 'data' is relative" in str(told.value)
        assert "s3://bucket/prefix" in str(told.value)
        with pytest.raises(ValueError, match="credentials"):
            pack(request(), "s3://key:secret@bucket/sweeps", None)

    def test_stopping_leaves_time_to_save(self, tmp_path: Path) -> None:
        environment = pack(request(), "/shared", None).runtime_environment(tmp_path)
        assert environment["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == str(JOB_STOP_SECONDS)
        assert environment.keys() == {"working_dir", "env_vars"}


def test_only_dashboards_and_ray_client_take_jobs() -> None:
    assert all(map(takes_jobs, ("http://head:8265", "https://ray.example.org", "ray://head:10001")))
    assert not any(map(takes_jobs, (None, "auto", "head:6379")))
    with pytest.raises(ValueError, match="http://head:8265"):
        connect("head:6379")


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
def cluster() -> Iterator[TokenCluster]:
    with token_cluster() as cluster:
        yield cluster


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


@pytest.mark.ray
class TestOnACluster:
    def test_a_sweep_is_sent_joined_stopped_and_goes_on_to_the_end(
        self, cluster: TokenCluster, user: ProcessPoolExecutor, tmp_path: Path
    ) -> None:
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
        stopped = run(user, cluster, "stop", "small digits")
        assert stopped.code == 0, stopped.stderr
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
            assert relay.cut()
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
        (tmp_path / "sweeps").write_text("in the way")
        launch = ("launch", "digits-grid", "--storage", f"{tmp_path}/sweeps", "--address", cluster.address)
        would = user.submit(command, [*launch, "--dry-run"], {}).result()
        assert would.stdout.startswith("python -m orchestrator.cli launch space.yaml --storage")
        made = user.submit(command, [*launch, "--name", "small digits", "--wait"], {}).result()
        assert made.code == 4, made.stderr
        assert made.stdout.endswith(": submitted\n")
        assert "cannot be written" in made.stderr, "the log was shown"
        assert "failed after" in made.stderr
        status = run(user, cluster, "status", made.stdout.partition(":")[0])
        assert status.code == 0
        assert "with exit code 4" in status.stdout
        assert "cannot be written" in status.stdout
        assert "bo-sweep jobs logs 'small digits'" in status.stderr

    def test_an_unknown_sweep_names_those_that_are_known(
        self, cluster: TokenCluster, user: ProcessPoolExecutor
    ) -> None:
        told = run(user, cluster, "logs", "nothing")
        assert told.code == 2
        assert "no job of a sweep 'nothing'" in told.stderr
        assert told.stdout == ""

    @pytest.mark.parametrize(
        ("environment", "words"),
        [
            ({"RAY_AUTH_TOKEN": "f" * 32}, "refuses the token"),
            ({"RAY_AUTH_MODE": "disabled"}, "asks for a token, and none was sent"),
        ],
        ids=["a wrong token", "no token"],
    )
    def test_who_is_not_let_in_is_told_how(
        self, cluster: TokenCluster, environment: dict[str, str], words: str
    ) -> None:
        told = cluster.run(
            *(sys.executable, "-c", "from orchestrator.cli import main\nmain()"),
            *("jobs", "list", "--address", cluster.address),
            **environment,
        )
        assert told.returncode == 4
        assert words in told.stderr
        assert "ray get-auth-token" in told.stderr
        assert "Traceback" not in told.stderr

    @pytest.mark.parametrize("port", ["gcs", "client", "nobody's"])
    def test_another_port_is_told_from_the_dashboard(
        self, cluster: TokenCluster, user: ProcessPoolExecutor, port: str
    ) -> None:
        number = free_ports(1)[0] if port == "nobody's" else getattr(cluster, port)
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
        elsewhere = f"http://127.0.0.1:{free_ports(1)[0]}"
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
