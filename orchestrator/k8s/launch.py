"""A launch on Kubernetes: rendered here, checked against the cluster, submitted or found to be running already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from orchestrator.entry_point import LaunchRequest
from orchestrator.k8s.client.api import Api, connect
from orchestrator.k8s.client.connect import Connection
from orchestrator.k8s.client.retrying import Retries
from orchestrator.k8s.profile import ClusterProfile
from orchestrator.k8s.rendering.manifests import Manifests, render
from orchestrator.k8s.rendering.mounts import Mounts
from orchestrator.k8s.submitting.preflight import preflight
from orchestrator.k8s.submitting.submission import Submitted, submit


@dataclass(frozen=True)
class ClusterLaunch:
    """What a launch came to.

    Attributes:
        manifests: what was (or would be) submitted.
        submitted: what became of it; with --dry-run=server what would; None with --dry-run=client.
        api: of the cluster, to wait for the end; None with --dry-run=client.
    """

    manifests: Manifests
    submitted: Submitted | None = None
    api: Api | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.manifests.notes, *(self.submitted.notes if self.submitted else ()))


def launch_on_kubernetes(
    request: LaunchRequest,
    profile: ClusterProfile,
    connection: Connection | None = None,
    *,
    dry_run: Literal["client", "server"] | None = None,
    ledger_complete: Callable[[Api], bool | None] = lambda _: None,
    tell: Callable[[str], object] = lambda words: None,
    retries: Retries | None = None,
    mounts: Mounts | None = None,
) -> ClusterLaunch:
    """Render a launch and submit it. `dry_run` "client" only renders; "server" does all checks and writes nothing.

    Args:
        connection: which cluster; its context goes before the profile's, and so does its namespace.
        ledger_complete: whether storage has all runs of the request; None where it cannot be read from here.
        tell: gets words for the user when it takes time.

    Raises:
        ValueError: the launch cannot run there, or names what is not there (context, GPU product).
        ClusterError: no cluster, no rights, or refused; nothing was created.
    """
    connection = connection or Connection()
    if connection.namespace and connection.namespace != profile.namespace:
        profile = profile.model_copy(update={"namespace": connection.namespace})
    manifests = render(request, profile, mounts)
    if dry_run == "client":
        return ClusterLaunch(manifests)
    connection = replace(connection, context=connection.context or profile.context, namespace=profile.namespace)
    api = connect(connection, retries)
    submitted = submit(
        api,
        manifests,
        ledger_complete=lambda: ledger_complete(api),
        check=lambda: preflight(api, profile),
        tell=tell,
        only_try=dry_run == "server",
    )
    return ClusterLaunch(manifests, submitted, api)
