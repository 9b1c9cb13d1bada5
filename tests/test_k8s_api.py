"""The client of a cluster: what it repeats, reads and writes; against a server that speaks the API."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.k8s.client.api import (
    Api,
    ClusterError,
    ConflictError,
    Connection,
    ForbiddenError,
    NotFoundError,
    RejectedError,
    connect,
)
from orchestrator.k8s.client.retrying import Retries
from tests.kubernetes_api import FakeCluster
from tests.kubernetes_api.certificates import make_certificate
from tests.kubernetes_api.validation import CRD_FOLDER
from tests.waiting import PATIENCE_SECONDS

CONFIG = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "grid", "labels": {"a": "b"}},
    "data": {"k": "v"},
}
RAYJOB = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "grid"}, "spec": {"entrypoint": "true"}}


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def api(cluster: FakeCluster, tmp_path: Path, slept: list[float]) -> Api:
    connected = connect(Connection(cluster.kubeconfig(tmp_path / "kubeconfig")), Retries(sleep=slept.append))
    cluster.requests.clear()
    return connected


def count(cluster: FakeCluster, method: str) -> int:
    return sum(request.method == method for request in cluster.requests)


# What it repeats

ACTIONS: dict[str, Callable[[Api], Any]] = {
    "GET": lambda api: api.list("ConfigMap"),
    "PATCH": lambda api: api.apply(CONFIG),
    "DELETE": lambda api: api.delete("ConfigMap", "old"),
}


@pytest.mark.parametrize("method", sorted(ACTIONS))
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "drop"},
        {"kind": "drop-after"},
        {"kind": "error", "code": 429, "retry_after": 2},
        *({"kind": "error", "code": code} for code in (500, 502, 503, 504)),
    ],
    ids=str,
)
def test_trouble_that_passes_is_not_noticed(
    fault: dict[str, Any], method: str, cluster: FakeCluster, api: Api, slept: list[float]
) -> None:
    cluster.put({**CONFIG, "metadata": {"name": "old"}})
    cluster.fault(**fault, method=method, times=2)
    assert ACTIONS[method](api)
    assert count(cluster, method) == 3
    assert len(slept) == 2
    assert min(slept) >= fault.get("retry_after", 0)
    assert ("grid" in cluster.names("ConfigMap")) == (method == "PATCH")
    assert ("old" in cluster.names("ConfigMap")) == (method != "DELETE")


def test_trouble_that_stays_ends_in_one_message_after_seconds(
    cluster: FakeCluster, api: Api, slept: list[float]
) -> None:
    cluster.fault("error", code=503, times=100)
    with pytest.raises(ClusterError, match=r"cannot list ConfigMaps: the server answers on purpose .503."):
        api.list("ConfigMap")
    assert len(cluster.requests) == 5
    assert sum(slept) < 20
    cluster.faults.clear()
    cluster.fault("error", code=429, retry_after=3600, times=100)
    with pytest.raises(ClusterError, match="the server is busy"):
        api.list("ConfigMap")
    assert sum(slept) < 20  # nobody waits an hour


def test_what_may_have_been_created_is_not_created_twice(cluster: FakeCluster, api: Api) -> None:
    cluster.fault("drop-after", method="POST")
    with pytest.raises(ClusterError, match="cannot create ConfigMap grid"):
        api.create(CONFIG)
    assert count(cluster, "POST") == 1
    with pytest.raises(ConflictError, match="already exists"):
        api.create(CONFIG)
    cluster.fault("error", code=429, method="POST")  # surely not carried out
    api.create({**CONFIG, "metadata": {"name": "second"}})
    assert cluster.names("ConfigMap") == ["grid", "second"]


def test_deleting_twice_tells_the_difference(cluster: FakeCluster, api: Api) -> None:
    cluster.put(CONFIG)
    assert api.delete("ConfigMap", "grid") is True
    assert api.delete("ConfigMap", "grid") is False


def test_threads_share_a_connection(cluster: FakeCluster, api: Api) -> None:
    names = [f"grid-{number}" for number in range(8)]
    threads = [threading.Thread(target=api.apply, args=({**CONFIG, "metadata": {"name": name}},)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert cluster.names("ConfigMap") == names


# What it reads


def test_a_list_is_whole_however_many_pages_and_its_items_have_their_kind(cluster: FakeCluster, api: Api) -> None:
    for number in range(5):
        cluster.put({**CONFIG, "metadata": {"name": f"grid-{number}", "labels": {"a": "b"}}})
    cluster.put({**CONFIG, "metadata": {"name": "other"}})
    cluster.page_limit = 2
    found = api.list("ConfigMap", labels="a=b")
    assert [item["metadata"]["name"] for item in found] == [f"grid-{number}" for number in range(5)]
    assert {(item["apiVersion"], item["kind"]) for item in found} == {("v1", "ConfigMap")}
    assert count(cluster, "GET") == 3


def test_a_list_that_took_too_long_starts_again(
    cluster: FakeCluster, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        cluster.put({**CONFIG, "metadata": {"name": f"grid-{number}"}})
    cluster.page_limit, send = 3, api._transport.send

    def forgetting(*arguments: Any, **how: Any) -> Any:
        response = send(*arguments, **how)
        if len(cluster.requests) == 1:
            cluster.compact()
        return response

    monkeypatch.setattr(api._transport, "send", forgetting)
    assert len(api.list("ConfigMap")) == 4
    assert count(cluster, "GET") == 4


def test_what_is_not_there_is_none_and_a_kind_that_is_not_there_is_an_error(cluster: FakeCluster, api: Api) -> None:
    assert api.get("RayJob", "grid") is None
    assert api.serves("RayJob")
    cluster.without("ray.io")
    assert not api.serves("RayJob")
    with pytest.raises(NotFoundError, match=r"KubeRay is not installed.*helm install kuberay-operator"):
        api.get("RayJob", "grid")
    cluster.without("kueue.x-k8s.io")
    with pytest.raises(NotFoundError, match="Kueue is not installed"):
        api.list("LocalQueue")


def test_queues_are_read_in_the_version_that_the_cluster_serves(cluster: FakeCluster, api: Api) -> None:
    cluster.put({"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue", "metadata": {"name": "team"}})
    for missing in ("kueue.x-k8s.io/v1beta2", "kueue.x-k8s.io/v1beta1"):
        cluster.missing_groups = {missing}
        assert api.get("LocalQueue", "team") is not None
        assert api.get("LocalQueue", "other") is None
        assert [queue["metadata"]["name"] for queue in api.list("LocalQueue")] == ["team"]


def test_a_watch_shows_what_is_there_and_then_what_changes(cluster: FakeCluster, api: Api) -> None:
    cluster.put(CONFIG)
    cluster.put({**CONFIG, "metadata": {"name": "other"}})
    seen = []
    for kind, item in api.watch("ConfigMap", labels="a=b", seconds=300):
        seen.append((kind, item["metadata"]["name"], item["data"]["k"]))
        if len(seen) == 1:
            cluster.change("ConfigMap", "other", data={"k": "x"})
            cluster.change("ConfigMap", "grid", data={"k": "w"})
        elif len(seen) == 2:
            cluster.remove("ConfigMap", "grid")
        else:
            cluster.cut_streams()
    assert seen == [("ADDED", "grid", "v"), ("MODIFIED", "grid", "w"), ("DELETED", "grid", "w")]
    assert count(cluster, "GET") == 1


def test_a_watch_goes_on_from_a_version_and_misses_nothing(cluster: FakeCluster, api: Api) -> None:
    cluster.put(CONFIG)
    _, version = api.list_at("ConfigMap")
    cluster.change("ConfigMap", "grid", data={"k": "w"})
    cluster.remove("ConfigMap", "grid")
    kinds = []
    for kind, _ in api.watch("ConfigMap", name="grid", seconds=300, resource_version=version):
        kinds.append(kind)
        if kind == "DELETED":
            cluster.cut_streams()
    assert kinds == ["MODIFIED", "DELETED"]


def test_a_watch_ends_quietly_where_history_is_gone_or_time_is_up(cluster: FakeCluster, api: Api) -> None:
    version = cluster.put(CONFIG)["metadata"]["resourceVersion"]
    assert list(api.watch("ConfigMap", seconds=1, resource_version=version)) == []
    cluster.compact()
    assert list(api.watch("ConfigMap", seconds=300, resource_version=version)) == []
    cluster.fault("error", code=410, path="configmaps")
    assert list(api.watch("ConfigMap", seconds=300, resource_version=version)) == []
    cluster.forbid("watch", "configmaps")
    with pytest.raises(ForbiddenError, match="alice may not watch configmaps"):
        list(api.watch("ConfigMap", seconds=300))


# What it writes


def test_apply_is_repeatable_and_a_dry_run_leaves_nothing(cluster: FakeCluster, api: Api) -> None:
    assert api.apply(CONFIG, dry_run=True)["data"] == {"k": "v"}
    assert cluster.names("ConfigMap") == []
    first = api.apply(CONFIG)
    assert api.apply(CONFIG)["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    api.apply({**CONFIG, "data": {"other": "w"}})
    assert cluster.item("ConfigMap", "grid")["data"] == {"other": "w"}  # type: ignore[index]
    assert {request.query["fieldManager"] for request in cluster.requests} == {"bo-sweep"}
    assert {request.query["fieldValidation"] for request in cluster.requests} == {"Strict"}


def test_an_immutable_config_map_is_not_changed(cluster: FakeCluster, api: Api) -> None:
    api.apply({**CONFIG, "immutable": True})
    owned = {**CONFIG["metadata"], "labels": {"a": "c"}}  # type: ignore[dict-item]
    assert api.apply({**CONFIG, "immutable": True, "metadata": owned})["metadata"]["labels"] == {"a": "c"}
    with pytest.raises(RejectedError, match="data: Forbidden: field is immutable"):
        api.apply({**CONFIG, "immutable": True, "data": {"k": "w"}})


def test_a_field_of_another_manager_is_a_conflict_that_names_both(cluster: FakeCluster, api: Api) -> None:
    api.apply(RAYJOB)
    other = {"spec": {"entrypoint": "false"}}
    cluster.writer.merge(_kind("RayJob"), "default", "grid", other, "kubectl-edit", strict=False, dry_run=False)
    with pytest.raises(ConflictError, match=r"\.spec\.entrypoint .conflict with .kubectl-edit. using ray.io/v1."):
        api.apply(RAYJOB)
    assert api.patch("RayJob", "grid", {"spec": {"entrypoint": "true"}})["spec"]["entrypoint"] == "true"


@pytest.mark.skipif(not CRD_FOLDER.exists(), reason="the CRDs of KubeRay are not in ../shared/kuberay")
def test_unknown_fields_and_wrong_types_are_all_named_and_not_tried_again(cluster: FakeCluster, api: Api) -> None:
    wrong = {**RAYJOB, "spec": {"entrypoint": "true", "submisionMode": "x", "submitterConfig": {"backofLimit": 3}}}
    with pytest.raises(RejectedError, match=r"2 fields \.spec\.submisionMode, \.spec\.submitterConfig\.backofLimit"):
        api.apply(wrong)
    assert len(cluster.requests) == 1
    with pytest.raises(RejectedError, match=r"spec.submisionMode, spec.submitterConfig.backofLimit"):
        api.create(wrong)
    with pytest.raises(RejectedError, match=r"spec.backoffLimit .* must be of type integer"):
        api.create({**RAYJOB, "spec": {"backoffLimit": "two"}})
    assert cluster.names("RayJob") == []


@pytest.mark.parametrize(
    "message",
    [
        'admission webhook "policy.example.org" denied the request: label team is required',
        'rayjobs.ray.io "grid" is forbidden: ValidatingAdmissionPolicy "team" with binding "all" denied request: '
        "label team is required",
        'configmaps "grid" is forbidden: exceeded quota: objects, requested: configmaps=1, label team is required',
    ],
)
def test_a_refusal_by_the_clusters_own_rules_is_no_lack_of_rights(message: str, cluster: FakeCluster, api: Api) -> None:
    cluster.fault("refuse", code=403, message=message)
    with pytest.raises(RejectedError, match=r"label team is required.*what the namespace 'default' allows") as told:
        api.apply(RAYJOB)
    assert "administrator" not in str(told.value)


@pytest.mark.parametrize(
    ("message", "kind", "told"),
    [
        (
            'configmaps "grid" is forbidden: unable to create new content in namespace default because it is being '
            "terminated",
            RejectedError,
            "namespace 'default' is being deleted",
        ),
        (
            'roles.rbac.authorization.k8s.io "bo-sweep-user" is forbidden: user "alice" (groups=["staff"]) is '
            "attempting to grant RBAC permissions not currently held:\n{...}",
            ForbiddenError,
            "an administrator of the cluster gives the rights once",
        ),
        (
            'rayjobs.ray.io is forbidden: User "system:anonymous" cannot list resource "rayjobs" in API group "ray.io" '
            'in the namespace "default"',
            ClusterError,
            "without credentials that the cluster knows. Log in",
        ),
        ('forbidden: User "alice" cannot get path "/version"', ForbiddenError, "cannot get path"),
    ],
)
def test_each_kind_of_403_has_its_own_remedy(
    message: str, kind: type[ClusterError], told: str, cluster: FakeCluster, api: Api
) -> None:
    cluster.fault("refuse", code=403, message=message)
    with pytest.raises(ClusterError, match=told) as raised:
        api.apply(RAYJOB)
    assert type(raised.value) is kind


def test_forbidden_tells_who_what_where_and_the_remedy(cluster: FakeCluster, api: Api) -> None:
    cluster.forbid("create", "rayjobs")
    assert not api.allowed("create", "rayjobs", group="ray.io")
    assert api.allowed("get", "rayjobs", group="ray.io")
    with pytest.raises(
        ForbiddenError,
        match=r"alice may not create rayjobs.ray.io in the namespace 'default'; .* bo-sweep k8s render SPACE --only",
    ):
        api.apply(RAYJOB)
    cluster.forbid("list", "nodes")
    with pytest.raises(ForbiddenError, match="alice may not list nodes in the whole cluster"):
        api.list("Node")


def test_a_missing_namespace_is_told_with_the_command_that_makes_it(cluster: FakeCluster, tmp_path: Path) -> None:
    api = connect(Connection(cluster.kubeconfig(tmp_path / "kubeconfig"), namespace="team"))
    with pytest.raises(NotFoundError, match=r"no namespace 'team'; create it .kubectl create namespace team"):
        api.apply(CONFIG)


def test_what_an_owner_has_goes_with_it(cluster: FakeCluster, api: Api) -> None:
    owner = api.apply(RAYJOB)
    reference = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": "grid", "uid": owner["metadata"]["uid"]}
    api.apply({**CONFIG, "metadata": {"name": "grid", "ownerReferences": [reference]}})
    cluster.store.foreground_waits = True
    assert api.delete("RayJob", "grid", propagation="Foreground")
    assert api.get("RayJob", "grid")["metadata"]["deletionTimestamp"]  # type: ignore[index]
    cluster.store.finish_deletions()
    assert api.get("RayJob", "grid") is None
    assert cluster.names("ConfigMap") == []


# Whether the server is what it claims to be


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_takes_the_server_for_a_real_one(tmp_path: Path) -> None:
    context, certificate = make_certificate(tmp_path)
    (tmp_path / "good.yaml").write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({**CONFIG, "metadata": {"name": "bad"}, "dta": {}}))
    with FakeCluster(tls=context) as cluster:
        path = cluster.kubeconfig(tmp_path / "kubeconfig", **{"certificate-authority": str(certificate)})

        def kubectl(*arguments: str) -> tuple[int, str]:
            command = ["kubectl", "--kubeconfig", str(path), "--cache-dir", str(tmp_path / "cache"), *arguments]
            environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, env=environment)
            return done.returncode, done.stdout + done.stderr

        assert kubectl("apply", "--server-side", "-f", str(tmp_path / "good.yaml")) == (
            0,
            "configmap/grid serverside-applied\n",
        )
        code, told = kubectl("apply", "--server-side", "-f", str(tmp_path / "bad.yaml"))
        assert code == 1
        assert ".dta: field not declared in schema" in told
        code, told = kubectl("get", "configmaps", "-l", "a=b", "-o", "json")
        assert [item["metadata"]["name"] for item in json.loads(told)["items"]] == ["grid"]
        api = connect(Connection(path))
        with pytest.raises(ConflictError, match="kubectl"):
            api.apply({**CONFIG, "data": {"k": "w"}})
        assert kubectl("delete", "configmap", "grid")[0] == 0
        assert api.get("ConfigMap", "grid") is None


def _kind(name: str) -> Any:
    from tests.kubernetes_api.kinds import BY_NAME

    return BY_NAME[name]
