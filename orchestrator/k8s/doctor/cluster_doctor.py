"""The doctor of a cluster: looks at everything that a sweep needs there, and says what to do about what is missing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from orchestrator.checks.finding import Finding, failed, ok, skipped, warning
from orchestrator.doctor import Check, Look
from orchestrator.k8s.client.api import Api, ClusterError, Connection, ForbiddenError, connect
from orchestrator.k8s.client.errors import KUBERAY_REMEDY
from orchestrator.k8s.doctor import cluster_checks as checks
from orchestrator.k8s.doctor import profile_checks
from orchestrator.k8s.profile import ClusterProfile
from orchestrator.k8s.submitting.preflight import preflight

NO_PROFILE = "name a profile with --profile, or write one: bo-sweep k8s render --help"


def examine_cluster(
    connection: Connection, profile: ClusterProfile | None, tell: Callable[[str], None] = lambda name: None
) -> list[Check]:
    """Make all checks, in order; none can stop the next, except that nothing is asked of a cluster that is not there.

    `profile` is what a sweep would ask for; without one only the cluster itself is looked at. `tell` is called with the
    name of each check before it.

    Raises:
        ValueError: the kubeconfig has no such context.
    """
    tell("API server")
    try:
        api = connect(connection)
    except ClusterError as error:
        return [Check("API server", "failed", str(error), "kubectl version tells more")]
    found = [Check("API server", "ok", f"{api.host}, {_version(api)}, namespace {api.namespace}", "")]
    for look in looks(api, profile):
        tell(look.name)
        found.append(look.check())
    return found


def looks(api: Api, profile: ClusterProfile | None) -> list[Look]:
    """All checks of a cluster that is there, in order."""
    general = [
        Look("KubeRay", partial(checks.check_kuberay, api), KUBERAY_REMEDY),
        Look("operator", partial(checks.check_operator, api), "kubectl get pods -A tells whether it runs"),
        Look("rights", partial(checks.check_rights, api, profile), "kubectl auth can-i --list"),
    ]
    if profile is None:
        nothing = skipped("no profile: nodes, quotas, claims, queue and secrets were not looked at", NO_PROFILE)
        return [*general, Look("profile", lambda: nothing, NO_PROFILE)]
    claim = "kubectl get pvc tells more"
    return [
        *general,
        Look("profile", partial(_check_profile, api, profile), "correct the profile in clusters.yaml"),
        Look("Pod Security", partial(checks.check_pod_security, api, profile), "kubectl get namespace -o yaml"),
        Look("quota", partial(profile_checks.check_quota, api, profile), "kubectl describe resourcequota"),
        Look("nodes", partial(profile_checks.check_node_kinds, api, profile), "kubectl get nodes"),
        Look("results", partial(profile_checks.check_results, api, profile), claim),
        Look("data sets", partial(profile_checks.check_data, api, profile), claim),
        Look("queue", partial(profile_checks.check_queue, api, profile), "kubectl get localqueues"),
    ]


def _check_profile(api: Api, profile: ClusterProfile) -> Finding:
    """All that a launch looks at before it creates anything: secrets, claims, the priority class, GPU products."""
    try:
        notes = preflight(api, profile)
    except (ClusterError, ValueError) as error:
        return failed(str(error), "mend what it names; a launch would refuse for the same reason")
    if notes:
        return warning("; ".join(notes), "a launch is let through, and what could not be looked at may still fail")
    return ok("everything that the profile names is there")


def _version(api: Api) -> str:
    try:
        return f"Kubernetes {api.version()}"
    except ForbiddenError:
        return "Kubernetes of a version that is not told"
