"""The resources of a cluster that a sweep has to do with, and where the API has them."""

from __future__ import annotations

from dataclasses import dataclass

KUBERAY = "ray.io"
KUEUE = "kueue.x-k8s.io"


@dataclass(frozen=True)
class ResourceType:
    """A kind as the API serves it: `plural` is its name in paths and in rules of access, `group` is "" for the core.

    Attributes:
        newer: a version that says the same to us, read where `version` is not served.
    """

    kind: str
    plural: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True
    newer: str = ""

    def path(self, namespace: str, name: str | None = None) -> str:
        """Path of one object, or of all in the namespace."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        folder = f"{root}/namespaces/{namespace}/{self.plural}" if self.namespaced else f"{root}/{self.plural}"
        return f"{folder}/{name}" if name else folder

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def full_name(self) -> str:
        """As kubectl and the server's messages write it: rayjobs.ray.io."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


_TYPES = (
    ResourceType("RayJob", "rayjobs", KUBERAY),
    ResourceType("RayCluster", "rayclusters", KUBERAY),
    ResourceType("Pod", "pods"),
    ResourceType("ConfigMap", "configmaps"),
    ResourceType("Event", "events"),
    ResourceType("PersistentVolumeClaim", "persistentvolumeclaims"),
    ResourceType("ResourceQuota", "resourcequotas"),
    ResourceType("Secret", "secrets"),
    ResourceType("Service", "services"),
    ResourceType("ServiceAccount", "serviceaccounts"),
    ResourceType("Job", "jobs", "batch"),
    ResourceType("Deployment", "deployments", "apps"),
    ResourceType("Role", "roles", "rbac.authorization.k8s.io"),
    ResourceType("RoleBinding", "rolebindings", "rbac.authorization.k8s.io"),
    ResourceType("NetworkPolicy", "networkpolicies", "networking.k8s.io"),
    ResourceType("PodMonitor", "podmonitors", "monitoring.coreos.com"),
    ResourceType("LocalQueue", "localqueues", KUEUE, "v1beta1", newer="v1beta2"),
    ResourceType("Workload", "workloads", KUEUE, "v1beta1", newer="v1beta2"),
    ResourceType("Namespace", "namespaces", namespaced=False),
    ResourceType("Node", "nodes", namespaced=False),
    ResourceType("PersistentVolume", "persistentvolumes", namespaced=False),
    ResourceType("StorageClass", "storageclasses", "storage.k8s.io", namespaced=False),
    ResourceType("PriorityClass", "priorityclasses", "scheduling.k8s.io", namespaced=False),
    ResourceType("CustomResourceDefinition", "customresourcedefinitions", "apiextensions.k8s.io", namespaced=False),
)
TYPES = {each.kind: each for each in _TYPES}


def resource_type(kind: str) -> ResourceType:
    """Where the API has a kind. Unknown kinds are a mistake in our code."""
    assert kind in TYPES, f"{kind} is not among {', '.join(TYPES)}"
    return TYPES[kind]
