"""Fetch out of a claim: the reader pod's life in a cluster, and the command."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from orchestrator import paths
from orchestrator.commands.fetch import fetch as fetch_command
from orchestrator.fetch import fetch
from orchestrator.k8s.client.api import Api, ClusterError, Connection, connect
from orchestrator.k8s.client.retrying import Retries
from orchestrator.k8s.fetching.claim_storage import ClaimStorage
from orchestrator.k8s.fetching.reader import PORT, reader_job, reader_pod
from orchestrator.k8s.fetching.results import object_results, open_results
from orchestrator.k8s.profile import ClusterProfile, Results
from orchestrator.k8s.rendering.mounts import Mounts
from orchestrator.lease import Lease
from orchestrator.ledger import Ledger
from orchestrator.object_storage import ObjectStorage
from orchestrator.storage import Storage, StorageError, open_storage
from tests.kubernetes_api import FakeCluster
from tests.kubernetes_api.streams import streams_of
from tests.object_store import BUCKET
from tests.test_fetch import FIGURE, ROOT, RUNS, assert_same, files_below, go_on, sweep_in
from tests.waiting import PATIENCE_SECONDS, wait_for

CLAIM = "bo-sweep-results"
PROFILE = ClusterProfile(
    image="registry.example.org/bo-sweep@sha256:" + "0" * 64, results=Results(claim=CLAIM), namespace="default"
)


@pytest.fixture
def target(tmp_path: Path) -> Storage:
    return open_storage(tmp_path / "here").child("one")


# The reader in a cluster


@dataclass
class Kubelet:
    """Runs the pods of readers in a fake cluster: a process here for each, with `claim` in the place of the claim.

    Attributes:
        status: of the pods, in the place of Running.
        events: of the Job, instead of a pod.
    """

    cluster: FakeCluster
    claim: Path
    status: dict[str, Any] | None = None
    events: tuple[str, ...] = ()
    commands: list[list[str]] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)
    _processes: ExitStack = field(default_factory=ExitStack)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self._stop.wait(0.01):
            for job in self.cluster.items("Job"):
                if job["metadata"]["name"] not in self._seen:
                    self._seen.add(job["metadata"]["name"])
                    self._start(job)

    def _start(self, job: dict[str, Any]) -> None:
        name, pod = job["metadata"]["name"], f"{job['metadata']['name']}-x7f2p"
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"]}
        for message in self.events:
            about = {"kind": "Job", "name": name, "namespace": "default"}
            event = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": f"{name}.1"}, "involvedObject": about}
            self.cluster.put(event | {"type": "Warning", "reason": "FailedCreate", "message": message})
        if self.events:
            return
        spec = job["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        self.commands.append(container["command"])
        metadata = {"name": pod, "labels": job["spec"]["template"]["metadata"]["labels"], "ownerReferences": [owner]}
        made = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        if self.status is None:
            self.cluster.put(made | {"status": {"phase": "Pending"}})
            places = {"python": sys.executable, Mounts().results: str(self.claim), f"{PORT}": "0"}
            command = [places.get(word, word) for word in container["command"]]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
            self._processes.callback(_end, process)
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            streams_of(self.cluster).ports[pod, PORT] = int(address.rpartition(":")[2])
        up = {"phase": "Running", "containerStatuses": [_container("running", startedAt="2026-03-01T12:00:00Z")]}
        self.cluster.put(made | {"status": self.status or up})

    def stop(self) -> None:
        self._stop.set()

    def close(self) -> None:
        self._processes.close()


def _container(state: str, **how: Any) -> dict[str, Any]:
    return {"name": "reader", "image": PROFILE.image, "ready": state == "running", "state": {state: how}}


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.communicate()


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster() as running:
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM}}
        running.put(claim | {"status": {"phase": "Bound"}})
        yield running


@pytest.fixture
def kubelet(cluster: FakeCluster, tmp_path: Path) -> Iterator[Kubelet]:
    runs = Kubelet(cluster, tmp_path / "claim")
    thread = threading.Thread(target=runs.run)
    thread.start()
    yield runs
    runs.stop()
    thread.join()
    runs.close()


@pytest.fixture
def api(cluster: FakeCluster, tmp_path: Path) -> Api:
    retries = Retries(tries=2, sleep=lambda seconds: None)
    return connect(Connection(cluster.kubeconfig(tmp_path / "kubeconfig")), retries)


@pytest.fixture
def profiles(cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's files: a kubeconfig, and profiles with a claim and with a bucket."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig")))
    monkeypatch.setenv("BO_SWEEP_CLUSTERS", str(tmp_path / "clusters.yaml"))
    bucket = {"url": f"s3://{BUCKET}/profile"}
    clusters = {"lab": {"image": PROFILE.image, "results": {"claim": CLAIM}}}
    clusters["bucket"] = {"image": PROFILE.image, "results": bucket}
    path = tmp_path / "clusters.yaml"
    path.write_text(yaml.safe_dump({"default": "lab", "clusters": clusters}))
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(fetch_command, [str(argument) for argument in arguments])


def nothing_is_left(cluster: FakeCluster) -> bool:
    return not cluster.items("Job") and not cluster.items("Pod")


def test_a_sweep_comes_out_of_a_claim_and_leaves_no_trace(
    cluster: FakeCluster, kubelet: Kubelet, profiles: Path, tmp_path: Path
) -> None:
    source = sweep_in(open_storage(tmp_path / "claim" / "one"))
    before = files_below(tmp_path / "claim")
    result = run("one", "--to", tmp_path / "here", "--on", "k8s", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["schema_version"] == 1
    assert document.items() >= {"sweep": "one", "from": f"claim {CLAIM}:/one", "unchanged": 0, "removed": 0}.items()
    assert document["to"] == str(tmp_path / "here" / "one")
    here = Ledger(tmp_path / "here" / "one")
    assert_same(source, here)
    assert here.storage.read(FIGURE) == b"figure"
    for word in ("Waiting for a pod", "files fetched", f"bo-sweep phase one --storage {tmp_path / 'here'}"):
        assert word in result.stderr
    assert nothing_is_left(cluster)
    assert {(request.method, request.path.split("/")[-2]) for request in cluster.changes} == {
        ("POST", "default"),
        ("DELETE", "jobs"),
    }
    assert files_below(tmp_path / "claim") == before
    assert kubelet.commands == [["python", "-m", "orchestrator.k8s.fetching.file_server", "/results", "--port", "8000"]]
    go_on(source, RUNS[4])
    assert not document["live"]
    with Lease(source.storage):
        again = run("one", "--to", tmp_path / "here", "--profile", "lab", "--checkpoints")
    assert again.exit_code == 0, again.output
    assert "still being launched" in again.stderr
    assert here.storage.list(paths.LEASE) == []
    assert again.stdout == f"{tmp_path / 'here' / 'one'}\n"
    assert_same(source, here)
    assert here.storage.list(paths.CHECKPOINTS)
    assert nothing_is_left(cluster)


def test_connections_that_break_are_made_anew(
    cluster: FakeCluster, kubelet: Kubelet, api: Api, target: Storage
) -> None:
    source = sweep_in(open_storage(kubelet.claim / "one"))
    breaks = 0

    def cut(*_: object) -> None:
        nonlocal breaks
        if breaks < 3:
            breaks += 1
            cluster.cut_streams()

    with open_results(api, PROFILE) as storage:
        fetch(storage.child("one"), target, on_progress=cut)
        assert storage.folders() == ["one"]
    assert breaks == 3
    wait_for(lambda: streams_of(cluster).open_now == 0)  # the server notices a moment later
    assert_same(source, Ledger(target))


def test_a_claim_that_may_not_be_read_is_told_at_once(
    kubelet: Kubelet, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubelet.claim.mkdir()

    def refused(storage: ClaimStorage) -> list[str]:
        raise StorageError("cannot list claim: Permission denied")

    monkeypatch.setattr(ClaimStorage, "folders", refused)
    with pytest.raises(StorageError, match="Permission denied"), open_results(api, PROFILE):
        pytest.fail("it cannot be read")


def test_what_a_reader_is_in_the_cluster(kubelet: Kubelet) -> None:
    job = reader_job(PROFILE.model_copy(update={"labels": {"team": "vision"}}), "bo-sweep-read-0a1b2c3d")
    spec = job["spec"]
    assert job["metadata"]["labels"]["team"] == spec["template"]["metadata"]["labels"]["team"] == "vision"
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (0, 3600, 60)
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    (mount,) = (each for each in container["volumeMounts"] if each["name"] == "results")
    assert mount["readOnly"] is True
    assert pod["restartPolicy"] == "Never"
    assert pod["automountServiceAccountToken"] is False
    labels = spec["template"]["metadata"]["labels"]
    assert (labels["app.kubernetes.io/component"], labels["app.kubernetes.io/name"]) == ("reader", "bo-sweep")
    with pytest.raises(ValueError, match="not in a claim"):
        reader_job(PROFILE.model_copy(update={"results": Results(url="s3://bucket/x")}), "x")


QUOTA = (
    'pods "x" is forbidden: exceeded quota: team, requested: requests.cpu=100m, used: requests.cpu=4, '
    "limited: requests.cpu=4"
)
PULL = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}
ENDED = {"exitCode": 1, "message": "Traceback\nNo module named orchestrator.k8s", "reason": "Error"}
FULL = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes are available: "}
TROUBLES = {
    "image": ({"phase": "Pending", "containerStatuses": [_container("waiting", **PULL)]}, (), "image .* be pulled"),
    "ended": ({"phase": "Failed", "containerStatuses": [_container("terminated", **ENDED)]}, (), "No module named"),
    "full": (
        {"phase": "Pending", "conditions": [FULL | {"message": FULL["message"] + "2 Insufficient cpu."}]},
        (),
        r"no node takes the reader: .*cpu",
    ),
    "quota": (None, (QUOTA,), "quota 'team'"),
    "security": (None, ('pods "x" is forbidden: violates PodSecurity "restricted:latest": host',), "Pod Security"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_reader_that_does_not_come_up_is_told_in_words_and_removed(
    cluster: FakeCluster, kubelet: Kubelet, api: Api, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Api.create

    def created(api: Api, job: dict[str, Any]) -> dict[str, Any]:
        made = create(api, job)
        wait_for(lambda: cluster.items("Pod") or cluster.items("Event"))
        return made

    monkeypatch.setattr(Api, "create", created)
    kubelet.claim.mkdir()
    kubelet.status, kubelet.events, words = TROUBLES[trouble]
    wait_seconds = 0.0 if trouble in ("full", "quota") else PATIENCE_SECONDS  # what may pass is waited for
    told: list[str] = []
    with (
        pytest.raises(ClusterError, match=words) as caught,
        reader_pod(api, PROFILE, wait_seconds=wait_seconds, patience_seconds=0.0, tell=told.append),
    ):
        pytest.fail("it does not run")
    assert "submitter" not in str(caught.value)
    assert nothing_is_left(cluster)


def test_an_interrupt_removes_the_reader(
    cluster: FakeCluster, kubelet: Kubelet, profiles: Path, tmp_path: Path
) -> None:
    """While its pod waits for a node."""
    kubelet.claim.mkdir()
    kubelet.status = {"phase": "Pending"}
    timer = threading.Thread(target=_interrupt_once, args=(cluster,))
    timer.start()
    result = run("one", "--to", tmp_path / "here", "--on", "k8s")
    timer.join()
    assert result.exit_code == 3
    assert "the same command goes on" in result.stderr
    assert nothing_is_left(cluster)


def test_a_reader_that_cannot_be_removed_is_named(
    cluster: FakeCluster, kubelet: Kubelet, profiles: Path, tmp_path: Path
) -> None:
    sweep_in(open_storage(kubelet.claim / "one"))
    cluster.forbid("delete", "jobs")
    result = run("one", "--to", tmp_path / "here", "--on", "k8s")
    assert result.exit_code == 0, result.output
    (job,) = cluster.names("Job")
    assert f"kubectl delete job {job} -n default" in result.stderr
    assert "removes it by itself within 1h" in result.stderr
    cluster.forbid("create", "jobs")
    result = run("one", "--to", tmp_path / "here", "--on", "k8s")
    assert (result.exit_code, "kubectl delete" in result.stderr) == (4, False)


def test_a_reader_that_waits_for_a_queue_is_told_how_it_gets_into_one(
    cluster: FakeCluster, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Api.create
    monkeypatch.setattr(Api, "create", lambda api, job: create(api, job | {"spec": job["spec"] | {"suspend": True}}))
    words = r"kubectl label job bo-sweep-read-\w+ -n default kueue\.x-k8s\.io/queue-name"
    with pytest.raises(ClusterError, match=words), reader_pod(api, PROFILE, wait_seconds=0.0):
        pytest.fail("it does not run")
    assert nothing_is_left(cluster)


def _interrupt_once(cluster: FakeCluster) -> None:
    wait_for(lambda: cluster.items("Pod"))
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


@pytest.mark.parametrize(
    ("arrange", "arguments", "exit_code", "parts"),
    [
        (lambda cluster: cluster.remove("PersistentVolumeClaim", CLAIM), [], 4, ["no claim 'bo-sweep-results'"]),
        (lambda cluster: cluster.forbid("create", "jobs"), [], 4, ["may not create jobs.batch", "--only setup"]),
        (lambda cluster: cluster.forbid("get", "pods/portforward"), [], 4, ["pods/portforward", "--only setup"]),
        (lambda cluster: None, ["--profile", "labb"], 2, ["no profile 'labb'", "'lab'"]),
        (lambda cluster: None, ["--context", "prod"], 2, ["'prod'", "fake"]),
        (lambda cluster: None, ["--kubeconfig", "none"], 4, ["no kubeconfig", "none"]),
        (lambda cluster: None, ["--storage", "sweeps"], 2, ["--storage", "one of the two"]),
        (lambda cluster: None, ["--to", "s3://bucket/x"], 2, ["folder of this machine"]),
    ],
)
def test_bad_input_gets_one_message_and_leaves_nothing_behind(
    cluster: FakeCluster,
    kubelet: Kubelet,
    profiles: Path,
    tmp_path: Path,
    arrange: Callable[[FakeCluster], object],
    arguments: list[str],
    exit_code: int,
    parts: list[str],
) -> None:
    sweep_in(open_storage(kubelet.claim / "one"))
    arrange(cluster)
    result = run("one", "--to", tmp_path / "here", "--on", "k8s", *arguments)
    assert result.exit_code == exit_code, result.output
    for part in parts:
        assert part in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.output
    assert not (tmp_path / "here").exists()
    assert nothing_is_left(cluster)


def test_a_sweep_that_is_not_in_the_claim_names_those_that_are(
    cluster: FakeCluster, kubelet: Kubelet, profiles: Path, tmp_path: Path
) -> None:
    sweep_in(open_storage(kubelet.claim / "one"))
    result = run("two", "--to", tmp_path / "here", "--on", "k8s")
    assert result.exit_code == 2
    assert f"no sweep 'two' under claim {CLAIM}. Sweeps there: one" in result.stderr
    assert not (tmp_path / "here").exists()
    assert nothing_is_left(cluster)


def test_without_a_profile_it_is_told_how_to_write_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BO_SWEEP_CLUSTERS", str(tmp_path / "none.yaml"))
    result = run("one", "--to", tmp_path / "here", "--on", "k8s")
    assert result.exit_code == 2
    assert "clusters:" in result.stderr


# Object stores, and the command without a cluster


def test_a_profile_with_a_bucket_needs_no_cluster(
    s3_folder: Storage, profiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: FakeCluster
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert isinstance(s3_folder, ObjectStorage)
    source = sweep_in(open_storage(f"s3://{BUCKET}/profile").child("one"))
    result = run("one", "--to", tmp_path / "here", "--profile", "bucket")
    assert result.exit_code == 0, result.output
    assert_same(source, Ledger(tmp_path / "here" / "one"))
    assert cluster.requests == []
    direct = run("one", "--to", tmp_path / "there", "--storage", f"s3://{BUCKET}/profile")
    assert direct.exit_code == 0, direct.output
    assert_same(source, Ledger(tmp_path / "there" / "one"))


def test_the_endpoint_of_a_profile_is_used_unless_the_environment_has_one(
    environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = Results(url="s3://bucket/x", endpoint="http://minio.storage:9000")
    inside = object_results(results)
    assert isinstance(inside, ObjectStorage)
    assert inside.endpoint == "http://minio.storage:9000"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    outside = object_results(results)
    assert isinstance(outside, ObjectStorage)
    assert outside.endpoint == "http://127.0.0.1:9000"


def test_a_folder_is_fetched_by_the_command_as_well(tmp_path: Path) -> None:
    source = sweep_in(open_storage(tmp_path / "there" / "one"))
    result = run("one", "--to", tmp_path / "here", "--storage", tmp_path / "there")
    assert result.exit_code == 0, result.output
    assert_same(source, Ledger(tmp_path / "here" / "one"))
    missing = run("two", "--to", tmp_path / "here", "--storage", tmp_path / "there")
    assert (missing.exit_code, "Sweeps there: one" in missing.stderr) == (2, True)
    blocked = run("one", "--to", tmp_path / "clusters.yaml" / "x", "--storage", tmp_path / "there")
    assert blocked.exit_code == 0, blocked.output
    (tmp_path / "file").write_text("in the way")
    blocked = run("one", "--to", tmp_path / "file", "--storage", tmp_path / "there")
    assert (blocked.exit_code, "--to" in blocked.stderr) == (4, True)
    assert run("one", "--storage", tmp_path / "there").exit_code == 2
    for name in ("../there/one", "one/../one", "/one", "", ".."):
        odd = run(name, "--to", tmp_path / "out" / "here", "--storage", tmp_path / "there")
        assert (odd.exit_code, "is no name of a sweep" in odd.stderr) == (2, True), name
    assert not (tmp_path / "out").exists()


def test_the_command_and_the_question_start_light(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom orchestrator.commands.fetch import fetch\n"
        "try: fetch(['nothing', '--to', 'here'])\nexcept SystemExit: pass\n"
        "import orchestrator.k8s.fetching.results\n"
        "print('LOADED', *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = set(result.stdout.splitlines()[-1].split()[1:])
    assert not loaded & {"torch", "ray", "matplotlib", "sklearn", "kubernetes", "websocket"}
