"""Submitting sweeps to a cluster: what is created, what is left alone, what gives way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.k8s.client.api import Api, ClusterError
from orchestrator.k8s.names import INSTANCE
from orchestrator.k8s.submitting.submission import OtherJobError, submit
from orchestrator.stops import Interrupted
from tests.kubernetes_api import FakeCluster
from tests.submitting import ENDED, IMAGE, Launcher, submitted


@pytest.fixture
def launch(cluster: FakeCluster, tmp_path: Path) -> Launcher:
    return Launcher(cluster.kubeconfig(tmp_path / "kubeconfig"))


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
        "Running": "being submitted to Ray",
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
    cluster.remove("Role", "bo-sweep-user")
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
