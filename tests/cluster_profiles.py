"""Profiles of clusters of many kinds, and launches on them, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestrator.entry_point import LaunchRequest
from orchestrator.k8s.profile import ClusterProfile
from orchestrator.k8s.rendering.manifests import Manifests, render
from search_spaces.catalog import load_space

IMAGE = f"registry.example.org/bo-sweep@sha256:{'0123456789abcdef' * 4}"
CLAIM: dict[str, Any] = {"claim": "bo-sweep-results"}
GPU_NODES: dict[str, Any] = {"nodes": 2, "gpus": 8, "cpus": 96, "memory": "900Gi", "shared_memory": "64Gi"}
DATA: dict[str, Any] = {"claim": "datasets", "path": "betons"}


def profile(**changes: Any) -> ClusterProfile:
    """A small cluster without GPUs, with these changes."""
    return ClusterProfile.model_validate({"namespace": "sweeps", "image": IMAGE, "results": CLAIM, **changes})


def gpu_profile(**changes: Any) -> ClusterProfile:
    """Two nodes with eight GPUs, and a claim with data sets, with these changes."""
    return profile(**{"workers": GPU_NODES, "data": DATA, **changes})


PROFILES: dict[str, ClusterProfile] = {
    "gpus": gpu_profile(),
    "many CPUs": profile(data=DATA, workers={"nodes": 3, "cpus": 16, "memory": "2Ti"}),
    "new claim": gpu_profile(results={"claim": "results", "size": "500Gi", "storage_class": "shared"}),
    "own s3": gpu_profile(
        results={"url": "s3://bucket/sweeps", "endpoint": "http://minio.storage:9000", "secret": "s3-keys"}
    ),
    "gs by identity": gpu_profile(
        results={"url": "gs://bucket/sweeps"},
        service_account="trainer",
        service_account_annotations={"iam.gke.io/gcp-service-account": "trainer@project.iam.gserviceaccount.com"},
    ),
    "spot": gpu_profile(
        workers=GPU_NODES | {"tolerations": [{"key": "team", "value": "vision"}], "node_selector": {"zone": "a"}},
        spot={
            "node_selector": {"karpenter.sh/capacity-type": "spot"},
            "tolerations": [{"key": "spot", "operator": "Exists"}],
        },
    ),
    "queue": gpu_profile(queue="sweeps", priority_class="research", labels={"cost-center": "42"}),
    "host path": gpu_profile(data={"host_path": "/mnt/betons"}),
    "head on GPU nodes": gpu_profile(head={"on_gpu_nodes": True, "node_selector": {"pool": "a"}}),
    "everything": gpu_profile(
        image_pull_secrets=["registry"],
        wandb={"secret": "wandb", "key": "api-key"},
        env={"NCCL_DEBUG": "WARN", "MALLOC_TOP_PAD_": "0"},
        submitters={"users": ["ada@example.org"], "groups": ["researchers"]},
        pod_monitor=True,
        workers=GPU_NODES | {"gpu_product": "NVIDIA-H100-80GB-HBM3"},
        head={"tolerations": [{"key": "system", "operator": "Exists", "effect": "NoSchedule"}]},
    ),
}


def launch(space: str = "digits-grid", *overrides: str, **asked: Any) -> LaunchRequest:
    """A launch of a built-in space under its own name."""
    parsed = load_space(space, overrides)
    return LaunchRequest(**{"space": parsed, "sweep": parsed.name, **asked})


def rendered(space: str = "digits-grid", *overrides: str, **changes: Any) -> Manifests:
    """The manifests of a launch on the small cluster with these changes."""
    return render(launch(space, *overrides), profile(**changes))


def by_kind(manifests: Manifests) -> dict[str, dict[str, Any]]:
    return {manifest["kind"]: manifest for manifest in manifests.all}


def rayjob_of(manifests: Manifests) -> dict[str, Any]:
    return by_kind(manifests)["RayJob"]


def pods_of(manifests: Manifests) -> dict[str, dict[str, Any]]:
    """The pod specs by component: submitter, head, worker."""
    spec = rayjob_of(manifests)["spec"]
    cluster = spec["rayClusterSpec"]
    templates = [spec["submitterPodTemplate"], cluster["headGroupSpec"]["template"]]
    templates += [group["template"] for group in cluster["workerGroupSpecs"]]
    return {one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"] for one in templates}


ON_CPUS = ("resources.gpus_per_worker=0", "resources.cpus_per_worker=1")


def container_of(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod["containers"]
    assert isinstance(container, dict)
    return container


def environment_of(pod: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container_of(pod)["env"]}


def texts_in(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        content = [*content, *content.values()]
    if isinstance(content, list):
        for item in content:
            yield from texts_in(item)
    elif isinstance(content, str):
        yield content
