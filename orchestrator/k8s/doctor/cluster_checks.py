"""Checks of a cluster itself: KubeRay, its operator, the rights of the user, the level of Pod Security."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from orchestrator.checks.finding import Finding, failed, ok, skipped, warning
from orchestrator.k8s.client.api import Api, ForbiddenError, NotFoundError
from orchestrator.k8s.client.errors import KUBERAY_REMEDY, SETUP_REMEDY
from orchestrator.k8s.names import of_product
from orchestrator.k8s.profile import ClusterProfile, Results
from orchestrator.k8s.rendering.setup import role
from orchestrator.k8s.submitting.preflight import POD_SECURITY
from orchestrator.k8s.watching.observed import deployment_of, time_of

RAYJOB_CRD = "rayjobs.ray.io"
NEW_FIELDS = {"preRunningDeadlineSeconds": ("spec",), "authOptions": ("spec", "rayClusterSpec")}
"""Fields that we set and that KubeRay before 1.7 does not have, and where they are."""
OPERATOR_LABEL = "app.kubernetes.io/name=kuberay-operator"
OPERATOR_NAMESPACES = ("kuberay-operator", "kuberay-system", "kuberay", "ray-system", "default")
ESSENTIAL_GROUPS = ("ray.io", "batch")
ESSENTIAL = ("configmaps", "pods", "events")
"""Without these nothing can be launched or watched; without the others of the role some command can do less."""


def check_kuberay(api: Api) -> Finding:
    """RayJobs are served, in the version and with the fields that we use."""
    try:
        definition = api.get("CustomResourceDefinition", RAYJOB_CRD)
    except ForbiddenError:
        api.list("RayJob", labels=of_product())  # raises with the remedy where they are not served
        return ok("rayjobs.ray.io is served (its version is not readable for you)")
    if definition is None:
        return failed("there is no definition of RayJobs", KUBERAY_REMEDY)
    versions = {version["name"]: version for version in (definition.get("spec") or {}).get("versions") or []}
    if not (versions.get("v1") or {}).get("served"):
        return failed(f"RayJobs are served as {', '.join(versions) or 'nothing'}, not as v1", KUBERAY_REMEDY)
    schema = (versions["v1"].get("schema") or {}).get("openAPIV3Schema") or {}
    lacking = [name for name, path in NEW_FIELDS.items() if name not in _properties(schema, path)]
    if schema and lacking:
        remedy = "an administrator upgrades KubeRay to 1.7, the definitions first: helm does not upgrade them"
        return failed(f"its RayJobs have no {' and no '.join(lacking)}: KubeRay is older than 1.7", remedy)
    return ok("rayjobs.ray.io/v1 is served, with all fields that are used")


def check_operator(api: Api) -> Finding:
    """The operator runs, as far as can be seen: by its pods, else by what it has done to RayJobs here."""
    unread = []
    for namespace in dict.fromkeys((api.namespace, *OPERATOR_NAMESPACES)):
        try:
            pods = Api(api.client, namespace).list("Pod", labels=OPERATOR_LABEL)
        except ForbiddenError:
            unread.append(namespace)
            continue
        ready = [pod for pod in pods if _condition(pod, "Ready") == "True"]
        if ready:
            images = ", ".join(sorted({image for pod in ready for image in _images(pod)}))
            return ok(f"runs in the namespace {namespace!r} ({images})")
        if pods:
            remedy = f"kubectl describe pods -n {namespace} -l {OPERATOR_LABEL}"
            return failed(f"{len(pods)} pods of the operator in {namespace!r}, none ready", remedy)
    try:
        jobs = api.list("RayJob", labels=of_product())
    except NotFoundError:
        return skipped("there are no RayJobs that it could have dealt with", KUBERAY_REMEDY)
    now = datetime.now(UTC)
    neglected = [
        job["metadata"]["name"]
        for job in jobs
        if deployment_of(job) == "" and _age(job, now) > 60 and not (job.get("spec") or {}).get("suspend")
    ]
    if neglected:
        remedy = "an administrator looks whether the operator runs, and which namespaces it watches"
        return failed(f"it has not looked at {', '.join(neglected)}", remedy)
    if any(map(deployment_of, jobs)):
        return ok("its pods are not visible to you, but it has dealt with sweeps in this namespace")
    where = f" (you may not look into {', '.join(unread)})" if unread else ""
    return skipped(f"no pod of it is visible{where}", "bo-sweep k8s status tells when it does not look at a launch")


def check_rights(api: Api, profile: ClusterProfile | None) -> Finding:
    """The user may do all that the rendered role allows."""
    try:
        return _rights(api, profile)
    except (ForbiddenError, NotFoundError):
        return skipped("this cluster does not tell you your rights", "kubectl auth can-i --list, or they show in use")


def _rights(api: Api, profile: ClusterProfile | None) -> Finding:
    placeholder = ClusterProfile(image="none", unpinned_image=True, results=Results(claim="none"))
    denied: dict[bool, list[str]] = {True: [], False: []}
    asked = 0
    for rule in role(profile or placeholder)["rules"]:
        group = rule["apiGroups"][0]
        for full in rule["resources"]:
            resource, _, subresource = full.partition("/")
            essential = group in ESSENTIAL_GROUPS or resource in ESSENTIAL
            for verb in rule["verbs"]:
                asked += 1
                if not api.allowed(verb, resource, group=group, subresource=subresource):
                    denied[essential].append(f"{verb} {full}{f'.{group}' if group else ''}")
    if denied[True]:
        return failed(f"you may not {', '.join(denied[True] + denied[False])}", SETUP_REMEDY)
    if denied[False]:
        return warning(f"you may not {', '.join(denied[False])}: some commands can do less", SETUP_REMEDY)
    return ok(f"all {asked} that launching, watching and fetching need")


def check_pod_security(api: Api, profile: ClusterProfile) -> Finding:
    """The namespace's level allows our pods, which fit the strictest one unless they mount a folder of the node."""
    try:
        namespace = api.get("Namespace", api.namespace)
    except ForbiddenError:
        return skipped("you may not read the namespace", "the cluster tells at launch if a pod is against its level")
    level = ((namespace or {}).get("metadata", {}).get("labels") or {}).get(POD_SECURITY)
    if level in ("baseline", "restricted") and profile.data and profile.data.host_path:
        return failed(f"level {level} forbids data.host_path", "put the data sets into a claim (data.claim)")
    return ok(f"level {level}" if level else "no level is enforced")


def _properties(schema: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for name in path:
        schema = (schema.get("properties") or {}).get(name) or {}
    return schema.get("properties") or {}


def _condition(thing: dict[str, Any], name: str) -> str:
    conditions = (thing.get("status") or {}).get("conditions") or []
    return next((str(condition.get("status")) for condition in conditions if condition.get("type") == name), "")


def _images(pod: dict[str, Any]) -> list[str]:
    return [container["image"] for container in pod["spec"]["containers"]]


def _age(thing: dict[str, Any], now: datetime) -> float:
    born = time_of(thing["metadata"].get("creationTimestamp"))
    return (now - born).total_seconds() if born else 0.0
