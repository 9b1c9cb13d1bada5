"""`bo-sweep launch` on Kubernetes and on a Ray cluster's job API, from the command line to its exit code."""

from __future__ import annotations

import json
import shlex
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from orchestrator.cli import main
from orchestrator.k8s.client.errors import ClusterError
from orchestrator.ledger import Ledger, Manifest
from orchestrator.storage import Storage, StorageError, open_storage
from search_spaces.catalog import load_space
from search_spaces.runs import expand
from tests.kubernetes_api import FakeCluster
from tests.object_store import BUCKET, Store
from tests.test_ledger import settle

IMAGE = f"registry.example.org/bo-sweep@sha256:{'0' * 64}"
SPACE = load_space("digits-grid")
RUNS = expand(SPACE)
DONE = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}


@pytest.fixture
def results(environment: None, s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    s3.set_faults()
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.address)
    return open_storage(f"s3://{BUCKET}/{tmp_path.name}")


@pytest.fixture
def launch(
    cluster: FakeCluster, results: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Launches digits-grid with a profile that keeps its results in an object store."""
    profile = {"image": IMAGE, "workers": {"nodes": 1, "cpus": 4}, "results": {"url": results.url}}
    profiles = tmp_path / "clusters.yaml"
    profiles.write_text(yaml.safe_dump({"default": "lab", "clusters": {"lab": profile}}))
    monkeypatch.setenv("BO_SWEEP_CLUSTERS", str(profiles))
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig")))
    return lambda *options: run("launch", "digits-grid", "--on", "k8s", *options)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def sweep_with(storage: Storage, done: int, failed: int = 0) -> None:
    ledger = Ledger(storage.child("digits-grid"))
    ledger.write_manifest(Manifest("digits-grid", SPACE, 1, "2026-01-01"))
    settle(ledger, *RUNS[:done])
    if failed:
        settle(ledger, *RUNS[done : done + failed], status="failed")


def app_failed(code: int) -> dict[str, Any]:
    message = f"Job entrypoint command failed with exit code {code}, last available logs (truncated to 20,000 chars):\n"
    return {
        "jobDeploymentStatus": "Failed",
        "jobStatus": "FAILED",
        "reason": "AppFailed",
        "message": f"{message}Error: far too long",
    }


def ends_with(cluster: FakeCluster, status: dict[str, Any]) -> threading.Thread:
    """Plays the operator: a RayJob that is submitted ends with this status."""

    def play() -> None:
        while not cluster.names("RayJob"):
            time.sleep(0.01)
        cluster.change("RayJob", cluster.names("RayJob")[0], status=status)

    playing = threading.Thread(target=play, daemon=True)
    playing.start()
    return playing


def test_a_launch_is_submitted_once_and_tells_how_to_watch_it(
    launch: Callable[..., Result], cluster: FakeCluster
) -> None:
    first = launch()
    (name,) = cluster.names("RayJob")
    assert (first.exit_code, first.stdout) == (0, f"{name}: submitted\n")
    for command in ("k8s status digits-grid", "k8s logs digits-grid", "fetch digits-grid --on k8s --to fetched"):
        assert f"bo-sweep {command}" in first.stderr
    before = len(cluster.changes)
    assert launch().stdout == f"{name}: runs already\n"
    assert len(cluster.changes) == before


def test_the_next_command_asks_for_the_same_launch(
    launch: Callable[..., Result], cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BO_SWEEP_STORAGE", "/of/this/machine")
    options = ("--profile", "lab", "--name", "again", "--wandb", "--retry-failed", "--max-runs", "3")
    rendered = launch(*options, "--dry-run")
    *_, following = rendered.stderr.strip().splitlines()
    assert "--storage" not in following
    assert run(*shlex.split(following)[1:], "--dry-run").stdout == rendered.stdout
    assert cluster.requests == []


def test_another_launch_of_the_sweep_is_refused_with_the_command_that_ends_it(
    launch: Callable[..., Result], cluster: FakeCluster
) -> None:
    launch()
    result = launch("--seeds", "5", "--profile", "lab", "--namespace", "default")
    assert result.exit_code == 4
    assert "(bo-sweep k8s stop digits-grid --profile lab --namespace default)" in result.stderr
    assert len(cluster.names("RayJob")) == 1


def test_a_complete_sweep_submits_nothing(
    launch: Callable[..., Result], cluster: FakeCluster, results: Storage
) -> None:
    sweep_with(results, len(RUNS))
    result = launch("--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["state"] == "complete"
    assert cluster.changes == []
    sweep = launch("--seeds", "4").stdout.partition(":")[0]
    assert cluster.names("RayJob") == [sweep]


def test_a_claim_that_may_not_be_read_is_no_obstacle(launch: Callable[..., Result], cluster: FakeCluster) -> None:
    cluster.forbid("get", "persistentvolumeclaims")
    claim = ("--cluster-set", "results.claim=results", "--cluster-set", "results.url=null")
    result = launch(*claim)
    assert result.exit_code == 0, result.stderr
    assert "the ledger cannot be read from here" in result.stderr
    assert len(cluster.names("RayJob")) == 1


@pytest.mark.parametrize(
    ("done", "failed", "exit_code", "told", "next_command"),
    [
        (len(RUNS), 0, 0, "", "bo-sweep fetch digits-grid --on k8s --to fetched"),
        (len(RUNS) - 2, 2, 1, "some runs failed.", "bo-sweep launch digits-grid --on k8s --retry-failed"),
        (len(RUNS) - 2, 0, 3, "not all runs are done.", "bo-sweep launch digits-grid --on k8s\n"),
    ],
)
def test_waiting_ends_with_the_exit_code_of_the_launch(
    launch: Callable[..., Result],
    cluster: FakeCluster,
    results: Storage,
    done: int,
    failed: int,
    exit_code: int,
    told: str,
    next_command: str,
) -> None:
    def play() -> None:
        while not cluster.names("RayJob"):
            time.sleep(0.01)
        sweep_with(results, done, failed)
        cluster.change("RayJob", cluster.names("RayJob")[0], status=DONE)

    threading.Thread(target=play, daemon=True).start()
    result = launch("--wait")
    assert (result.exit_code, cluster.items("RayJob")[0]["status"]) == (exit_code, DONE)
    assert next_command in result.stderr
    assert ("succeeded, but" in result.stderr) == bool(told)
    assert told in result.stderr


@pytest.mark.parametrize(
    ("status", "exit_code", "told"),
    [
        (
            {"jobDeploymentStatus": "Failed", "reason": "PreRunningDeadlineExceeded", "message": "no GPUs came"},
            4,
            "failed: PreRunningDeadlineExceeded no GPUs came",
        ),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, 3, "stopped"),
        (app_failed(2), 2, "failed: AppFailed Job entrypoint command failed with exit code 2\n"),
        (app_failed(1), 1, "failed: AppFailed"),
        (app_failed(137), 4, "failed: AppFailed"),
    ],
)
def test_a_launch_that_did_not_come_to_its_end_says_why(
    launch: Callable[..., Result], cluster: FakeCluster, status: dict[str, Any], exit_code: int, told: str
) -> None:
    ends_with(cluster, status)
    result = launch("--wait")
    assert result.exit_code == exit_code
    assert told in result.stderr
    assert "far too long" not in result.stderr
    assert "bo-sweep k8s status digits-grid" in result.stderr


def test_a_ledger_that_cannot_be_read_from_here_makes_no_failure_of_a_launch_that_is_done(
    launch: Callable[..., Result], cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.commands.launch_elsewhere._complete", lambda *_: None)
    monkeypatch.setattr("orchestrator.remaining.plan_in", out_of_reach)
    ends_with(cluster, DONE)
    result = launch("--wait")
    assert result.exit_code == 0
    assert "whether runs failed is not known here" in result.stderr


def out_of_reach(*_: object) -> None:
    raise StorageError("no way from here")


def test_a_cluster_that_stays_away_while_waiting_is_told_with_what_becomes_of_the_job(
    launch: Callable[..., Result], cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise ClusterError("it is away", code=503)

    monkeypatch.setattr("orchestrator.k8s.submitting.waiting.wait", away)
    result = launch("--wait")
    assert result.exit_code == 4
    assert f"it is away\n{cluster.names('RayJob')[0]} itself goes on: bo-sweep k8s status" in result.stderr


def test_ctrl_c_while_it_is_submitted_tells_what_is_in_the_cluster(
    launch: Callable[..., Result], cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("orchestrator.k8s.submitting.submission.apply_job", interrupted)
    result = launch()
    assert result.exit_code == 3
    assert "was not submitted." in result.stderr
    monkeypatch.setattr("orchestrator.k8s.launch.preflight", interrupted)
    result = launch("--max-runs", "3")
    assert result.exit_code == 3
    assert "Stopped: nothing was submitted." in result.stderr
    assert "--max-runs 3" in result.stderr
    assert cluster.names("RayJob") == cluster.names("ConfigMap") == []


def test_ctrl_c_detaches_and_the_job_goes_on(
    launch: Callable[..., Result], cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("orchestrator.k8s.submitting.waiting.wait", interrupted)
    result = launch("--wait")
    (name,) = cluster.names("RayJob")
    assert result.exit_code == 3
    assert f"Detached: {name} goes on." in result.stderr
    assert "bo-sweep k8s logs digits-grid" in result.stderr


def test_dry_runs_print_manifests_or_ask_the_cluster_and_write_nothing(
    launch: Callable[..., Result], cluster: FakeCluster
) -> None:
    rendered = launch("--dry-run", "--wandb", "--max-runs", "3")
    *_, config, job = yaml.safe_load_all(rendered.stdout)
    assert (config["kind"], job["kind"]) == ("ConfigMap", "RayJob")
    assert job["spec"]["entrypoint"].endswith("--max-runs 3 --as-job --wandb")
    assert cluster.requests == []
    asked = launch("--dry-run=server")
    assert asked.exit_code == 0
    assert "the cluster would accept it" in asked.stdout
    assert cluster.changes == []
    launch("--max-runs", "3", "--wandb")
    assert "runs already: nothing would be submitted" in launch("--max-runs", "3", "--wandb", "--dry-run=server").stdout
    cluster.without("ray.io")
    refused = launch("--dry-run=server")
    assert refused.exit_code == 4
    assert "KubeRay" in refused.stderr


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--on", "k8s", "--storage", "x", "--address", "auto"], ["--storage does not go with", "--address is"]),
        (["--profile", "lab", "--nodes", "2"], ["--nodes, --profile: only with --on k8s"]),
        (["--wait"], ["--wait is for launches elsewhere"]),
        (["--dry-run=server"], ["only with --on k8s"]),
        (["--on", "k8s", "--profile", "lap"], ["lap", "lab"]),
        (["--address", "http://127.0.0.1:9", "--wait"], ["--storage 'sweeps' is a folder of this machine"]),
    ],
)
def test_options_that_do_not_go_together_are_told_at_once(
    launch: Callable[..., Result], cluster: FakeCluster, options: list[str], parts: list[str]
) -> None:
    result = run("launch", "digits-grid", *options)
    assert result.exit_code == 2
    for part in parts:
        assert part in result.stderr
    assert (result.stdout, cluster.requests) == ("", [])
