"""Logs of a launch: every line once and in order, over broken connections, restarts, repeating submitters, retries."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.k8s.client.api import Api, ClusterError, Connection, ForbiddenError, connect
from orchestrator.k8s.client.retrying import Retries
from orchestrator.k8s.watching.follow import last_progress, launch_lines, merged_lines
from orchestrator.k8s.watching.log_stream import pod_lines
from orchestrator.k8s.watching.patience import Patience
from orchestrator.k8s.watching.picture import look
from tests.cluster_scenes import HEAD, JOB, SUBMITTER, SWEEP, WORKERS, container, pod, rayjob
from tests.kubernetes_api import FakeCluster
from tests.kubernetes_api.certificates import make_certificate
from tests.kubernetes_api.streams import log_of
from tests.waiting import PATIENCE_SECONDS, wait_for

HASTY = Patience(first_seconds=0.01, longest_seconds=0.02, total_seconds=0.3, poll_seconds=0.05)


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster() as cluster:
        cluster.put(rayjob("Running", "RUNNING"))
        cluster.put(pod(SUBMITTER))
        yield cluster


@pytest.fixture
def api(cluster: FakeCluster, tmp_path: Path) -> Api:
    retries = Retries(tries=2, sleep=lambda seconds: None)
    return connect(Connection(kubeconfig=cluster.kubeconfig(tmp_path / "kubeconfig")), retries)


def numbered(count: int, start: int = 0) -> list[str]:
    return [f"{number}/63 runs" for number in range(start, start + count)]


def end(cluster: FakeCluster, name: str = SUBMITTER) -> None:
    log_of(cluster, name).ended = True
    cluster.put(pod(name, "Succeeded"))


def test_a_log_is_read_to_its_end_or_only_its_last_lines(cluster: FakeCluster, api: Api) -> None:
    log_of(cluster, SUBMITTER).write(*numbered(5))
    assert list(pod_lines(api, SUBMITTER, follow=False)) == numbered(5)
    assert list(pod_lines(api, SUBMITTER, follow=False, tail=2)) == numbered(2, 3)


@pytest.mark.parametrize("break_", ["cut_after", "end_after"])
def test_no_line_is_repeated_or_lost_wherever_the_connection_breaks(
    break_: str, cluster: FakeCluster, api: Api
) -> None:
    log = log_of(cluster, SUBMITTER)
    log.write(*numbered(3), nanoseconds=5_000_000_001)  # several with one stamp, and the same text twice with one stamp
    log.write("same", "same", nanoseconds=5_000_000_002)
    log.write("earlier, of the other stream", nanoseconds=4_999_999_999)
    log.write(*numbered(4, 3), nanoseconds=5_900_000_000)
    log.write("later", nanoseconds=9_000_000_000)
    expected = [*numbered(3), "same", "same", "earlier, of the other stream", *numbered(4, 3), "later"]
    size = sum(len(f"{stamp} {text}") for stamp, text in log.lines)
    getattr(log, break_).extend(range(1, size + 40, 23))
    end(cluster)
    cluster.put(pod(SUBMITTER))  # still running, so that an ending connection is not the end of the log
    reader = reading(pod_lines(api, SUBMITTER, patience=HASTY))
    wait_for(lambda: not getattr(log, break_))
    cluster.put(pod(SUBMITTER, "Succeeded"))
    reader.join()
    assert reader.lines == expected
    assert log.opened > 10


def test_the_last_line_counts_though_it_has_no_end(cluster: FakeCluster, api: Api) -> None:
    log_of(cluster, SUBMITTER).write("whole")
    log_of(cluster, SUBMITTER).write("killed in the mid", end="")
    end(cluster)
    assert list(pod_lines(api, SUBMITTER)) == ["whole", "killed in the mid"]


@pytest.mark.parametrize(
    "status",
    [
        {"containerStatuses": container(waiting={"reason": "ContainerCreating"})},
        {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]},
    ],
    ids=["on its node", "without a node"],
)
def test_following_waits_for_a_container_to_start_and_says_so(
    status: dict[str, Any], cluster: FakeCluster, api: Api
) -> None:
    cluster.put(pod(SUBMITTER, "Pending", **status))
    log_of(cluster, SUBMITTER).write("first")
    told: list[str] = []
    with pytest.raises(ClusterError, match="waiting to start"):
        list(pod_lines(api, SUBMITTER, follow=False))
    reader = reading(pod_lines(api, SUBMITTER, tell=told.append, patience=HASTY))
    wait_for(lambda: told)
    end(cluster)
    reader.join()
    assert reader.lines == ["first"]
    assert told == [f"{SUBMITTER} has not started yet"]


RESTARTED = [{"name": "ray-head", "restartCount": 1, "state": {"running": {}}}]
MINUTE = 60_000_000_000


def test_what_a_container_said_before_it_was_restarted_is_not_lost(cluster: FakeCluster, api: Api) -> None:
    log = log_of(cluster, HEAD)
    cluster.put(pod(HEAD))
    log.write(*numbered(3))
    reader = reading(pod_lines(api, HEAD, patience=HASTY))
    wait_for(lambda: reader.lines == numbered(3))
    log.restart("last words")
    log.write("born again", nanoseconds=MINUTE)
    wait_for(lambda: "born again" in reader.lines)
    assert reader.lines == [*numbered(3), "born again"], "the pod's status does not tell of the restart yet"
    log.ended = True
    cluster.put(pod(HEAD, "Succeeded", containerStatuses=RESTARTED))
    reader.join()
    assert reader.lines == [*numbered(3), "born again", "last words"]


@pytest.mark.parametrize("tail", [None, 2])
def test_what_was_read_of_a_container_before_its_restart_is_not_repeated(
    tail: int | None, cluster: FakeCluster, api: Api
) -> None:
    log = log_of(cluster, HEAD)
    cluster.put(pod(HEAD))
    log.write("long ago", *numbered(3))
    reader = reading(pod_lines(api, HEAD, tail=tail, patience=HASTY))
    seen = numbered(3)[-tail:] if tail else ["long ago", *numbered(3)]
    wait_for(lambda: reader.lines == seen)
    cluster.put(pod(HEAD, containerStatuses=RESTARTED))
    log.restart("last words")
    wait_for(lambda: "last words" in reader.lines)
    log.write("born again", nanoseconds=MINUTE)
    wait_for(lambda: "born again" in reader.lines)
    log.ended = True
    cluster.put(pod(HEAD, "Succeeded", containerStatuses=RESTARTED))
    reader.join()
    assert reader.lines == [*seen, "last words", "born again"]


class reading(threading.Thread):  # noqa: N801 (used as a function)
    """Collects lines in a thread."""

    def __init__(self, lines: Iterator[str]) -> None:
        super().__init__(daemon=True)
        self.lines: list[str] = []
        self._source = lines
        self.start()

    def run(self) -> None:
        for line in self._source:
            self.lines.append(line)

    def join(self, timeout: float | None = PATIENCE_SECONDS) -> None:
        super().join(timeout)
        assert not self.is_alive(), "it did not end"


def test_trouble_that_passes_is_mended_and_other_trouble_is_told(cluster: FakeCluster, api: Api) -> None:
    log_of(cluster, SUBMITTER).write("line")
    end(cluster)
    cluster.fault("error", path="/log", times=2, code=503)
    cluster.fault("drop", path="/log", times=1)
    told: list[str] = []
    assert list(pod_lines(api, SUBMITTER, tell=told.append, patience=HASTY)) == ["line"]
    assert len(told) == 1
    assert "trying again" in told[0]
    cluster.fault("error", path="/log", times=1000, code=503)
    with pytest.raises(ClusterError, match="503"):
        list(pod_lines(api, SUBMITTER, patience=HASTY))
    cluster.faults.clear()
    assert list(pod_lines(api, "gone", follow=False)) == []
    cluster.forbid("get", "pods/log")
    with pytest.raises(ForbiddenError, match="pods/log"):
        list(pod_lines(api, SUBMITTER, patience=HASTY))


def test_a_second_submitter_of_an_attempt_prints_all_again_and_only_what_is_new_is_shown(
    cluster: FakeCluster, api: Api
) -> None:
    first, second = log_of(cluster, SUBMITTER), log_of(cluster, f"{JOB}-zzzzz")
    first.write("Job submitted", "Next steps", *numbered(3))
    job = cluster.item("RayJob", JOB)
    assert job is not None
    reader = reading(launch_lines(api, job, patience=HASTY))
    wait_for(lambda: len(reader.lines) == 5)
    second.write("Job submission server address", *numbered(3), "same", "same", *numbered(2, 3))
    cluster.put(pod(f"{JOB}-zzzzz", age=10))
    cluster.put(pod(SUBMITTER, "Failed"))
    first.ended = True
    wait_for(lambda: len(reader.lines) == 10)
    cluster.put(rayjob("Complete", "SUCCEEDED"))
    end(cluster, f"{JOB}-zzzzz")
    reader.join()
    expected = ["Job submitted", "Next steps", *numbered(3), "Job submission server address", "same", "same"]
    assert reader.lines == [*expected, *numbered(2, 3)]


def test_a_retry_is_followed_too_and_the_log_ends_with_the_job(cluster: FakeCluster, api: Api) -> None:
    log_of(cluster, SUBMITTER).write("attempt 1")
    job = cluster.item("RayJob", JOB)
    assert job is not None
    told: list[str] = []
    reader = reading(launch_lines(api, job, tell=told.append, patience=HASTY))
    wait_for(lambda: reader.lines == ["attempt 1"])
    cluster.put(rayjob("Retrying", "FAILED", failed=1))
    cluster.remove("Pod", SUBMITTER)
    cluster.cut_streams()
    log_of(cluster, f"{JOB}-later").write("attempt 1")  # the same text, of another attempt: new
    again = pod(f"{JOB}-later", age=5)
    again["spec"]["containers"][0]["env"][0]["value"] = f"{JOB}-other"
    wait_for(lambda: "Waiting for the next attempt." in told)
    cluster.put(again)
    wait_for(lambda: reader.lines == ["attempt 1", "attempt 1"])
    cluster.put(rayjob("Complete", "SUCCEEDED"))
    end(cluster, f"{JOB}-later")
    reader.join()
    assert reader.lines == ["attempt 1", "attempt 1"]


def test_a_server_that_is_away_for_a_while_is_waited_for(cluster: FakeCluster, api: Api) -> None:
    log_of(cluster, SUBMITTER).write("before")
    job = cluster.item("RayJob", JOB)
    assert job is not None
    reader = reading(launch_lines(api, job, patience=Patience(0.01, 0.1, PATIENCE_SECONDS, 0.05)))
    wait_for(lambda: reader.lines == ["before"])
    cluster.stop()
    log_of(cluster, SUBMITTER).write("while away")
    time.sleep(0.2)
    cluster.start()
    wait_for(lambda: reader.lines == ["before", "while away"])
    cluster.put(rayjob("Complete", "SUCCEEDED"))
    end(cluster)
    reader.join()
    assert reader.lines == ["before", "while away"]


def test_a_server_that_does_not_know_the_roles_yet_ends_no_log(cluster: FakeCluster, api: Api) -> None:
    log = log_of(cluster, SUBMITTER)
    log.write("before")
    job = cluster.item("RayJob", JOB)
    assert job is not None
    reader = reading(launch_lines(api, job, patience=Patience(0.01, 0.1, 20, 0.05)))
    wait_for(lambda: reader.lines == ["before"])
    for path in ("/pods/[^/]+$", "/log", "rayjobs", "/pods$"):
        cluster.fault("refuse", code=403, message="is not allowed", path=path, times=2)
    cluster.cut_streams()
    wait_for(lambda: all(fault.times == 0 for fault in cluster.faults[:2]))
    log.write("after")
    wait_for(lambda: reader.lines == ["before", "after"])
    end(cluster)
    wait_for(lambda: all(fault.times == 0 for fault in cluster.faults))
    cluster.put(rayjob("Complete", "SUCCEEDED"))
    reader.join()
    assert reader.lines == ["before", "after"]


@pytest.mark.parametrize("said", ["is waiting to start: ContainerCreating", "is terminated", "is not available"])
def test_a_submitter_that_was_evicted_before_it_started_does_not_hide_the_next(
    said: str, cluster: FakeCluster, api: Api
) -> None:
    evicted, following = f"{JOB}-aaaaa", f"{JOB}-zzzzz"
    cluster.remove("Pod", SUBMITTER)
    cluster.put(pod(evicted, "Failed"))
    job = cluster.item("RayJob", JOB)
    assert job is not None
    message = f'container "ray-job-submitter" in pod "{evicted}" {said}'
    cluster.fault("refuse", code=400, message=message, path=f"{evicted}/log", times=1000)
    told: list[str] = []
    reader = reading(launch_lines(api, job, tell=told.append, patience=HASTY))
    wait_for(lambda: any(request.path.endswith(f"{evicted}/log") for request in cluster.requests))
    log_of(cluster, following).write("line")
    cluster.put(pod(following, age=100))
    wait_for(lambda: reader.lines == ["line"])
    end(cluster, following)
    cluster.put(rayjob("Complete", "SUCCEEDED"))
    reader.join()
    assert said in told[0]


def test_lines_of_several_pods_carry_their_names(cluster: FakeCluster, api: Api) -> None:
    for name in WORKERS:
        cluster.put(pod(name))
        log_of(cluster, name).write("Ray runtime started.")
    expected = [f"{name} | Ray runtime started." for name in WORKERS]
    assert list(merged_lines(api, list(WORKERS), follow=False)) == expected
    for name in WORKERS:
        end(cluster, name)
    assert sorted(merged_lines(api, list(WORKERS), follow=True)) == expected


def test_a_pod_that_its_node_has_not_heard_of_yet_is_waited_for(cluster: FakeCluster, api: Api) -> None:
    log_of(cluster, SUBMITTER).write("first")
    cluster.put(pod(SUBMITTER, "Pending"))
    cluster.fault("error", path="/log", times=2, code=404)
    told: list[str] = []
    reader = reading(pod_lines(api, SUBMITTER, tell=told.append, patience=HASTY))
    wait_for(lambda: reader.lines)
    end(cluster)
    reader.join()
    assert reader.lines == ["first"]
    assert told == [f"{SUBMITTER} has not started yet"]
    cluster.fault("error", path="/log", times=1, code=404)
    cluster.put(pod(SUBMITTER, "Pending"))
    with pytest.raises(ClusterError, match="no log yet"):
        list(pod_lines(api, SUBMITTER, follow=False))
    cluster.fault("error", path="/log", times=1000, code=404)
    cluster.put(pod(SUBMITTER))
    with pytest.raises(ClusterError, match="404"):
        list(pod_lines(api, SUBMITTER, patience=HASTY))


def test_who_may_not_look_at_pods_is_told_so_and_not_left_waiting_for_an_end(cluster: FakeCluster, api: Api) -> None:
    log_of(cluster, SUBMITTER).write("line")
    end(cluster)
    cluster.forbid("get", "pods")
    with pytest.raises(ForbiddenError, match="may not get pods"):
        list(pod_lines(api, SUBMITTER, patience=HASTY))
    assert list(pod_lines(api, SUBMITTER, follow=False)) == ["line"]


def test_what_the_node_says_of_a_log_is_told_once(cluster: FakeCluster, api: Api) -> None:
    said = "failed to create fsnotify watcher: too many open files"
    log = log_of(cluster, SUBMITTER)
    log.lines.append((said, "\n"))
    log.ended = True
    reader = reading(pod_lines(api, SUBMITTER, patience=HASTY))
    wait_for(lambda: log.opened > 3)
    end(cluster)
    reader.join()
    assert [line.strip() for line in reader.lines] == [said]


def test_of_several_containers_that_of_ray_is_read(cluster: FakeCluster, api: Api) -> None:
    meshed = pod(SUBMITTER)
    meshed["spec"]["containers"].insert(0, {"name": "istio-proxy"})
    cluster.put(meshed)
    log_of(cluster, SUBMITTER).write("12/63 runs")
    assert list(pod_lines(api, SUBMITTER, follow=False)) == ["12/63 runs"]
    assert cluster.requests[-1].query["container"] == "ray-job-submitter"
    assert last_progress(api, look(api, SWEEP)) == "12/63 runs"


def test_a_restart_before_the_first_look_is_none_to_tell_of(cluster: FakeCluster, api: Api) -> None:
    log = log_of(cluster, HEAD)
    cluster.put(pod(HEAD, containerStatuses=RESTARTED))
    log.restart("of long ago")
    log.write("born again")
    cluster.fault("error", path=f"/pods/{HEAD}", times=2, code=503)
    reader = reading(pod_lines(api, HEAD, patience=HASTY))
    wait_for(lambda: "born again" in reader.lines)
    log.ended = True
    cluster.put(pod(HEAD, "Succeeded", containerStatuses=RESTARTED))
    reader.join()
    assert reader.lines == ["born again"]


def test_a_log_that_breaks_off_is_no_reason_for_a_status_to_fail(cluster: FakeCluster, api: Api) -> None:
    log = log_of(cluster, SUBMITTER)
    log.write("12/63 runs ETA 3m 00s")
    log.cut_after.append(5)
    assert last_progress(api, look(api, SWEEP)) == ""


def test_the_end_of_a_submitter_is_not_taken_for_the_end_of_an_attempt(cluster: FakeCluster, api: Api) -> None:
    log_of(cluster, SUBMITTER).write("Stopped before the end: --max-gpu-hours 5.")
    assert last_progress(api, look(api, SWEEP)).startswith("Stopped before the end")
    end(cluster)
    job = cluster.item("RayJob", JOB)
    assert job is not None
    told: list[str] = []
    reader = reading(launch_lines(api, job, tell=told.append, patience=HASTY))
    looks = len(cluster.requests)
    wait_for(lambda: len(cluster.requests) > looks + 8)
    cluster.put(rayjob("Complete", "SUCCEEDED"))
    reader.join()
    assert told == []


def test_output_that_went_with_its_pod_is_told_to_be_gone(cluster: FakeCluster, api: Api) -> None:
    cluster.remove("Pod", SUBMITTER)
    cluster.put(rayjob("Complete", "SUCCEEDED"))
    job = cluster.item("RayJob", JOB)
    assert job is not None
    for follow in (True, False):
        told: list[str] = []
        assert list(launch_lines(api, job, follow=follow, tell=told.append, patience=HASTY)) == []
        assert "no output any more" in told[0]


@pytest.mark.parametrize("follow", [True, False])
def test_a_pod_that_says_nothing_does_not_keep_the_others_back(follow: bool, cluster: FakeCluster, api: Api) -> None:
    for name in WORKERS:
        cluster.put(pod(name))
        log_of(cluster, name).write("ready")
        end(cluster, name)
    cluster.fault("error", path=f"/{WORKERS[0]}/log", times=9, code=400)
    told: list[str] = []
    assert list(merged_lines(api, list(WORKERS), follow=follow, tell=told.append)) == [f"{WORKERS[1]} | ready"]
    assert told[0].startswith(f"{WORKERS[0]}: ")
    cluster.fault("error", path=f"/{WORKERS[1]}/log", times=9, code=400)
    with pytest.raises(ClusterError, match="on purpose"):
        list(merged_lines(api, list(WORKERS), follow=follow, tell=told.append))


def test_how_far_a_launch_is_is_read_from_its_last_lines(cluster: FakeCluster, api: Api) -> None:
    log_of(cluster, SUBMITTER).write("12/63 runs ETA 3m 00s", "some warning")
    assert last_progress(api, look(api, SWEEP)) == "12/63 runs ETA 3m 00s"
    cluster.forbid("get", "pods/log")
    assert last_progress(api, look(api, SWEEP)) == ""


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl, which keeps the server of the tests honest")
def test_kubectl_reads_the_same_log(tmp_path: Path) -> None:
    context, certificate = make_certificate(tmp_path)
    with FakeCluster(tls=context) as cluster:
        path = cluster.kubeconfig(tmp_path / "kubeconfig", **{"certificate-authority": str(certificate)})
        cluster.put(pod(SUBMITTER))
        log_of(cluster, SUBMITTER).write(*numbered(3))
        end(cluster)
        command = ["kubectl", "--kubeconfig", str(path), "--cache-dir", str(tmp_path), "logs", "-f", SUBMITTER]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS)
        assert done.stdout.splitlines() == list(pod_lines(connect(Connection(path)), SUBMITTER)) == numbered(3)
