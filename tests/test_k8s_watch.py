"""Watching and ending a launch with the real commands: status, logs, dashboard, stop, delete."""

from __future__ import annotations

import base64
import http.server
import io
import json
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from orchestrator.commands.k8s.dashboard import dashboard
from orchestrator.commands.k8s.logs import logs
from orchestrator.commands.k8s.status import status
from orchestrator.commands.k8s.stop import delete, stop
from orchestrator.k8s.names import sweep_labels
from orchestrator.k8s.watching.causes import explain
from orchestrator.k8s.watching.launch_status import status_document, status_view
from tests.cluster_scenes import (
    CLUSTER,
    HEAD,
    JOB,
    SUBMITTER,
    SWEEP,
    WORKERS,
    Item,
    container,
    event,
    picture,
    pod,
    rayjob,
    stamp,
    unscheduled,
)
from tests.kubernetes_api import FakeCluster
from tests.kubernetes_api.streams import log_of, streams_of
from tests.launches import running as in_background
from tests.waiting import PATIENCE_SECONDS, wait_for

NO_GPU = "0/5 nodes are available: 5 Insufficient nvidia.com/gpu."
TOKEN = "token-of-ray"


@pytest.fixture
def run(cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command against the cluster, with no file of the user's in reach."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig")))
    monkeypatch.setenv("BO_SWEEP_CLUSTERS", str(tmp_path / "clusters.yaml"))
    return lambda command, *arguments: CliRunner().invoke(command, list(arguments))


def running(cluster: FakeCluster, **status: Any) -> None:
    """A launch that runs, its pods ready."""
    job = rayjob("Running", "RUNNING", **status)
    job["spec"]["rayClusterSpec"]["authOptions"] = {"mode": "token"}
    job["spec"]["entrypoint"] = f"exec bo-sweep launch /etc/bo-sweep/space.yaml --storage /results --name {SWEEP}"
    cluster.put(job)
    for name in (HEAD, *WORKERS, SUBMITTER):
        cluster.put(pod(name))
    log_of(cluster, SUBMITTER).write("12/63 runs ETA 3m 00s")


def test_status_tells_the_first_cause_and_the_remedy_and_then_where_pods_are(
    cluster: FakeCluster, run: Callable[..., Result]
) -> None:
    cluster.put(rayjob())
    cluster.put(pod(HEAD))
    for name in WORKERS:
        cluster.put(unscheduled(name, NO_GPU))
    cluster.put(event("FailedScheduling", NO_GPU, WORKERS[0]))
    result = run(status, SWEEP)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith("digits-grid: Waiting for pods")
    assert "0 of 2 workers ready" in lines[0]
    assert lines[1] == "No node takes the worker: 5 of 5 nodes have too few free GPUs (2 pods)"
    assert lines[2].startswith("-> wait until others have finished, or set a smaller workers.gpus")
    assert [line.split()[0] for line in lines[3:]] == ["pod", "head", "worker", "worker"]
    assert f"bo-sweep k8s status {SWEEP} --watch" in result.stderr
    document = json.loads(run(status, SWEEP, "--json").stdout)
    assert (document["state"], document["workers"]["ready"], document["head"]["node"]) == ("waiting", 0, "node-1")
    assert document["cause"] == lines[1]


def test_status_of_a_running_launch_has_its_progress_and_names_the_way_to_its_results(
    cluster: FakeCluster, run: Callable[..., Result]
) -> None:
    running(cluster)
    result = run(status, SWEEP, "--namespace", "default")
    assert "12/63 runs ETA 3m 00s" in result.stdout
    assert f"bo-sweep k8s logs {SWEEP} --namespace default" in result.stderr
    assert f"bo-sweep fetch {SWEEP} --on k8s --to results --namespace default" in result.stderr
    cluster.forbid("get", "pods/log")
    cluster.forbid("list", "events")
    cluster.forbid("list", "pods")
    document = json.loads(run(status, SWEEP, "--json").stdout)
    assert (document["state"], document["progress"], document["unread"]) == ("running", "", ["pods", "events"])


def test_a_launch_that_is_done_does_not_show_how_far_it_was_before_its_end() -> None:
    for state, expected in (("RUNNING", "42/48 runs"), ("SUCCEEDED", "")):
        shown = picture(rayjob("Running" if state == "RUNNING" else "Complete", state, endTime=stamp(60)))
        assert status_document(shown, explain(shown), "42/48 runs")["progress"] == expected


def test_a_pod_that_is_on_its_way_out_is_shown_so_and_not_counted() -> None:
    leaving = pod(WORKERS[0])
    leaving["metadata"]["deletionTimestamp"] = stamp(5)
    shown = picture(rayjob("Running", "RUNNING"), pod(HEAD), leaving, pod(WORKERS[1]))
    document = status_document(shown, explain(shown))
    assert document["workers"]["ready"] == 1
    assert "1 of 2 workers ready" in document["headline"]
    console = Console(file=io.StringIO(), width=140)
    console.print(status_view(document))
    assert "worker  Terminating" in console.file.getvalue()  # type: ignore[attr-defined]


def test_status_of_an_object_store_names_the_command_that_reads_it(
    cluster: FakeCluster, run: Callable[..., Result]
) -> None:
    job = rayjob("Running", "RUNNING")
    job["spec"]["entrypoint"] = "bo-sweep launch /x/space.yaml --storage s3://bucket/sweeps"
    cluster.put(job)
    assert f"bo-sweep status {SWEEP} --storage s3://bucket/sweeps" in run(status, SWEEP).stderr


def test_without_a_sweep_all_are_told_a_line_each(cluster: FakeCluster, run: Callable[..., Result]) -> None:
    result = run(status)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "No sweep in the namespace 'default'" in result.stderr
    running(cluster)
    other = rayjob("Complete", "SUCCEEDED")
    other["metadata"] |= {"name": "cifar-grid-00000000", "labels": sweep_labels("cifar-grid"), "uid": "another"}
    cluster.put(other)
    lines = run(status).stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["cifar-grid", "done"], ["digits-grid", "running"]]
    assert [each["sweep"] for each in json.loads(run(status, "--json").stdout)["sweeps"]] == ["cifar-grid", SWEEP]
    assert f"bo-sweep k8s status {SWEEP} --namespace default" in run(status, "--namespace", "default").stderr
    asked = [request.path for request in cluster.requests if request.path.endswith("/events")]
    assert len(asked) == 3, "of a launch that is complete nothing but its RayJob is read"


def test_of_several_launches_of_a_sweep_the_one_that_goes_on_is_told(
    cluster: FakeCluster, run: Callable[..., Result]
) -> None:
    running(cluster)
    ended = rayjob("Failed", "FAILED", age=1)
    ended["metadata"] |= {"name": f"{SWEEP}-ffffffff", "uid": "another"}
    cluster.put(ended)
    assert json.loads(run(status, SWEEP, "--json").stdout)["name"] == JOB


@pytest.mark.parametrize("command", [status, logs, dashboard, stop])
def test_a_sweep_that_is_not_there_is_a_mistake_and_near_names_are_told(
    command: click.Command, cluster: FakeCluster, run: Callable[..., Result]
) -> None:
    running(cluster)
    result = run(command, "digit-grid")
    assert result.exit_code == 2
    assert "no sweep 'digit-grid' in the namespace 'default'" in result.stderr
    assert "Did you mean 'digits-grid'?" in result.stderr
    assert cluster.changes == []


def test_a_cluster_without_kuberay_or_rights_is_an_infrastructure_failure(
    cluster: FakeCluster, run: Callable[..., Result]
) -> None:
    cluster.forbid("list", "rayjobs")
    result = run(status, SWEEP)
    assert result.exit_code == 4
    assert "alice may not list rayjobs.ray.io" in result.stderr
    cluster.allow_all()
    cluster.without("ray.io")
    result = run(status, SWEEP)
    assert result.exit_code == 4
    assert "KubeRay is not installed" in result.stderr


def test_watching_prints_what_changes_and_ends_with_the_launch(
    cluster: FakeCluster, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.commands.k8s.status.WATCH_SECONDS", 0.05)
    running(cluster)
    stages: Iterator[Item | None] = iter([None, rayjob("Complete", "SUCCEEDED")])
    sleep = time.sleep

    def advance(seconds: float) -> None:
        if (stage := next(stages)) is not None:
            cluster.put(stage)
        sleep(0.01)

    monkeypatch.setattr("orchestrator.commands.watching.time.sleep", advance)
    result = run(status, SWEEP, "--watch")
    told = [line for line in result.stdout.splitlines() if line.startswith(f"{SWEEP}: ")]
    assert [line.split()[1] for line in told] == ["Running", "Done"]
    assert f"bo-sweep fetch {SWEEP}" in result.stderr


@pytest.mark.parametrize("arguments", [["--watch"], [SWEEP, "--watch", "--json"]])
def test_watching_takes_a_sweep_and_no_json(arguments: list[str], run: Callable[..., Result]) -> None:
    result = run(status, *arguments)
    assert result.exit_code == 2
    assert "--watch shows one SWEEP" in result.stderr


def test_a_head_that_does_not_answer_the_operator_is_told(cluster: FakeCluster, run: Callable[..., Result]) -> None:
    running(cluster, jobStatusCheckFailureStartTime=stamp(90))
    document = json.loads(run(status, SWEEP, "--json").stdout)
    assert document["state"] == "running"
    assert document["cause"].startswith("The head has not answered KubeRay's operator for ")


def test_watching_a_launch_that_is_deleted_ends_too(
    cluster: FakeCluster, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    running(cluster)
    monkeypatch.setattr("orchestrator.commands.watching.time.sleep", lambda seconds: cluster.remove("RayJob", JOB))
    assert "Deleted; results stay." in run(status, SWEEP, "--watch").stdout


def test_logs_go_to_stdout_and_words_to_stderr(cluster: FakeCluster, run: Callable[..., Result]) -> None:
    running(cluster)
    log_of(cluster, SUBMITTER).write("13/63 runs")
    result = run(logs, SWEEP, "--no-follow")
    assert (result.exit_code, result.stdout) == (0, "12/63 runs ETA 3m 00s\n13/63 runs\n")
    assert f"bo-sweep k8s status {SWEEP}" in result.stderr
    assert run(logs, SWEEP, "--no-follow", "--tail", "1").stdout == "13/63 runs\n"
    log_of(cluster, HEAD).write("Ray runtime started.")
    assert run(logs, SWEEP, "--no-follow", "--node", "head").stdout == "Ray runtime started.\n"
    for name in WORKERS:
        log_of(cluster, name).write("ready")
    assert run(logs, SWEEP, "--no-follow", "--node", "worker").stdout == "".join(
        f"{name} | ready\n" for name in WORKERS
    )
    assert run(logs, SWEEP, "--no-follow", "--pod", WORKERS[1]).stdout == "ready\n"


def test_logs_of_pods_that_are_not_there_name_those_that_are(cluster: FakeCluster, run: Callable[..., Result]) -> None:
    running(cluster)
    result = run(logs, SWEEP, "--pod", "nobody")
    assert result.exit_code == 2
    assert f"no pod 'nobody' of sweep '{SWEEP}'; there are: {HEAD}" in result.stderr
    cluster.remove("Pod", HEAD)
    result = run(logs, SWEEP, "--node", "head")
    assert result.exit_code == 2
    assert "has no head at present" in result.stderr
    cluster.remove("Pod", SUBMITTER)
    result = run(logs, SWEEP, "--no-follow")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no submitter has started" in result.stderr


def test_followed_logs_end_with_the_launch(cluster: FakeCluster, run: Callable[..., Result]) -> None:
    running(cluster)

    def end() -> None:
        wait_for(lambda: log_of(cluster, SUBMITTER).opened)
        log_of(cluster, SUBMITTER).write("63/63 runs")
        cluster.put(rayjob("Complete", "SUCCEEDED"))
        cluster.put(pod(SUBMITTER, "Succeeded"))
        log_of(cluster, SUBMITTER).ended = True

    threading.Thread(target=end).start()
    result = run(logs, SWEEP)
    assert (result.exit_code, result.stdout) == (0, "12/63 runs ETA 3m 00s\n63/63 runs\n")


@contextmanager
def ray_dashboard(answer: tuple[int, str] = (200, '{"stopped": true}')) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """Ray's dashboard on a head, as far as it is used: gives its port and what it was asked, with the token."""
    asked: list[tuple[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization", "")))
            self.send_response(answer[0])
            self.end_headers()
            self.wfile.write(answer[1].encode())

        do_POST = do_GET  # noqa: N815 (the library's own name)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server.server_address[1], asked
    finally:
        server.shutdown()
        server.server_close()


def token_secret(cluster: FakeCluster) -> Item:
    data = {"auth_token": base64.b64encode(TOKEN.encode()).decode()}
    return cluster.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": CLUSTER}, "data": data})


def test_stop_asks_ray_with_its_token_and_deletes_nothing(cluster: FakeCluster, run: Callable[..., Result]) -> None:
    running(cluster)
    token_secret(cluster)
    with ray_dashboard() as (port, asked):
        streams_of(cluster).ports[HEAD, 8265] = port
        result = run(stop, SWEEP)
        assert result.exit_code == 0
        assert asked == [(f"/api/jobs/{JOB}-m2c4d/stop", f"Bearer {TOKEN}")]
        document = json.loads(run(stop, SWEEP, "--json").stdout)
    assert "it saves what runs" in result.stderr
    assert f"bo-sweep k8s status {SWEEP} --watch" in result.stderr
    assert TOKEN not in result.output
    assert (document["way"], document["name"]) == ("asked", JOB)
    assert cluster.names("RayJob") == [JOB]


@pytest.mark.parametrize(
    "obstacle", ["not running", "no secret", "secret forbidden", "no head", "Ray refuses", "silent"]
)
def test_where_ray_cannot_be_asked_the_job_is_deleted_and_what_that_costs_is_told(
    obstacle: str, cluster: FakeCluster, run: Callable[..., Result]
) -> None:
    running(cluster)
    token_secret(cluster)
    expected = {
        "not running": "does not run yet",
        "no secret": "is not there",
        "secret forbidden": "you may not read the secret",
        "no head": "the head is not ready",
        "Ray refuses": "answers 401: no such token",
        "silent": "does not answer",
    }
    if obstacle == "not running":
        cluster.put(rayjob())
    elif obstacle == "no secret":
        cluster.remove("Secret", CLUSTER)
    elif obstacle == "secret forbidden":
        cluster.forbid("get", "secrets")
    elif obstacle == "no head":
        cluster.remove("Pod", HEAD)
    with ray_dashboard((401, "no such token")) as (port, _):
        if obstacle == "Ray refuses":
            streams_of(cluster).ports[HEAD, 8265] = port
        result = run(stop, SWEEP)
    assert result.exit_code == 0
    assert f"{JOB} was deleted, since Ray could not be asked" in result.stderr
    assert expected[obstacle] in result.stderr
    assert "since the last checkpoints is trained again" in result.stderr
    assert cluster.names("RayJob") == []


def test_a_launch_that_has_ended_is_left_alone(cluster: FakeCluster, run: Callable[..., Result]) -> None:
    for job in (rayjob("Complete", "SUCCEEDED"), rayjob("Running", "SUCCEEDED")):
        cluster.put(job)
        result = run(stop, SWEEP)
        assert result.exit_code == 0
        assert "has ended already" in result.stderr
    assert cluster.changes == []


def test_delete_takes_jobs_and_config_maps_of_the_sweep_and_nothing_else(
    cluster: FakeCluster, run: Callable[..., Result]
) -> None:
    running(cluster)
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": JOB, "labels": sweep_labels(SWEEP)}}
    cluster.put(config)
    cluster.put(config | {"metadata": {"name": "other", "labels": sweep_labels("other")}})
    cluster.put(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "results", "labels": sweep_labels(SWEEP)},
        }
    )
    result = run(delete, SWEEP)
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert cluster.changes == []
    result = run(delete, SWEEP, "--yes")
    assert result.exit_code == 0
    assert f"Deleted RayJob {JOB}, ConfigMap {JOB}. Results stay" in result.stderr
    assert (cluster.names("RayJob"), cluster.names("ConfigMap")) == ([], ["other"])
    assert cluster.names("PersistentVolumeClaim") == ["results"]
    result = run(delete, SWEEP, "--yes")
    assert result.exit_code == 2
    assert "no sweep" in result.stderr


def test_the_dashboard_is_shown_finds_a_new_head_again_and_ends_with_ctrl_c(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    running(cluster)
    kubeconfig = cluster.kubeconfig(tmp_path / "kubeconfig")
    code = (
        "import orchestrator.commands.k8s.dashboard as module\nmodule.REMEMBER_SECONDS = 0.0\n"
        f"module.dashboard(['{SWEEP}', '--kubeconfig', '{kubeconfig}', '--port', '0'])"
    )
    with ray_dashboard((200, "hello")) as (port, _):
        streams_of(cluster).ports[HEAD, 8265] = port
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "BO_SWEEP_CLUSTERS": str(tmp_path / "none")}
        with in_background([sys.executable, "-c", code], environment) as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:")
            assert urllib.request.urlopen(url, timeout=PATIENCE_SECONDS).read() == b"hello"
            successor = f"{CLUSTER}-head-zzzzz"
            cluster.remove("Pod", HEAD)
            streams_of(cluster).ports[successor, 8265] = port
            cluster.put(pod(successor))
            assert urllib.request.urlopen(url, timeout=PATIENCE_SECONDS).read() == b"hello"
            process.send_signal(signal.SIGINT)
            out, words = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, out) == (0, "")
    secret = f"kubectl get secret {CLUSTER} --kubeconfig {kubeconfig} -n default"
    assert f"{secret} -o jsonpath='{{.data.auth_token}}' | base64 -d" in words
    assert f"bo-sweep k8s status {SWEEP}" in words


def test_a_dashboard_is_shown_until_the_launch_has_ended_and_its_head_is_gone(
    cluster: FakeCluster, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    running(cluster)
    cluster.put(rayjob("Complete", "SUCCEEDED"))
    looks: list[float] = []

    def wait(seconds: float) -> None:
        looks.append(seconds)
        cluster.remove("Pod", HEAD)

    with ray_dashboard((200, "hello")) as (port, _):
        streams_of(cluster).ports[HEAD, 8265] = port
        monkeypatch.setattr("orchestrator.commands.k8s.dashboard.time.sleep", wait)
        result = run(dashboard, SWEEP, "--port", "0")
    assert result.exit_code == 0
    assert looks, "it was there as long as the head was"
    assert "has ended, and its dashboard with it" in result.stderr


def test_a_dashboard_that_is_not_there_yet_says_why(cluster: FakeCluster, run: Callable[..., Result]) -> None:
    cluster.put(rayjob())
    waiting = container("ray-head", waiting={"reason": "ErrImagePull", "message": "unauthorized"})
    cluster.put(pod(HEAD, "Pending", containerStatuses=waiting))
    result = run(dashboard, SWEEP)
    assert result.exit_code == 4
    assert "no head that is ready" in result.stderr
    assert "the registry does not let us in" in result.stderr
    running(cluster)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = run(dashboard, SWEEP, "--port", str(taken.getsockname()[1]))
    assert result.exit_code == 2
    assert "choose another with --port" in result.stderr
