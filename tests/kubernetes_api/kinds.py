"""What the server serves: groups, kinds, and which fields can be selected by."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Kind:
    """A resource of the API."""

    name: str
    plural: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True
    custom: bool = False
    selectable: frozenset[str] = field(default=frozenset())
    """Fields that selectors may use beside metadata.name and metadata.namespace."""

    @property
    def full_name(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


_PODS = frozenset({"spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "status.phase"})
_EVENTS = frozenset(
    {"involvedObject.kind", "involvedObject.name", "involvedObject.namespace", "involvedObject.uid", "reason", "type"}
)

KINDS = (
    Kind("ConfigMap", "configmaps"),
    Kind("Event", "events", selectable=_EVENTS),
    Kind("Namespace", "namespaces", namespaced=False),
    Kind("Node", "nodes", namespaced=False),
    Kind("PersistentVolume", "persistentvolumes", namespaced=False),
    Kind("PersistentVolumeClaim", "persistentvolumeclaims"),
    Kind("Pod", "pods", selectable=_PODS),
    Kind("ResourceQuota", "resourcequotas"),
    Kind("Secret", "secrets", selectable=frozenset({"type"})),
    Kind("Service", "services"),
    Kind("ServiceAccount", "serviceaccounts"),
    Kind("Deployment", "deployments", "apps"),
    Kind("Job", "jobs", "batch", selectable=frozenset({"status.successful"})),
    Kind("Role", "roles", "rbac.authorization.k8s.io"),
    Kind("RoleBinding", "rolebindings", "rbac.authorization.k8s.io"),
    Kind("NetworkPolicy", "networkpolicies", "networking.k8s.io"),
    Kind("PriorityClass", "priorityclasses", "scheduling.k8s.io", namespaced=False),
    Kind("StorageClass", "storageclasses", "storage.k8s.io", namespaced=False),
    Kind("CustomResourceDefinition", "customresourcedefinitions", "apiextensions.k8s.io", namespaced=False),
    Kind("RayJob", "rayjobs", "ray.io", custom=True),
    Kind("RayCluster", "rayclusters", "ray.io", custom=True),
    Kind("PodMonitor", "podmonitors", "monitoring.coreos.com", custom=True),
    Kind("LocalQueue", "localqueues", "kueue.x-k8s.io", "v1beta1", custom=True),
    Kind("Workload", "workloads", "kueue.x-k8s.io", "v1beta1", custom=True),
    Kind("LocalQueue", "localqueues", "kueue.x-k8s.io", "v1beta2", custom=True),
    Kind("Workload", "workloads", "kueue.x-k8s.io", "v1beta2", custom=True),
)
BY_NAME = {kind.name: kind for kind in KINDS}
BY_PATH = {(kind.group, kind.version, kind.plural): kind for kind in KINDS}
REVIEW = Kind("SelfSubjectAccessReview", "selfsubjectaccessreviews", "authorization.k8s.io", namespaced=False)
VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


def discovery(kinds: list[Kind], group: str, version: str) -> dict[str, object]:
    """The APIResourceList of one group and version."""
    served = [kind for kind in kinds if (kind.group, kind.version) == (group, version)]
    if (group, version) == (REVIEW.group, REVIEW.version):
        served = [REVIEW]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": [
            {
                "name": kind.plural,
                "singularName": kind.name.lower(),
                "namespaced": kind.namespaced,
                "kind": kind.name,
                "verbs": ["create"] if kind is REVIEW else VERBS,
            }
            for kind in served
        ],
    }


def openapi(kinds: list[Kind], root: str) -> dict[str, object]:
    """As much of the OpenAPI document below `root` ("api/v1", "apis/ray.io/v1") as kubectl needs to know that the
    server validates fields itself."""
    paths = {}
    for kind in kinds:
        if root == (f"apis/{kind.api_version}" if kind.group else f"api/{kind.version}"):
            where = "/namespaces/{namespace}" if kind.namespaced else ""
            versioned = {"group": kind.group, "version": kind.version, "kind": kind.name}
            operation = {
                "parameters": [{"name": "fieldValidation", "in": "query"}],
                "x-kubernetes-group-version-kind": versioned,
            }
            paths[f"/{root}{where}/{kind.plural}/{{name}}"] = {"patch": operation}
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1"}, "paths": paths}


def groups(kinds: list[Kind]) -> dict[str, object]:
    """The APIGroupList of all groups but the core."""
    versions = {kind.group: kind.version for kind in kinds if kind.group} | {"authorization.k8s.io": "v1"}
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [
            {"name": group, "versions": [named], "preferredVersion": named}
            for group, version in sorted(versions.items())
            for named in ({"groupVersion": f"{group}/{version}", "version": version},)
        ],
    }
