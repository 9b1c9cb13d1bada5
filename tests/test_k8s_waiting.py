"""Waiting for the end of a submitted sweep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.k8s.client.api import ClusterError, ForbiddenError, NotFoundError
from orchestrator.k8s.submitting.waiting import End, wait
from tests.kubernetes_api import FakeCluster
from tests.submitting import Launcher


@pytest.fixture
def launch(cluster: FakeCluster, tmp_path: Path) -> Launcher:
    return Launcher(cluster.kubeconfig(tmp_path / "kubeconfig"))


class Play:
    """Changes the cluster step by step, the next one when the last has been seen."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self.steps, self.seen = list(steps), list[str]()

    def __call__(self, job: dict[str, Any]) -> None:
        self.seen.append((job.get("status") or {}).get("jobDeploymentStatus", ""))
        if self.steps:
            self.steps.pop(0)()


def job(cluster: FakeCluster, **status: str) -> dict[str, Any]:
    put = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "grid"}, "spec": {"entrypoint": "true"}}
    return cluster.put(put | ({"status": status} if status else {}))


def together(*actions: Callable[[], object]) -> Callable[[], None]:
    """Several actions as one step."""

    def act() -> None:
        for action in actions:
            action()

    return act


def to(cluster: FakeCluster, deployment: str, **status: str) -> Callable[[], object]:
    return lambda: cluster.change("RayJob", "grid", status={"jobDeploymentStatus": deployment, **status})


@pytest.mark.parametrize(
    ("status", "end"),
    [
        ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, End("succeeded")),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, End("stopped")),
        (
            {"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded", "message": "x"},
            End("failed", "DeadlineExceeded", "x"),
        ),
        ({"jobDeploymentStatus": "ValidationFailed", "message": "x"}, End("failed", "ValidationFailed", "x")),
    ],
)
def test_waiting_returns_how_it_ended(status: dict[str, str], end: End, cluster: FakeCluster, launch: Launcher) -> None:
    job(cluster)
    play = Play(
        to(cluster, "Initializing"), to(cluster, "Running"), lambda: cluster.change("RayJob", "grid", status=status)
    )
    assert wait(launch.api, "grid", play) == end
    assert play.seen == ["", "Initializing", "Running", status["jobDeploymentStatus"]]


def test_waiting_survives_cut_connections_lost_history_and_a_server_that_restarts(
    cluster: FakeCluster, launch: Launcher
) -> None:
    job(cluster)
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if cluster.is_stopped and len(naps) > 5:
            cluster.start()

    play = Play(
        together(cluster.cut_streams, to(cluster, "Initializing")),
        together(cluster.compact, to(cluster, "Waiting")),
        together(cluster.stop, to(cluster, "Running")),
        together(lambda: cluster.fault("error", code=503, times=7), cluster.cut_streams, to(cluster, "Retrying")),
        to(cluster, "Complete", jobStatus="SUCCEEDED"),
    )
    assert wait(launch.api, "grid", play, sleep=nap) == End("succeeded")
    assert play.seen == ["", "Initializing", "Waiting", "Running", "Retrying", "Complete"]
    assert len(naps) > 5


def test_a_job_that_has_not_changed_for_long_is_watched_and_not_asked_for_over_and_over(
    cluster: FakeCluster, launch: Launcher
) -> None:
    job(cluster)
    cluster.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "younger"}})
    cluster.compact()
    naps: list[float] = []
    play = Play(to(cluster, "Complete", jobStatus="SUCCEEDED"))
    assert wait(launch.api, "grid", play, sleep=naps.append) == End("succeeded")
    assert naps == []


@pytest.mark.parametrize("code", [403, 404])
def test_a_server_that_has_just_started_may_refuse_what_it_allowed_before(
    code: int, cluster: FakeCluster, launch: Launcher
) -> None:
    job(cluster)

    def refuse() -> None:
        message = "the server could not find the requested resource"
        cluster.fault("refuse", code=code, message=message, path="rayjobs", times=3)
        cluster.cut_streams()

    with pytest.raises((ForbiddenError, NotFoundError)):
        wait(launch.api, "grid", Play(refuse), refused_seconds=0.0)
    with pytest.raises((ForbiddenError, NotFoundError)):
        wait(launch.api, "grid")
    cluster.faults.clear()
    play = Play(together(refuse, to(cluster, "Complete", jobStatus="SUCCEEDED")))
    assert wait(launch.api, "grid", play, sleep=lambda _: None) == End("succeeded")


def test_waiting_tells_when_the_job_is_deleted(cluster: FakeCluster, launch: Launcher) -> None:
    job(cluster)
    assert wait(launch.api, "grid", Play(lambda: cluster.remove("RayJob", "grid"))) == End("deleted")
    job(cluster)
    replaced = Play(
        together(cluster.cut_streams, cluster.compact, lambda: cluster.remove("RayJob", "grid"), lambda: job(cluster))
    )
    assert wait(launch.api, "grid", replaced, sleep=lambda _: None) == End("deleted")
    cluster.remove("RayJob", "grid")
    with pytest.raises(ClusterError, match="no RayJob 'grid' in the namespace 'default'"):
        wait(launch.api, "grid")


def test_ctrl_c_ends_the_waiting_and_not_the_job(cluster: FakeCluster, launch: Launcher) -> None:
    job(cluster)

    def interrupt() -> None:
        raise KeyboardInterrupt

    before = len(cluster.changes)
    with pytest.raises(KeyboardInterrupt):
        wait(launch.api, "grid", Play(interrupt))
    assert len(cluster.changes) == before


def test_patience_with_a_server_that_is_away_has_an_end(cluster: FakeCluster, launch: Launcher) -> None:
    job(cluster)
    with pytest.raises(ClusterError, match="refused"):
        wait(launch.api, "grid", Play(cluster.stop), patience_seconds=0.2, sleep=lambda _: None)
    cluster.start()
    expired = Play(together(cluster.tokens.clear, cluster.cut_streams))
    with pytest.raises(ClusterError, match="credentials are not accepted"):
        wait(launch.api, "grid", expired, sleep=lambda _: None)
