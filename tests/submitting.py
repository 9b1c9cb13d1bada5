"""Launches on a fake cluster as the command makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.entry_point import LaunchRequest
from orchestrator.k8s.client.api import Api, Connection, connect
from orchestrator.k8s.client.retrying import Retries
from orchestrator.k8s.launch import ClusterLaunch, launch_on_kubernetes
from orchestrator.k8s.profile import ClusterProfile
from orchestrator.k8s.submitting.submission import Submitted
from search_spaces.catalog import load_space

IMAGE = f"registry.example.org/bo-sweep@sha256:{'0' * 64}"
PLAIN: dict[str, Any] = {
    "image": IMAGE,
    "workers": {"nodes": 1, "cpus": 4},
    "results": {"claim": "results", "size": "10Gi"},
}
ENDED = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed"}


class Launcher:
    """Launches digits-grid as the command does, without pauses between tries."""

    def __init__(self, kubeconfig: Path) -> None:
        self.connection = Connection(kubeconfig)
        self.retries = Retries(sleep=lambda _: None)

    def __call__(
        self,
        profile: dict[str, Any] | None = None,
        *,
        overrides: tuple[str, ...] = (),
        sweep: str = "digits-grid",
        complete: bool | None = None,
        **how: Any,
    ) -> ClusterLaunch:
        return launch_on_kubernetes(
            LaunchRequest(load_space("digits-grid", overrides), sweep),
            ClusterProfile.model_validate({**PLAIN, **(profile or {})}),
            self.connection,
            ledger_complete=lambda _: complete,
            retries=self.retries,
            **how,
        )

    @property
    def api(self) -> Api:
        return connect(self.connection, self.retries)


def submitted(made: ClusterLaunch) -> Submitted:
    assert made.submitted is not None
    return made.submitted
