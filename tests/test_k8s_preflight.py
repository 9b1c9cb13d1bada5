"""What must be there before a sweep is submitted: what is missing is told, and nothing is created."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.commands.options import INFRASTRUCTURE, USAGE, Failure, user_errors
from orchestrator.k8s.client.api import ClusterError
from tests.kubernetes_api import FakeCluster
from tests.submitting import Launcher, submitted


@pytest.fixture
def launch(cluster: FakeCluster, tmp_path: Path) -> Launcher:
    return Launcher(cluster.kubeconfig(tmp_path / "kubeconfig"))


# The setup, where the user is no administrator

SETUP = ("serviceaccounts", "networkpolicies", "persistentvolumeclaims", "roles", "rolebindings")


def forbid_setup(cluster: FakeCluster) -> None:
    for resource in SETUP:
        for verb in ("create", "patch"):
            cluster.forbid(verb, resource)


def test_a_setup_by_an_administrator_is_left_as_it_is(cluster: FakeCluster, launch: Launcher) -> None:
    profile = {"submitters": {"users": ["alice"]}}
    for manifest in launch(profile, dry_run="client").manifests.setup:
        cluster.put({**manifest, "metadata": {**manifest["metadata"], "labels": {"set-up": "by-hand"}}})
    forbid_setup(cluster)
    made = submitted(launch(profile))
    assert (made.state, made.notes) == ("created", ())
    assert cluster.item("ServiceAccount", "bo-sweep")["metadata"]["labels"] == {"set-up": "by-hand"}  # type: ignore[index]


def test_a_missing_setup_that_the_user_may_not_make_is_refused_before_anything_is_created(
    cluster: FakeCluster, launch: Launcher
) -> None:
    forbid_setup(cluster)
    with pytest.raises(ClusterError) as told:
        launch({"submitters": {"users": ["alice"]}})
    for part in (
        "3 problems",
        "ServiceAccount bo-sweep is missing",
        "NetworkPolicy bo-sweep is missing",
        "PersistentVolumeClaim results is missing",
        "bo-sweep k8s render SPACE --only setup | kubectl apply -f -",
    ):
        assert part in str(told.value)
    assert cluster.changes == []


def test_a_setup_that_may_not_even_be_seen_is_no_obstacle(cluster: FakeCluster, launch: Launcher) -> None:
    forbid_setup(cluster)
    for resource in SETUP:
        cluster.forbid("get", resource)
    made = submitted(launch())
    assert made.state == "created"
    assert any("no right to see whether it is there" in note for note in made.notes)


def test_a_claim_that_is_there_is_never_changed(cluster: FakeCluster, launch: Launcher) -> None:
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "results"}}
    cluster.put({**claim, "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Ti"}}}})
    before = cluster.item("PersistentVolumeClaim", "results")
    assert submitted(launch()).notes == ()
    assert cluster.item("PersistentVolumeClaim", "results") == before


def test_another_profile_of_the_namespace_takes_nothing_from_the_setup_that_is_there(
    cluster: FakeCluster, launch: Launcher
) -> None:
    launch({"submitters": {"users": ["alice"]}, "pod_monitor": True})
    made = submitted(launch({"submitters": {"users": ["bob"]}}, sweep="digits-again"))
    (note,) = made.notes
    assert "set up otherwise than this profile says, and stays so: RoleBinding bo-sweep-user (subjects). " in note
    assert "bo-sweep k8s render SPACE --only setup | kubectl apply -f -" in note
    subjects = cluster.item("RoleBinding", "bo-sweep-user")["subjects"]  # type: ignore[index]
    assert [each["name"] for each in subjects] == ["alice"]
    assert len(cluster.item("NetworkPolicy", "bo-sweep")["spec"]["ingress"]) == 3  # type: ignore[index]


def test_a_setup_for_several_profiles_is_right_for_each(cluster: FakeCluster, launch: Launcher) -> None:
    users = {"submitters": {"users": ["alice", "bob"]}, "pod_monitor": True}
    launch({**users, "service_account_annotations": {"of": "both"}})
    assert submitted(launch({"submitters": {"users": ["bob"]}}, sweep="digits-again")).notes == ()
    identity = {"service_account_annotations": {"eks.amazonaws.com/role-arn": "arn"}}
    (note,) = submitted(launch(identity, sweep="digits-once-more", dry_run="server")).notes
    assert "ServiceAccount bo-sweep (metadata.annotations.eks.amazonaws.com/role-arn)" in note


def test_an_account_of_others_keeps_what_they_need(cluster: FakeCluster, launch: Launcher) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "shared"}}
    cluster.put(account | {"automountServiceAccountToken": True})
    assert submitted(launch({"service_account": "shared"})).notes == ()
    assert cluster.item("ServiceAccount", "shared")["automountServiceAccountToken"] is True  # type: ignore[index]


# Bad input: one message, the remedy, the exit code, nothing created


def secret(name: str, *keys: str, kind: str = "Opaque") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "type": kind,
        "data": dict.fromkeys(keys, "aGlkZGVu"),
    }


def gpu_node(name: str, product: str, gpus: int = 8) -> dict[str, Any]:
    labels = {"nvidia.com/gpu.product": product}
    allocatable = {"nvidia.com/gpu": str(gpus)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {"allocatable": allocatable},
    }


GPUS: dict[str, Any] = {"nodes": 2, "cpus": 16, "gpus": 8, "gpu_product": "NVIDIA-H100-80GB-HBM3"}
S3 = {"url": "s3://sweeps/here", "secret": "s3-keys"}


@pytest.mark.parametrize(
    ("profile", "prepare", "exit_code", "parts"),
    [
        ({}, lambda c: c.without("ray.io"), INFRASTRUCTURE, ["KubeRay is not installed", "helm install"]),
        (
            {},
            lambda c: [c.forbid("create", "rayjobs"), c.forbid("patch", "configmaps")],
            INFRASTRUCTURE,
            ["you may not create rayjobs.ray.io, patch configmaps", "--only setup"],
        ),
        ({}, lambda c: c.forbid("*", "rayjobs"), INFRASTRUCTURE, ["get rayjobs.ray.io, list rayjobs.ray.io, create"]),
        (
            {"namespace": "team"},
            lambda c: None,
            INFRASTRUCTURE,
            ["no namespace 'team'", "kubectl create namespace team"],
        ),
        (
            {"workers": GPUS},
            lambda c: c.put(gpu_node("a", "NVIDIA-A100-SXM4-80GB")),
            USAGE,
            ["'NVIDIA-H100-80GB-HBM3'", "there are NVIDIA-A100-SXM4-80GB", "Did you mean", "nodes_on_demand"],
        ),
        ({"workers": GPUS}, lambda c: None, USAGE, ["no node has the label nvidia.com/gpu.product", "node_selector"]),
        (
            {"results": S3},
            lambda c: None,
            INFRASTRUCTURE,
            ["no secret 's3-keys' (results.secret)", "kubectl create secret"],
        ),
        (
            {"results": S3},
            lambda c: c.put(secret("s3-keys", "AWS_ACCESS_KEY_ID", "other")),
            INFRASTRUCTURE,
            ["lacks AWS_SECRET_ACCESS_KEY; it has AWS_ACCESS_KEY_ID, other"],
        ),
        (
            {"wandb": {"secret": "wandb", "key": "api-key"}},
            lambda c: c.put(secret("wandb", "key")),
            INFRASTRUCTURE,
            ["'wandb' (wandb.secret) lacks api-key; it has key"],
        ),
        (
            {"image_pull_secrets": ["pull"]},
            lambda c: c.put(secret("pull", "password")),
            INFRASTRUCTURE,
            ["'pull' (image_pull_secrets) is of type Opaque", "docker-registry"],
        ),
        (
            {"results": {"claim": "results"}},
            lambda c: None,
            INFRASTRUCTURE,
            ["no claim 'results' (results.claim)", "results.size"],
        ),
        ({"data": {"claim": "betons"}}, lambda c: None, INFRASTRUCTURE, ["no claim 'betons' (data.claim)"]),
        ({"queue": "team"}, lambda c: c.without("kueue.x-k8s.io"), INFRASTRUCTURE, ["Kueue is not installed"]),
        (
            {"queue": "team"},
            lambda c: c.put(
                {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "LocalQueue", "metadata": {"name": "research"}}
            ),
            INFRASTRUCTURE,
            ["no queue 'team'", "there are: research"],
        ),
        ({"priority_class": "high"}, lambda c: None, INFRASTRUCTURE, ["no priority class 'high'; there are: none"]),
        ({"pod_monitor": True}, lambda c: c.without("monitoring.coreos.com"), INFRASTRUCTURE, ["pod_monitor: false"]),
    ],
)
def test_what_the_cluster_lacks_is_told_with_a_remedy_and_nothing_is_created(
    profile: dict[str, Any],
    prepare: Callable[[FakeCluster], object],
    exit_code: int,
    parts: list[str],
    cluster: FakeCluster,
    launch: Launcher,
) -> None:
    prepare(cluster)
    with pytest.raises(Failure) as told, user_errors():
        launch(profile)
    assert told.value.exit_code == exit_code
    for part in parts:
        assert part in str(told.value)
    assert "aGlkZGVu" not in str(told.value)
    assert cluster.changes == []


def test_pod_security_that_forbids_host_paths_is_told(cluster: FakeCluster, launch: Launcher) -> None:
    profile = {"data": {"host_path": "/data"}}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}
    cluster.put(
        {**namespace, "metadata": {"name": "default", "labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}
    )
    with pytest.raises(ClusterError, match=r"enforces Pod Security 'baseline', which forbids data.host_path"):
        launch(profile)
    cluster.forbid("get", "namespaces")
    assert any("data.host_path was not checked" in note for note in submitted(launch(profile, dry_run="server")).notes)
    assert cluster.changes == []


def test_queues_of_a_kueue_that_speaks_another_version_are_a_note(cluster: FakeCluster, launch: Launcher) -> None:
    cluster.without("kueue.x-k8s.io")
    cluster.groups_of_other_versions.add("kueue.x-k8s.io")
    notes = submitted(launch({"queue": "team"}, dry_run="server")).notes
    assert any("whether queue 'team' is there was not checked" in note for note in notes)


def test_a_missing_namespace_that_may_not_be_looked_for_is_told_by_the_dry_run(
    cluster: FakeCluster, launch: Launcher
) -> None:
    cluster.forbid("get", "namespaces")
    with pytest.raises(ClusterError, match="there is no namespace 'team'; create it") as told:
        launch({"namespace": "team"})
    assert "\n" not in str(told.value)
    assert cluster.changes == []


def test_all_that_is_wrong_is_told_at_once(cluster: FakeCluster, launch: Launcher) -> None:
    cluster.without("ray.io")
    cluster.forbid("create", "configmaps")
    wrong = {
        "workers": GPUS,
        "results": S3,
        "data": {"claim": "betons"},
        "wandb": {"secret": "wandb", "key": "key"},
        "priority_class": "high",
        "queue": "team",
    }
    with pytest.raises(ClusterError, match="8 problems") as told:
        launch(wrong)
    assert str(told.value).count("\n  - ") == 8
    assert cluster.changes == []


def test_what_the_user_may_not_see_is_a_note(cluster: FakeCluster, launch: Launcher) -> None:
    for resource in ("secrets", "nodes", "priorityclasses", "localqueues", "namespaces"):
        cluster.forbid("*", resource)
    made = launch({"workers": GPUS, "results": S3, "priority_class": "high", "queue": "team"})
    assert submitted(made).state == "created"
    notes = "\n".join(made.notes)
    for part in ("may not read secrets", "may not list nodes", "may not read priority classes", "may not read queues"):
        assert part in notes


@pytest.mark.parametrize(
    "take_away",
    [
        lambda c: c.forbid("create", "selfsubjectaccessreviews"),
        lambda c: c.without("authorization.k8s.io"),
    ],
)
def test_a_cluster_that_does_not_tell_rights_is_no_obstacle(
    take_away: Callable[[FakeCluster], None], cluster: FakeCluster, launch: Launcher
) -> None:
    take_away(cluster)
    made = submitted(launch())
    assert made.state == "created"
    assert any("does not tell you your rights" in note for note in made.notes)


def test_what_may_be_read_but_not_listed_is_missed_all_the_same(cluster: FakeCluster, launch: Launcher) -> None:
    cluster.forbid("list", "priorityclasses")
    with pytest.raises(ClusterError, match=r"there is no priority class 'high'$"):
        launch({"priority_class": "high"})


def test_nodes_that_are_few_or_come_on_demand_are_a_note(cluster: FakeCluster, launch: Launcher) -> None:
    cluster.put(gpu_node("a", GPUS["gpu_product"]))
    cluster.put(gpu_node("b", GPUS["gpu_product"], gpus=4))
    cluster.put({**gpu_node("cordoned", GPUS["gpu_product"]), "spec": {"unschedulable": True}})
    notes = launch({"workers": GPUS}, dry_run="server").notes
    assert any("2 nodes with 8 GPUs" in note and "there are 1 now" in note for note in notes)
    on_demand = {"workers": {**GPUS, "gpu_product": "NVIDIA-L40S", "nodes_on_demand": True}}
    assert any("it may come on demand" in note for note in launch(on_demand, dry_run="server").notes)


def test_a_claim_for_one_node_alone_is_a_note(cluster: FakeCluster, launch: Launcher) -> None:
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "results"}}
    cluster.put({**claim, "spec": {"accessModes": ["ReadWriteOnce"]}})
    assert "not ReadWriteMany" in launch(dry_run="server").notes[0]
    cluster.change("PersistentVolumeClaim", "results", status={"phase": "Lost"})
    with pytest.raises(ClusterError, match="has lost its volume"):
        launch(dry_run="server")
