"""The doctor of a cluster: healthy, and with each thing missing that a sweep needs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from orchestrator.commands.k8s.doctor import doctor
from orchestrator.k8s.values import amount_of
from tests.cluster_scenes import IMAGE, Item, rayjob
from tests.kubernetes_api import FakeCluster

PROFILE: Item = {
    "image": IMAGE,
    "workers": {"nodes": 2, "gpus": 8, "cpus": 96, "memory": "900Gi", "gpu_product": "H100"},
    "results": {"claim": "results"},
    "data": {"claim": "imagenet"},
    "queue": "team-a",
    "priority_class": "research",
    "wandb": {"secret": "wandb", "key": "token"},
}


def crd(*, fields: tuple[str, ...] = ("preRunningDeadlineSeconds", "authOptions"), version: str = "v1") -> Item:
    cluster_spec: Item = {"properties": {"authOptions": {}} if "authOptions" in fields else {}}
    spec = {"rayClusterSpec": cluster_spec} | ({fields[0]: {}} if fields else {})
    schema = {"openAPIV3Schema": {"properties": {"spec": {"properties": spec}}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "rayjobs.ray.io"},
        "spec": {"versions": [{"name": version, "served": True, "schema": schema}]},
    }


def thing(kind: str, name: str, version: str = "v1", **parts: Any) -> Item:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name} | parts.pop("metadata", {})} | parts


def claim(name: str, mode: str = "ReadWriteMany", phase: str = "Bound") -> Item:
    spec, status = {"accessModes": [mode]}, {"phase": phase, "capacity": {"storage": "1Ti"}}
    return thing("PersistentVolumeClaim", name, spec=spec, status=status)


def operator(ready: str = "True") -> Item:
    metadata = {"namespace": "kuberay-operator", "labels": {"app.kubernetes.io/name": "kuberay-operator"}}
    spec = {"containers": [{"name": "operator", "image": "quay.io/kuberay/operator:v1.7.0"}]}
    return thing(
        "Pod", "operator-1", metadata=metadata, spec=spec, status={"conditions": [{"type": "Ready", "status": ready}]}
    )


def quota(hard: str, used: str) -> Item:
    status = {
        "hard": {"requests.nvidia.com/gpu": hard, "count/jobs.batch": "5"},
        "used": {"requests.nvidia.com/gpu": used},
    }
    return thing("ResourceQuota", "gpus", status=status)


def scoped(operator: str, *classes: str) -> Item:
    selected = {"scopeName": "PriorityClass", "operator": operator, "values": list(classes)}
    return {"scopeSelector": {"matchExpressions": [selected]}}


def queue(active: str = "True") -> Item:
    status = {"conditions": [{"type": "Active", "status": active, "message": "stopped"}], "pendingWorkloads": 3}
    return thing("LocalQueue", "team-a", "kueue.x-k8s.io/v1beta1", status=status)


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    """A cluster in which all is well for the profile."""
    with FakeCluster() as cluster:
        cluster.put(crd())
        cluster.put(operator(), "kuberay-operator")
        for number in range(2):
            labels, allocatable = {"nvidia.com/gpu.product": "H100"}, {"nvidia.com/gpu": "8", "cpu": "128"}
            cluster.put(
                thing("Node", f"gpu-{number}", metadata={"labels": labels}, status={"allocatable": allocatable})
            )
        cluster.put(thing("Node", "cpu-0", status={"allocatable": {"cpu": "16"}}))
        cluster.put(claim("results"))
        cluster.put(claim("imagenet", "ReadOnlyMany"))
        cluster.put(quota("32", "8"))
        cluster.put(queue())
        cluster.put(thing("PriorityClass", "research", "scheduling.k8s.io/v1"))
        cluster.put(thing("Secret", "wandb", data={"token": "eA=="}))
        yield cluster


@pytest.fixture
def run(cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig")))
    monkeypatch.setenv("BO_SWEEP_CLUSTERS", str(tmp_path / "clusters.yaml"))
    write_profile(tmp_path, PROFILE)
    return lambda *arguments: CliRunner().invoke(doctor, list(arguments))


def write_profile(folder: Path, profile: Item) -> None:
    document = {"default": "test", "clusters": {"test": profile}}
    (folder / "clusters.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")


def checks(result: Result) -> dict[str, tuple[str, str, str]]:
    return {
        check["name"]: (check["status"], check["found"], check["remedy"])
        for check in json.loads(result.stdout)["checks"]
    }


def test_a_healthy_cluster_passes_every_check_and_nothing_is_changed(
    cluster: FakeCluster, run: Callable[..., Result]
) -> None:
    result = run("--json")
    assert result.exit_code == 0, result.stdout
    found = checks(result)
    assert {name: status for name, (status, _, _) in found.items() if status != "ok"} == {}
    assert "v1.34.2" in found["API server"][1]
    assert "operator:v1.7.0" in found["operator"][1]
    assert found["nodes"][1] == "2 with H100 x 8, 1 with no GPU"
    assert found["queue"][1] == "team-a: 0 admitted, 3 wait"
    assert cluster.changes == []
    table = run()
    assert table.exit_code == 0
    assert "API server" in table.stdout
    assert "bo-sweep launch digits-grid --on k8s" in table.stderr


def without_operator(cluster: FakeCluster, job: Item) -> None:
    """Its pods cannot be seen; only what became of a RayJob tells."""
    cluster.remove("Pod", "operator-1", "kuberay-operator")
    cluster.put(job)


def without_kuberay(cluster: FakeCluster) -> None:
    cluster.remove("CustomResourceDefinition", "rayjobs.ray.io")
    cluster.remove("Pod", "operator-1", "kuberay-operator")
    cluster.without("ray.io")


def with_another_kueue(cluster: FakeCluster) -> None:
    cluster.without("kueue.x-k8s.io")
    cluster.groups_of_other_versions.add("kueue.x-k8s.io")


def with_small_nodes(cluster: FakeCluster) -> None:
    for name in ("gpu-0", "gpu-1"):
        node = cluster.item("Node", name)
        assert node is not None
        node["status"]["allocatable"] |= {"cpu": "95900m", "memory": "1000Gi", "ephemeral-storage": "19Gi"}
        cluster.put(node)


def without_gpus(cluster: FakeCluster) -> None:
    for name in ("gpu-0", "gpu-1"):
        cluster.remove("Node", name)


BREAKAGES: dict[str, tuple[Callable[[FakeCluster], object], str, str, str, str]] = {
    "no KubeRay": (
        lambda c: c.remove("CustomResourceDefinition", "rayjobs.ray.io"),
        "KubeRay",
        "failed",
        "no definition",
        "helm",
    ),
    "no KubeRay, no operator": (without_kuberay, "operator", "skipped", "no RayJobs", "helm"),
    "old KubeRay": (lambda c: c.put(crd(fields=())), "KubeRay", "failed", "older than 1.7", "upgrades"),
    "alpha": (lambda c: c.put(crd(version="v1alpha1")), "KubeRay", "failed", "served as v1alpha1", "helm"),
    "CRD unread": (lambda c: c.forbid("get", "customresourcedefinitions"), "KubeRay", "ok", "not readable", ""),
    "operator down": (
        lambda c: c.put(operator("False"), "kuberay-operator"),
        "operator",
        "failed",
        "none ready",
        "kubectl describe",
    ),
    "neglect": (
        lambda c: without_operator(c, rayjob("")),
        *("operator", "failed", "has not looked at digits-grid", "namespaces it watches"),
    ),
    "operator unseen": (
        lambda c: without_operator(c, rayjob("Running")),
        *("operator", "ok", "has dealt with sweeps", ""),
    ),
    "may not launch": (
        lambda c: c.forbid("create", "rayjobs"),
        "rights",
        "failed",
        "create rayjobs.ray.io",
        "--only setup",
    ),
    "may not forward": (
        lambda c: c.forbid("get", "pods/portforward"),
        "rights",
        "failed",
        "get pods/portforward",
        "--only setup",
    ),
    "may not see roles": (lambda c: c.forbid("get", "roles"), "rights", "warning", "get roles", "--only setup"),
    "secret": (lambda c: c.remove("Secret", "wandb"), "profile", "failed", "no secret 'wandb'", "mend"),
    "secrets unread": (
        lambda c: c.forbid("get", "secrets"),
        "profile",
        "warning",
        "may not read secrets",
        "may still fail",
    ),
    "quota too small": (
        lambda c: c.put(quota("8", "0")),
        "quota",
        "failed",
        "16 asked, 0 of 8 used (gpus)",
        "workers.nodes",
    ),
    "quota used": (lambda c: c.put(quota("32", "24")), "quota", "warning", "24 of 32 used", "wait until"),
    "quota unread": (lambda c: c.forbid("list", "resourcequotas"), "quota", "skipped", "may not read quotas", "status"),
    "no GPU product": (
        lambda c: without_gpus(c),
        *("nodes", "failed", "gpu_product 'H100'", "workers.gpu_product"),
    ),
    "too few nodes": (lambda c: c.remove("Node", "gpu-0"), "nodes", "warning", "there are 1 now", "workers.nodes"),
    "small nodes": (
        with_small_nodes,
        *("nodes", "warning", "workers.cpus 96: no node that may take the pod has more than 95900m", "cpus, memory"),
    ),
    "head too big": (
        lambda c: c.put(thing("Node", "cpu-0", status={"allocatable": {"cpu": "1"}})),
        *("nodes", "warning", "head.cpus 2: no node that may take the pod has more than 1", "cpus, memory"),
    ),
    "nodes unread": (lambda c: c.forbid("list", "nodes"), "nodes", "skipped", "may not list nodes", "status"),
    "no results": (
        lambda c: c.remove("PersistentVolumeClaim", "results"),
        "results",
        "failed",
        "no claim 'results'",
        "kubectl get pvc",
    ),
    "one writer": (
        lambda c: c.put(claim("results", "ReadWriteOnce")),
        "results",
        "warning",
        "one node only",
        "ReadWriteMany",
    ),
    "unbound": (lambda c: c.put(claim("results", phase="Pending")), "results", "warning", "is Pending", "first pod"),
    "lost": (
        lambda c: c.put(claim("imagenet", phase="Lost")),
        "data sets",
        "failed",
        "lost its volume",
        "administrator",
    ),
    "queue stopped": (lambda c: c.put(queue("False")), "queue", "failed", "not active: stopped", "administrator"),
    "no queue": (lambda c: c.remove("LocalQueue", "team-a"), "queue", "failed", "no queue 'team-a'", "localqueues"),
    "rights untold": (
        lambda c: c.forbid("create", "selfsubjectaccessreviews"),
        "rights",
        "skipped",
        "does not tell you your rights",
        "can-i",
    ),
    "memory quota": (
        lambda c: c.put(thing("ResourceQuota", "memory", status={"hard": {"limits.memory": "1Ti"}, "used": {}})),
        *("quota", "failed", "limits.memory: 1809Gi asked, 0 of 1Ti used", "workers.memory"),
    ),
    "other Kueue": (
        lambda c: with_another_kueue(c),
        *("queue", "skipped", "another version", "not admitted"),
    ),
    "no Kueue": (lambda c: c.without("kueue.x-k8s.io"), "queue", "failed", "not installed", "leave `queue` out"),
}


@pytest.mark.parametrize(("broken", "name", "status", "found", "remedy"), BREAKAGES.values(), ids=BREAKAGES.keys())
def test_what_is_missing_is_found_with_a_remedy(
    broken: Callable[[FakeCluster], object],
    name: str,
    status: str,
    found: str,
    remedy: str,
    cluster: FakeCluster,
    run: Callable[..., Result],
) -> None:
    broken(cluster)
    result = run("--json")
    check = checks(result)[name]
    assert check[0] == status
    assert found in check[1]
    assert remedy in check[2]
    assert bool(check[2]) == (status != "ok")
    assert result.exit_code == (4 if "failed" in {each[0] for each in checks(result).values()} else 0)


@pytest.mark.parametrize(
    ("written", "amount"),
    [
        ("8", 8),
        ("500m", 0.5),
        ("900Gi", 900 * 2**30),
        ("7Ki", 7 * 2**10),
        ("12e6", 12e6),
        ("1E", 1e18),
        ("1Ei", 2**60),
        ("0", 0),
    ],
)
def test_quantities_are_read_as_servers_write_them(written: str, amount: float) -> None:
    assert amount_of(written) == amount


def test_what_is_no_quantity_is_told() -> None:
    for written in ("", "many", "1Kii", "1i"):
        with pytest.raises(ValueError, match="is no quantity"):
            amount_of(written)


@pytest.mark.parametrize(
    ("spec", "counts"),
    [
        ({}, True),
        ({"scopes": ["NotTerminating", "NotBestEffort"]}, True),
        ({"scopes": ["BestEffort"]}, False),
        ({"scopes": ["PriorityClass"]}, True),
        ({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "DoesNotExist"}]}}, False),
        (scoped("In", "research", "other"), True),
        (scoped("In", "other"), False),
        (scoped("NotIn", "research"), False),
    ],
)
def test_a_quota_counts_only_what_is_in_its_scope(
    spec: Item, counts: bool, cluster: FakeCluster, run: Callable[..., Result]
) -> None:
    cluster.put(quota("8", "0") | {"spec": spec})
    assert checks(run("--json"))["quota"][0] == ("failed" if counts else "ok")


def test_a_folder_of_nodes_is_against_strict_pod_security(
    cluster: FakeCluster, run: Callable[..., Result], tmp_path: Path
) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.put(thing("Namespace", "default", metadata={"labels": labels}))
    assert checks(run("--json"))["Pod Security"][:2] == ("ok", "level restricted")
    write_profile(tmp_path, PROFILE | {"data": {"host_path": "/data"}})
    assert checks(run("--json"))["Pod Security"][:2] == ("failed", "level restricted forbids data.host_path")


def test_without_a_profile_the_cluster_itself_is_looked_at(
    cluster: FakeCluster, run: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "clusters.yaml").unlink()
    result = run("--json")
    assert result.exit_code == 0
    assert list(checks(result)) == ["API server", "KubeRay", "operator", "rights", "profile"]
    assert checks(result)["profile"][0] == "skipped"


def test_a_cluster_that_is_down_is_one_failed_check_and_a_wrong_context_a_mistake(
    cluster: FakeCluster, run: Callable[..., Result]
) -> None:
    result = run("--context", "other")
    assert result.exit_code == 2
    assert "context 'other'" in result.stderr
    cluster.stop()
    result = run("--json")
    assert result.exit_code == 4
    assert list(checks(result)) == ["API server"]
    assert cluster.address in checks(result)["API server"][1]
