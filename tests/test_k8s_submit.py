"""Submitting sweeps to a cluster: what is created, what is left alone, what is refused, and how the end is awaited."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.commands.options import INFRASTRUCTURE, USAGE, Failure, user_errors
from orchestrator.entry_point import LaunchRequest
from orchestrator.k8s.client.api import Api, ClusterError, ConflictError, Connection, connect
from orchestrator.k8s.client.retrying import Retries
from orchestrator.k8s.launch import ClusterLaunch, launch_on_kubernetes
from orchestrator.k8s.names import INSTANCE
from orchestrator.k8s.profile import ClusterProfile
from orchestrator.k8s.submitting.submission import OtherJobError, Submitted, submit
from orchestrator.k8s.submitting.waiting import End, wait
from orchestrator.stops import Interrupted
from search_spaces.catalog import load_space
from tests.kubernetes_api import FakeCluster

IMAGE = f"registry.example.org/bo-sweep@sha256:{'0' * 64}"
PLAIN: dict[str, Any] = {
    "image": IMAGE,
    "workers": {"nodes": 1, "cpus": 4},
    "results": {"claim": "results", "size": "10Gi"},
}
ENDED = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed"}


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster() as running:
        yield running


@pytest.fixture
def kubeconfig(cluster: FakeCluster, tmp_path: Path) -> Path:
    return cluster.kubeconfig(tmp_path / "kubeconfig")


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


@pytest.fixture
def launch(kubeconfig: Path) -> Launcher:
    return Launcher(kubeconfig)


def submitted(made: ClusterLaunch) -> Submitted:
    assert made.submitted is not None
    return made.submitted


# What is created


def test_a_first_launch_brings_the_setup_and_a_job_that_owns_its_config(cluster: FakeCluster, launch: Launcher) -> None:
    made = launch()
    name = made.manifests.name
    assert (submitted(made).state, submitted(made).name) == ("created", name)
    assert cluster.names("RayJob") == cluster.names("ConfigMap") == [name]
    assert cluster.names("ServiceAccount") == ["bo-sweep"]
    assert cluster.names("PersistentVolumeClaim") == ["results"]
    job = cluster.item("RayJob", name)
    assert job is not None
    assert job["metadata"]["labels"][INSTANCE] == "digits-grid"
    assert job["spec"] == made.manifests.job[1]["spec"]
    cluster.remove("RayJob", name)
    assert cluster.names("ConfigMap") == []
    assert cluster.names("PersistentVolumeClaim") == ["results"]


def test_a_dry_run_on_the_client_needs_no_cluster(tmp_path: Path) -> None:
    made = Launcher(tmp_path / "nothing")(dry_run="client")
    assert (made.api, made.submitted) == (None, None)
    assert made.manifests.yaml().startswith("---\n")


def test_a_dry_run_on_the_server_checks_all_and_writes_nothing(cluster: FakeCluster, launch: Launcher) -> None:
    assert submitted(launch(dry_run="server")).state == "created"
    assert cluster.changes == []
    tried = [request.body["kind"] for request in cluster.requests if request.dry_run]
    assert tried == ["ServiceAccount", "Role", "NetworkPolicy", "PersistentVolumeClaim", "ConfigMap", "RayJob"]
    cluster.fault("refuse", path="rayjobs", code=403, message='admission webhook "w" denied the request: no GPUs today')
    with pytest.raises(ClusterError, match="no GPUs today"):
        launch(dry_run="server")
    assert cluster.changes == []


def test_launching_again_attaches_and_changes_nothing(cluster: FakeCluster, launch: Launcher) -> None:
    name = launch().manifests.name
    cluster.requests.clear()
    for state, words in {
        "": "not looked at",
        "Running": "it runs",
        "Retrying": "the next",
        "Suspended": "queue",
    }.items():
        cluster.change("RayJob", name, status={"jobDeploymentStatus": state})
        again = submitted(launch(complete=False))
        assert again.state == "attached"
        assert words in again.notes[0]
    assert cluster.changes == []


def test_attaching_repairs_what_a_killed_launch_has_left(cluster: FakeCluster, launch: Launcher) -> None:
    made = launch()
    cluster.remove("ConfigMap", made.manifests.name)
    assert submitted(launch()).state == "attached"
    config = cluster.item("ConfigMap", made.manifests.name)
    assert config is not None
    assert config["data"] == made.manifests.job[0]["data"]
    assert config["metadata"]["ownerReferences"][0]["name"] == made.manifests.name


# Two jobs must not run one sweep


def test_another_job_of_the_sweep_is_refused_in_words_while_it_runs(cluster: FakeCluster, launch: Launcher) -> None:
    first = launch().manifests.name
    cluster.change("RayJob", first, status={"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"})
    cluster.requests.clear()
    other = {"image": IMAGE.replace("0" * 64, "1" * 64), "workers": {"nodes": 3, "cpus": 4}, "retries": 5}
    named = {**(cluster.item("RayJob", first) or {})}
    named["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["priorityClassName"] = "high"
    cluster.put(named)
    with pytest.raises(OtherJobError) as told:
        launch(other, overrides=("seeds=2", "recipe.epochs=9"))
    for part in (
        f"already submitted as {first}",
        "space: recipe.epochs: ",
        "now 9",
        "image: ",
        "nodes: 1, now 3",
        "retries: 2, now 5",
        "priority class: high, now none",
        "it runs",
        "bo-sweep k8s stop digits-grid",
        "--name",
    ):
        assert part in str(told.value)
    assert cluster.changes == []
    assert submitted(launch(other, sweep="digits-again")).state == "created"
    cluster.change("RayJob", first, status=ENDED)
    assert submitted(launch(other)).state == "created"
    assert len(cluster.names("RayJob")) == 3


def test_a_job_that_is_being_deleted_is_waited_for_not_attached_to(cluster: FakeCluster, launch: Launcher) -> None:
    made = launch()
    job = cluster.item("RayJob", made.manifests.name)
    assert job is not None
    job["metadata"]["finalizers"] = ["ray.io/rayjob-finalizer"]
    cluster.put(job)
    launch.api.delete("RayJob", made.manifests.name)
    with pytest.raises(OtherJobError, match="is being deleted; launch again when it is gone"):
        launch({"retries": 5})
    naps: list[float] = []
    told: list[str] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 9:
            operator_lets_go(cluster, made.manifests.name)

    assert submit(launch.api, made.manifests, tell=told.append, sleep=nap).state == "replaced"
    assert told == [f"waiting until {made.manifests.name}, which has ended, is deleted with its pods"]
    assert cluster.item("RayJob", made.manifests.name)["metadata"]["uid"] != job["metadata"]["uid"]  # type: ignore[index]


def operator_lets_go(cluster: FakeCluster, name: str) -> None:
    """What KubeRay does once it has stopped the job of a RayJob that is deleted."""
    job = cluster.item("RayJob", name)
    if job is not None:
        cluster.put({**job, "metadata": {**job["metadata"], "finalizers": []}})


# A job that has ended never runs again


def test_an_ended_job_is_made_anew_unless_the_ledger_is_complete(cluster: FakeCluster, launch: Launcher) -> None:
    name = launch().manifests.name
    cluster.change("RayJob", name, status=ENDED)
    old = cluster.item("RayJob", name)
    cluster.requests.clear()
    assert submitted(launch(complete=True)).state == "complete"
    assert submitted(launch(complete=False, dry_run="server")).state == "replaced"
    assert cluster.changes == []
    assert submitted(launch(complete=False)).state == "replaced"
    new, config = cluster.item("RayJob", name), cluster.item("ConfigMap", name)
    assert old is not None
    assert new is not None
    assert config is not None
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    assert "status" not in new
    assert config["metadata"]["ownerReferences"][0]["uid"] == new["metadata"]["uid"]
    cluster.change("RayJob", name, status=ENDED)
    assert submitted(launch(complete=None)).state == "replaced"  # cannot be read from here: the job will tell


def test_who_may_not_delete_an_ended_job_is_told_before_anything_is_written(
    cluster: FakeCluster, launch: Launcher
) -> None:
    cluster.change("RayJob", launch().manifests.name, status=ENDED)
    cluster.requests.clear()
    cluster.forbid("delete", "rayjobs")
    for how in ("server", None):
        with pytest.raises(ClusterError, match="alice may not delete rayjobs"):
            launch(complete=False, dry_run=how)
    assert cluster.changes == []


def test_the_ledger_is_not_read_where_the_cluster_cannot_run_the_sweep(cluster: FakeCluster, launch: Launcher) -> None:
    manifests = launch(dry_run="client").manifests

    def refuse() -> list[str]:
        raise ClusterError("no secret")

    def read() -> bool:
        pytest.fail("the ledger was read")

    with pytest.raises(ClusterError, match="no secret"):
        submit(launch.api, manifests, check=refuse, ledger_complete=read)


def test_a_complete_sweep_submits_nothing(cluster: FakeCluster, launch: Launcher) -> None:
    made = submitted(launch(complete=True))
    assert made.state == "complete"
    assert "nothing to submit" in made.notes[0]
    assert cluster.changes == []


def test_a_job_that_cannot_be_deleted_ends_in_a_message(cluster: FakeCluster, launch: Launcher) -> None:
    made = launch()
    cluster.change("RayJob", made.manifests.name, status=ENDED)
    cluster.store.foreground_waits = True
    naps: list[float] = []
    with pytest.raises(ClusterError, match="its finalizer is not taken off"):
        submit(launch.api, made.manifests, sleep=naps.append)
    assert sum(naps) == 180


# Nothing is created where anything is refused


def test_a_refused_job_leaves_no_config_behind(cluster: FakeCluster, launch: Launcher) -> None:
    message = 'admission webhook "w" denied the request: quota of the team'
    cluster.fault("refuse", path="rayjobs", code=403, message=message, dry_run=False)
    with pytest.raises(ClusterError, match="quota of the team"):
        launch()
    assert cluster.names("ConfigMap") == []


def test_a_job_whose_answer_was_lost_is_submitted(cluster: FakeCluster, launch: Launcher) -> None:
    cluster.fault("drop-after", method="PATCH", path="rayjobs", times=5, dry_run=False)
    made = submitted(launch())
    assert (made.state, [made.name]) == ("created", cluster.names("RayJob"))
    owner = cluster.item("ConfigMap", made.name)["metadata"]["ownerReferences"][0]["name"]  # type: ignore[index]
    assert owner == made.name
    assert submitted(launch()).state == "attached"


class CtrlC:
    """Interrupts one request to apply something: before it is sent, or when it has been carried out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at("")
        apply = Api.apply

        def interrupted(api: Api, manifest: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
            hit = manifest["kind"] == self.kind and not dry_run
            made = {} if hit and not self.after else apply(api, manifest, dry_run=dry_run)
            if hit:
                self.then()
                raise KeyboardInterrupt
            return made

        monkeypatch.setattr(Api, "apply", interrupted)

    def at(self, kind: str, *, after: bool = False, then: Callable[[], None] = lambda: None) -> None:
        self.kind, self.after, self.then = kind, after, then


@pytest.mark.parametrize(
    ("kind", "after"), [("Role", True), ("ConfigMap", False), ("ConfigMap", True), ("RayJob", False)]
)
def test_ctrl_c_before_the_job_is_there_leaves_no_config_behind(
    kind: str, after: bool, cluster: FakeCluster, launch: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    CtrlC(monkeypatch).at(kind, after=after)
    with pytest.raises(Interrupted, match=r"^digits-grid-\w{8} was not submitted$"):
        launch()
    assert cluster.names("ConfigMap") == cluster.names("RayJob") == []


def test_ctrl_c_tells_what_is_in_the_cluster(
    cluster: FakeCluster, launch: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctrl_c = CtrlC(monkeypatch)
    ctrl_c.at("RayJob", after=True)
    with pytest.raises(Interrupted, match="was submitted already, and goes on"):
        launch()
    (name,) = cluster.names("RayJob")
    cluster.change("RayJob", name, status=ENDED)
    ctrl_c.at("Role")
    with pytest.raises(Interrupted, match=r"was not submitted$"):
        launch(complete=False)
    ctrl_c.at("RayJob")
    with pytest.raises(Interrupted, match="was not submitted, and what had ended was deleted; results stay"):
        launch(complete=False)
    assert cluster.names("RayJob") == []
    ctrl_c.at("RayJob", after=True, then=lambda: cluster.forbid("get", "rayjobs"))
    with pytest.raises(Interrupted, match=r"whether .* was submitted is not known \(.*alice may not get rayjobs"):
        launch()


def test_a_request_that_is_carried_out_after_it_was_given_up_keeps_its_config(
    cluster: FakeCluster, launch: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = launch(dry_run="client").manifests
    delete = Api.delete

    def deleting(api: Api, kind: str, name: str, **how: Any) -> bool:
        cluster.put(manifests.job[1])
        return delete(api, kind, name, **how)

    CtrlC(monkeypatch).at("RayJob")
    monkeypatch.setattr(Api, "delete", deleting)
    with pytest.raises(Interrupted, match="was submitted already, and goes on"):
        launch()
    assert cluster.names("ConfigMap") == cluster.names("RayJob") == [manifests.name]


# Two who launch at the same moment


def before(kind: str, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Let something happen once, right before an object of this kind is applied in earnest."""
    apply, acts = Api.apply, [act]

    def applying(api: Api, manifest: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        if manifest["kind"] == kind and not dry_run and acts:
            acts.pop()()
        return apply(api, manifest, dry_run=dry_run)

    monkeypatch.setattr(Api, "apply", applying)


def test_two_launches_of_the_same_at_the_same_moment_make_one_job(
    cluster: FakeCluster, launch: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    before("ConfigMap", monkeypatch, launch)
    made = launch()
    assert cluster.names("RayJob") == cluster.names("ConfigMap") == [made.manifests.name]
    assert cluster.item("ConfigMap", made.manifests.name)["metadata"]["ownerReferences"]  # type: ignore[index]


@pytest.mark.parametrize("mine_is_older", [True, False])
def test_of_two_launches_of_one_sweep_at_the_same_moment_the_later_one_gives_way(
    mine_is_older: bool, cluster: FakeCluster, launch: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = launch({"retries": 5}, dry_run="client").manifests.job[1]
    stamp = "2999-01-01T00:00:00Z" if mine_is_older else "2020-01-01T00:00:00Z"
    before(
        "RayJob",
        monkeypatch,
        lambda: cluster.put({**other, "metadata": {**other["metadata"], "creationTimestamp": stamp}}),
    )
    if mine_is_older:
        assert submitted(launch()).state == "created"
        assert len(cluster.names("RayJob")) == 2  # the other one goes as soon as it looks
        return
    with pytest.raises(OtherJobError, match=r"already submitted as .* with other settings \(retries: 5, now 2\)"):
        launch()
    assert cluster.names("RayJob") == [other["metadata"]["name"]]
    assert cluster.names("ConfigMap") == []


def test_a_job_that_another_launch_has_just_made_anew_is_not_deleted(cluster: FakeCluster, launch: Launcher) -> None:
    made = launch().manifests
    cluster.change("RayJob", made.name, status=ENDED)
    new: list[Any] = []

    def another_launches() -> list[str]:
        new.append(submitted(launch(complete=False)))
        new.append(cluster.item("RayJob", made.name))
        return []

    mine = submit(launch.api, made, check=another_launches)
    assert (new[0].state, mine.state) == ("replaced", "attached")
    assert cluster.item("RayJob", made.name)["metadata"]["uid"] == new[1]["metadata"]["uid"]  # type: ignore[index]
    assert cluster.names("ConfigMap") == [made.name]


def test_what_the_server_refuses_is_told_all_at_once(cluster: FakeCluster, launch: Launcher) -> None:
    for path in ("rayjobs", "configmaps"):
        cluster.fault(
            "refuse",
            method="PATCH",
            path=path,
            code=403,
            message=f'admission webhook "w" denied the request: no {path}',
        )
    with pytest.raises(ClusterError, match=r"(?s)2 problems.*no configmaps.*no rayjobs"):
        launch()
    assert cluster.changes == []


def test_a_connection_that_breaks_in_the_midst_is_not_noticed(cluster: FakeCluster, launch: Launcher) -> None:
    for kind in ("drop", "drop-after"):
        cluster.fault(kind, method="PATCH", path="configmaps")
        cluster.fault(kind, method="PATCH", path="rayjobs")
        cluster.fault(kind, method="GET", path="namespaces", times=2)
    assert submitted(launch()).state == "created"
    assert len(cluster.names("RayJob")) == len(cluster.names("ConfigMap")) == 1


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
    assert made.state == "created"
    assert len(made.notes) == 4
    assert all("stays as it is" in note for note in made.notes)
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


def test_what_an_administrator_changed_by_hand_stays(cluster: FakeCluster, launch: Launcher) -> None:
    launch()
    api = launch.api
    account = cluster.item("ServiceAccount", "bo-sweep")
    assert account is not None
    from tests.kubernetes_api.kinds import BY_NAME

    by_hand = {"automountServiceAccountToken": True}
    cluster.writer.merge(
        BY_NAME["ServiceAccount"], "default", "bo-sweep", by_hand, "kubectl-edit", strict=False, dry_run=False
    )
    with pytest.raises(ConflictError):
        api.apply(launch(dry_run="client").manifests.setup[0])
    made = submitted(launch(sweep="digits-again"))
    assert any("ServiceAccount bo-sweep stays as it is" in note and "kubectl-edit" in note for note in made.notes)


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


# Waiting for the end


class Play:
    """Changes the cluster step by step, the next one when the last has been seen."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self.steps, self.seen = list(steps), list[str]()

    def __call__(self, job: dict[str, Any]) -> None:
        self.seen.append((job.get("status") or {}).get("jobDeploymentStatus", ""))
        if self.steps:
            self.steps.pop(0)()


def job(cluster: FakeCluster, **status: str) -> dict[str, Any]:
    put = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "grid"}, "spec": {"entrypoint": "true"}}
    return cluster.put(put | ({"status": status} if status else {}))


def together(*actions: Callable[[], object]) -> Callable[[], None]:
    """Several actions as one step."""

    def act() -> None:
        for action in actions:
            action()

    return act


def to(cluster: FakeCluster, deployment: str, **status: str) -> Callable[[], object]:
    return lambda: cluster.change("RayJob", "grid", status={"jobDeploymentStatus": deployment, **status})


@pytest.mark.parametrize(
    ("status", "end"),
    [
        ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, End("succeeded")),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, End("stopped")),
        (
            {"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded", "message": "x"},
            End("failed", "DeadlineExceeded", "x"),
        ),
        ({"jobDeploymentStatus": "ValidationFailed", "message": "x"}, End("failed", "ValidationFailed", "x")),
    ],
)
def test_waiting_returns_how_it_ended(status: dict[str, str], end: End, cluster: FakeCluster, launch: Launcher) -> None:
    job(cluster)
    play = Play(
        to(cluster, "Initializing"), to(cluster, "Running"), lambda: cluster.change("RayJob", "grid", status=status)
    )
    assert wait(launch.api, "grid", play) == end
    assert play.seen == ["", "Initializing", "Running", status["jobDeploymentStatus"]]


def test_waiting_survives_cut_connections_lost_history_and_a_server_that_restarts(
    cluster: FakeCluster, launch: Launcher
) -> None:
    job(cluster)
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if cluster.is_stopped and len(naps) > 5:
            cluster.start()

    play = Play(
        together(cluster.cut_streams, to(cluster, "Initializing")),
        together(cluster.compact, to(cluster, "Waiting")),
        together(cluster.stop, to(cluster, "Running")),
        together(lambda: cluster.fault("error", code=503, times=7), cluster.cut_streams, to(cluster, "Retrying")),
        to(cluster, "Complete", jobStatus="SUCCEEDED"),
    )
    assert wait(launch.api, "grid", play, sleep=nap) == End("succeeded")
    assert play.seen == ["", "Initializing", "Waiting", "Running", "Retrying", "Complete"]
    assert len(naps) > 5


def test_waiting_tells_when_the_job_is_deleted(cluster: FakeCluster, launch: Launcher) -> None:
    job(cluster)
    assert wait(launch.api, "grid", Play(lambda: cluster.remove("RayJob", "grid"))) == End("deleted")
    job(cluster)
    replaced = Play(
        together(cluster.cut_streams, cluster.compact, lambda: cluster.remove("RayJob", "grid"), lambda: job(cluster))
    )
    assert wait(launch.api, "grid", replaced, sleep=lambda _: None) == End("deleted")
    cluster.remove("RayJob", "grid")
    with pytest.raises(ClusterError, match="no RayJob 'grid' in the namespace 'default'"):
        wait(launch.api, "grid")


def test_ctrl_c_ends_the_waiting_and_not_the_job(cluster: FakeCluster, launch: Launcher) -> None:
    job(cluster)

    def interrupt() -> None:
        raise KeyboardInterrupt

    before = len(cluster.changes)
    with pytest.raises(KeyboardInterrupt):
        wait(launch.api, "grid", Play(interrupt))
    assert len(cluster.changes) == before


def test_patience_with_a_server_that_is_away_has_an_end(cluster: FakeCluster, launch: Launcher) -> None:
    job(cluster)
    with pytest.raises(ClusterError, match="refused"):
        wait(launch.api, "grid", Play(cluster.stop), patience_seconds=0.2, sleep=lambda _: None)
    cluster.start()
    expired = Play(together(cluster.tokens.clear, cluster.cut_streams))
    with pytest.raises(ClusterError, match="credentials are not accepted"):
        wait(launch.api, "grid", expired, sleep=lambda _: None)
