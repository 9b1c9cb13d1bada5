"""What is asked of Ray's job API and what becomes of its answers, against a dashboard that is played."""

from __future__ import annotations

import importlib
import io
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import orchestrator
from orchestrator.cli import main
from orchestrator.entry_point import LaunchRequest
from orchestrator.ledger import Ledger, Manifest
from orchestrator.ray_jobs import logs
from orchestrator.ray_jobs.connection import connect
from orchestrator.ray_jobs.logs import follow_logs
from orchestrator.ray_jobs.parcel import Parcel, pack
from orchestrator.ray_jobs.submission import submit_job
from orchestrator.ray_jobs.wheel import Code
from search_spaces.catalog import load_space
from search_spaces.runs import expand
from tests.job_api import DONE, FAILED, RUNNING, STOPPED, JobApi, job_api
from tests.test_ledger import settle

pytestmark = pytest.mark.filterwarnings("ignore:ssl=None:DeprecationWarning")  # Ray's, of aiohttp
SPACE = load_space("digits-grid")
LEFT_FOR_ANOTHER_TEST = ("RAY_", "BO_SWEEP_DATA", "BO_SWEEP_STORAGE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[JobApi]:
    for name in list(os.environ):
        if name.startswith(LEFT_FOR_ANOTHER_TEST):
            monkeypatch.delenv(name)
    with job_api() as running:
        yield running


def parcel() -> Parcel:
    return pack(LaunchRequest(SPACE, "digits-grid"), "/shared", None, Code("0", ()))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


# Sending


def test_a_job_that_was_deleted_does_not_have_its_number_given_to_another(api: JobApi) -> None:
    made = parcel()
    api.add(f"{made.job_id}-2", STOPPED, metadata=made.metadata)
    sent = submit_job(made, connect(api.address))
    assert (sent.job_id, sent.state, sent.attempt) == (f"{made.job_id}-3", "submitted", 3)


def test_of_two_who_send_the_same_the_second_joins_the_first_unless_it_is_over(api: JobApi) -> None:
    made = parcel()

    def meanwhile(status: str) -> bool:
        api.add(made.job_id, status, metadata=made.metadata)
        return False

    joined = submit_job(made, connect(api.address), lambda: meanwhile(RUNNING))
    assert (joined.job_id, joined.state) == (made.job_id, "attached")
    api.jobs.clear()
    anew = submit_job(made, connect(api.address), lambda: meanwhile(STOPPED))
    assert (anew.job_id, anew.state, anew.attempt) == (f"{made.job_id}-2", "submitted", 2)


def test_jobs_of_other_tools_are_not_ours(api: JobApi) -> None:
    api.add("theirs", RUNNING, metadata={"sweep": "digits-grid"})
    api.add("none", RUNNING)
    assert json.loads(run("jobs", "list", "--address", api.address, "--json").stdout)["jobs"] == []
    stopped = run("jobs", "stop", "digits-grid", "--address", api.address)
    assert (stopped.exit_code, api.jobs["theirs"]["status"]) == (2, RUNNING)


@pytest.mark.parametrize("storage", ["file:///shared/a%20b", "file://localhost/shared/a%20b", "/shared/a b/"])
def test_a_folder_is_named_as_nodes_open_it(storage: str) -> None:
    made = pack(LaunchRequest(SPACE, "digits-grid"), storage, None, Code("0", ()))
    assert (made.storage, "--storage '/shared/a b' " in made.entrypoint) == ("/shared/a b", True)


def test_a_python_that_is_too_old_says_so_instead_of_failing_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sys, "version_info", (3, 10, 12, "final", 0))
        with pytest.raises(SystemExit, match=r"bo-sweep needs Python 3\.11 or later; .* is Python 3\.10"):
            importlib.reload(orchestrator)


# Reaching


def test_what_a_proxy_asks_for_goes_with_all_requests(api: JobApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_HEADERS", '{"X-Team": "vision"}')
    api.add("a", DONE, metadata=parcel().metadata)
    api.logs["a"] = "said\n"
    assert run("jobs", "logs", "digits-grid", "--address", api.address).stdout == "said\n"
    assert {headers.get("X-Team") for _, _, headers in api.requests} == {"vision"}
    monkeypatch.setenv("RAY_JOB_HEADERS", "X-Team: vision")
    told = run("jobs", "list", "--address", api.address)
    assert (told.exit_code, "RAY_JOB_HEADERS" in told.stderr, "vision" in told.stderr) == (2, True, False)


@pytest.mark.parametrize(
    "address",
    ["http://", "ray://", "http://head:dashboard", "http://[::1", "http://a..b:1", "auto", "http://head/#/jobs"],
)
def test_what_is_no_address_is_told_at_once(address: str) -> None:
    told = run("jobs", "list", "--address", address)
    assert (told.exit_code, "http://head:8265" in told.stderr) == (2, True), told.stderr


def test_a_password_is_not_shown(api: JobApi) -> None:
    told = run("jobs", "list", "--address", api.address.replace("://", "://ann:very-secret@"))
    assert (told.exit_code, "very-secret" in told.output, "RAY_JOB_HEADERS" in told.stderr) == (2, False, True)


def test_a_certificate_file_that_is_not_there_is_told(api: JobApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/authority.pem")
    told = run("jobs", "list", "--address", api.address.replace("http", "https"))
    assert told.exit_code == 4, told.exception
    assert "/nowhere/authority.pem" in told.stderr
    assert "REQUESTS_CA_BUNDLE" in told.stderr


def test_a_log_is_shown_where_websockets_do_not_get_through(api: JobApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(logs, "LOOK_SECONDS", 0.0)
    api.streams = False
    api.add("a", RUNNING, metadata=parcel().metadata)
    api.logs["a"] = "one\n"
    pieces = []
    for piece in follow_logs(connect(api.address), "a"):
        pieces.append(piece)
        if len(pieces) == 1:
            api.logs["a"] += "two\n"
        else:
            api.jobs["a"]["status"] = DONE
    assert pieces == ["one\n", "two\n"]


def test_a_reader_that_has_gone_ends_the_log_quietly(api: JobApi, monkeypatch: pytest.MonkeyPatch) -> None:
    api.add("a", DONE, metadata=parcel().metadata)
    api.logs["a"] = "said\n"

    class Gone:
        def write(self, text: str) -> None:
            raise BrokenPipeError

        def flush(self) -> None: ...

    monkeypatch.setattr("orchestrator.commands.jobs.sys", type("", (), {"stdout": Gone(), "stderr": io.StringIO()}))
    told = run("jobs", "logs", "digits-grid", "--address", api.address)
    assert "pipe" not in told.output


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_proxy_that_sends_on_is_not_followed_but_named(api: JobApi, status: int) -> None:
    """A POST that is followed arrives as a GET: the list of jobs would be taken for an answer to a submission."""
    api.sent_on = (status, "https://ray.example.org/team")
    told = launch(api, "--storage", "/shared")
    assert (told.exit_code, "give --address https://ray.example.org/team\n" in told.stderr) == (4, True), told.stderr
    api.sent_on = (status, "https://login.example.org/?state=very-secret&to=")
    told = launch(api, "--storage", "/shared")
    assert (told.exit_code, "RAY_JOB_HEADERS" in told.stderr, "very-secret" in told.output) == (4, True, False)
    assert api.jobs == {}


def test_what_a_proxy_says_in_a_page_is_told_in_a_line(api: JobApi) -> None:
    api.page = (
        413,
        "<html>\r\n<head><title>413 Request Entity\r\nToo Large</title></head>\r\n<body></body>\r\n</html>",
    )
    told = launch(api, "--storage", "/shared")
    assert told.exit_code == 4
    assert "refused: HTTP status 413: 413 Request Entity Too Large, by a proxy" in told.stderr


def test_of_two_jobs_of_a_sweep_the_one_that_runs_is_meant(api: JobApi) -> None:
    api.add("first", RUNNING, metadata=parcel().metadata)
    api.add("second", FAILED, metadata=parcel().metadata, message="is being launched by")
    told = run("jobs", "stop", "digits-grid", "--address", api.address)
    assert (told.exit_code, api.jobs["first"]["status"]) == (0, STOPPED), told.stderr
    assert "second" in run("jobs", "status", "digits-grid", "--address", api.address).stdout
    assert "first" in run("jobs", "status", "first", "--address", api.address).stdout


# Launching, from the command line


def test_an_interrupt_while_a_job_is_sent_says_that_it_may_have_arrived(
    api: JobApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("orchestrator.ray_jobs.submission.launch_as_ray_job", interrupted)
    told = launch(api, "--storage", "/shared", "--workers", "2")
    assert (told.exit_code, "may have been submitted" in told.stderr) == (3, True)
    assert f"bo-sweep jobs list --address {api.address}\n" in told.stderr
    assert f"bo-sweep launch digits-grid --storage /shared --address {api.address} --workers 2" in told.stderr


@pytest.fixture
def ended(api: JobApi, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobApi]:
    """A dashboard where each job that comes ends at once, well unless the test says how."""
    monkeypatch.setattr(logs, "LOOK_SECONDS", 0.01)
    left, end = threading.Event(), getattr(request, "param", {"status": DONE, "driver_exit_code": 0})

    def play() -> None:
        while not left.wait(0.01):
            for job in list(api.jobs.values()):
                api.logs[job["submission_id"]] = "[b]:100: percent"
                job.update(end, end_time=10**6)

    playing = threading.Thread(target=play)
    playing.start()
    yield api
    left.set()
    playing.join()


def launch(api: JobApi, *options: str | Path) -> Result:
    return run("launch", "digits-grid", "--address", api.address, *options)


def test_a_launch_ends_with_what_the_ledger_says_where_it_can_be_read(ended: JobApi, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "digits-grid")
    ledger.write_manifest(Manifest("digits-grid", SPACE, 1, "2026-01-01"))
    settle(ledger, *expand(SPACE)[1:])
    assert launch(ended, "--storage", tmp_path, "--wait").exit_code == 3
    settle(ledger, expand(SPACE)[0], status="failed")
    failed = launch(ended, "--storage", tmp_path, "--wait")
    assert failed.exit_code == 1
    assert f"--storage {tmp_path} --address {ended.address} --retry-failed" in failed.stderr


@pytest.mark.parametrize(
    ("ended", "exit_code", "words"),
    [
        ({"status": STOPPED}, 3, "stopped after"),
        ({"status": FAILED, "driver_exit_code": 2, "message": "unknown key"}, 2, "with exit code 2"),
        ({"status": FAILED, "driver_exit_code": 1, "message": "a trace\nNo module named 'polars'"}, 4, "pip install"),
        ({"status": FAILED, "driver_exit_code": 127, "message": "sh: 1: python: not found"}, 4, "that Ray runs with"),
        ({"status": FAILED, "driver_exit_code": -9, "message": "killed"}, 4, "failed after"),
    ],
    indirect=["ended"],
)
def test_a_job_that_did_not_come_to_its_end_is_no_failure_of_runs(ended: JobApi, exit_code: int, words: str) -> None:
    told = launch(ended, "--storage", "/shared", "--wait")
    assert (told.exit_code, words in told.stderr) == (exit_code, True), told.stderr
    assert told.stderr.startswith("[b]:100: percent\ndigits-grid"), "the log is shown as it is"
    assert f"bo-sweep launch digits-grid --storage /shared --address {ended.address}\n" in told.stderr


@pytest.mark.parametrize("storage", ["a folder of that name", "s3://bucket/sweeps"])
def test_a_job_that_is_done_is_no_failure_where_its_storage_is_not_in_reach(
    ended: JobApi, environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, storage: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("orchestrator.object_storage.ATTEMPTS", 1)
    result = launch(ended, "--storage", storage if "://" in storage else tmp_path, "--wait")
    assert result.exit_code == 0, result.stderr
    assert "cannot be read from here" in result.stderr


def test_the_data_folder_of_this_machine_is_not_that_of_the_nodes(api: JobApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BO_SWEEP_DATA", "/home/me/betons")
    assert "--data" not in launch(api, "--storage", "/shared", "--dry-run").stdout
    given = launch(api, "--storage", "/shared", "--dry-run", "--data", "/there").stdout
    assert "--data /there" in given


def test_the_next_command_is_the_same_launch(api: JobApi) -> None:
    options = ["--storage", "/shared", "--data", "/my data", "--workers", "2", "--cells", "ratio<10", "--wandb"]
    refined = ["--refine", "err_last=0.2", "--budget", "8"]
    told = launch(api, *options, *refined, "--dry-run").stderr
    for part in ("--data '/my data'", "--workers 2", "--cells 'ratio<10'", "--refine err_last=0.2", "--budget 8"):
        assert part in told
    assert "--wandb" in told


def test_options_that_mean_nothing_there_are_refused(api: JobApi, tmp_path: Path) -> None:
    (tmp_path / "calibration.json").write_text("{}")
    told = launch(api, "--storage", "/shared", "--calibration", tmp_path / "calibration.json")
    assert told.exit_code == 2
    assert "--calibration" in told.stderr
    assert api.jobs == {}


def test_what_travels_is_what_was_asked_for_and_no_secret(api: JobApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very secret")
    monkeypatch.setenv("WANDB_API_KEY", "very secret")
    submitted = launch(api, "--storage", "/shared", "--wandb", "--json")
    assert submitted.exit_code == 0, submitted.stderr
    (job,) = api.jobs.values()
    assert "very secret" not in json.dumps(job)
    assert {"RAY_JOB_STOP_WAIT_TIME_S", "RAY_CHDIR_TO_TRIAL_DIR"} <= job["runtime_env"]["env_vars"].keys()
    assert job["runtime_env"]["working_dir"].startswith("gcs://_ray_pkg_")
    (package,) = api.packages.values()
    assert b"very secret" not in package
