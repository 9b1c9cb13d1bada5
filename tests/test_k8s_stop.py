"""Ending launches: which ones are over, and that only what was looked at is deleted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator.cli import main
from orchestrator.k8s.client.api import Api, ConflictError, Connection, connect
from orchestrator.k8s.names import sweep_labels
from orchestrator.k8s.watching import stop as stopping
from orchestrator.k8s.watching.stop import delete, stop
from tests.kubernetes_api import FakeCluster


@pytest.fixture
def api(cluster: FakeCluster, tmp_path: Path) -> Api:
    return connect(Connection(cluster.kubeconfig(tmp_path / "kubeconfig")))


def rayjob(**status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": "grid-1", "labels": sweep_labels("grid")},
        "spec": {"entrypoint": "true", "backoffLimit": 2},
        "status": status,
    }


def test_ctrl_c_ends_with_the_code_of_what_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("orchestrator.k8s.client.api.connect", interrupted)
    for command in ("stop", "delete"):
        result = CliRunner().invoke(main, ["k8s", command, "grid"])
        assert (result.exit_code, result.stderr) == (3, "\nStopped.\n")


@pytest.mark.parametrize(
    ("status", "way"),
    [
        ({"jobDeploymentStatus": "Retrying", "jobStatus": "FAILED", "failed": 1}, "deleted"),
        ({"jobDeploymentStatus": "Running", "jobStatus": "FAILED", "failed": 1}, "deleted"),
        ({"jobDeploymentStatus": "Running", "jobStatus": "FAILED", "failed": 2}, "ended"),
        ({"jobDeploymentStatus": "Running", "jobStatus": "STOPPED"}, "ended"),
        ({"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "failed": 3}, "ended"),
    ],
)
def test_a_failed_attempt_is_not_the_end_while_another_one_comes(
    status: dict[str, Any], way: str, cluster: FakeCluster, api: Api
) -> None:
    cluster.put(rayjob(**status))
    stopped = stop(api, "grid")
    assert stopped.way == way
    assert cluster.names("RayJob") == ([] if way == "deleted" else ["grid-1"])
    assert way == "ended" or "the next one was to come" in stopped.why


def test_a_job_that_was_made_anew_meanwhile_is_not_deleted(
    cluster: FakeCluster, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.put(rayjob())

    def launched_again(*_: object) -> None:
        cluster.remove("RayJob", "grid-1")
        cluster.put(rayjob())
        raise ConnectionError("not now")

    monkeypatch.setattr(stopping, "ask_ray_to_stop", launched_again)
    with pytest.raises(ConflictError):
        stop(api, "grid")
    assert cluster.names("RayJob") == ["grid-1"]
    assert delete(api, "grid") == ["RayJob grid-1"]


def config(name: str, *owners: str) -> dict[str, Any]:
    references = [{"apiVersion": "ray.io/v1", "kind": "RayJob", "name": name, "uid": uid} for uid in owners]
    metadata = {"name": name, "labels": sweep_labels("grid")} | ({"ownerReferences": references} if owners else {})
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


def test_what_a_killed_launch_has_left_is_deleted_after_a_question(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BO_SWEEP_CLUSTERS", str(tmp_path / "none"))
    cluster.put(config("grid-2"))
    asked: list[str] = []

    def confirmed(question: str) -> bool:
        asked.append(question)
        return True

    monkeypatch.setattr("orchestrator.commands.k8s.stop._confirmed", confirmed)
    monkeypatch.setattr(
        "orchestrator.commands.k8s.stop.sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True))
    )
    command = ["k8s", "delete", "grid", "--kubeconfig", str(cluster.kubeconfig(tmp_path / "kubeconfig"))]
    result = CliRunner().invoke(main, command)
    assert (result.exit_code, asked[0].partition(" in ")[0]) == (0, "Delete grid")
    assert "Deleted ConfigMap grid-2." in result.stderr
    assert cluster.names("ConfigMap") == []
    result = CliRunner().invoke(main, command)
    assert (result.exit_code, len(asked)) == (2, 1)


def test_the_config_map_of_a_job_that_was_launched_meanwhile_stays(cluster: FakeCluster, api: Api) -> None:
    job = cluster.put(rayjob())
    cluster.put(config("grid-1", job["metadata"]["uid"]))
    cluster.put(config("grid-2"))
    job["metadata"]["labels"].clear()
    cluster.put(job)  # to the first list it is not there yet
    assert delete(api, "grid") == ["ConfigMap grid-2"]
    assert cluster.names("ConfigMap") == ["grid-1"]
