"""Why a launch or an attempt failed, in words, also where its pods are gone."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.k8s.watching.causes import explain
from orchestrator.k8s.watching.history import role_of
from tests.cluster_scenes import (
    CLUSTER,
    HEAD,
    JOB,
    SUBMITTER,
    WORKERS,
    Item,
    container,
    event,
    picture,
    pod,
    rayjob,
    stamp,
    unscheduled,
)

WORKER, OTHER = WORKERS


def waiting(reason: str, message: str, name: str = "ray-worker") -> list[Item]:
    return container(name, waiting={"reason": reason, "message": message})


def ended(code: int, reason: str = "Error", *, ago: float = 30, message: str = "") -> Item:
    return {"exitCode": code, "reason": reason, "finishedAt": stamp(ago), "message": message}


NO_GPU = (
    "0/5 nodes are available: 2 Insufficient nvidia.com/gpu, 3 node(s) had untolerated taint {dedicated: ml}. "
    "preemption: 0/5 nodes are available: 5 Preemption is not helpful for scheduling."
)


def of_cluster(reason: str, message: str, ago: float = 60) -> Item:
    return event(reason, message, CLUSTER, "RayCluster", ago=ago)


def failed(reason: str, message: str = "", *pods: Item, events: tuple[Item, ...] = (), **status: Any) -> Any:
    job = rayjob(
        "Failed", status.pop("job", "FAILED"), reason=reason, message=message, failed=3, endTime=stamp(0), **status
    )
    return explain(picture(job, *pods, events=events))


DRIVER = "Job entrypoint command failed with exit code {code}, last available logs (truncated to 20,000 chars):\n{log}"
GONE = (
    "Deleted {role} Pod default/x; Pod status: Running; Pod restart policy: Never; Ray container terminated status: "
    "&ContainerStateTerminated{{ExitCode:137,Signal:0,Reason:OOMKilled,Message:,StartedAt:x,FinishedAt:y,}}"
)
MISSING = event("Failed", 'Error: secret "wandb" not found', WORKER, ago=60)
PULLED = event("Pulled", "Container image already present on machine", WORKER, ago=60)
NO_DRIVER = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
    "unable to start container process: error during container init: error running hook #0: exit status 1, stdout: , "
    "stderr: nvidia-container-cli: initialization error: nvml error: driver not loaded: unknown"
)
NODE_OF_HEAD_GONE = event("TaintManagerEviction", "Marking for deletion Pod", HEAD)
HEAD_GONE = of_cluster("DeletedHeadPod", GONE.format(role="head"))


@pytest.mark.parametrize(
    ("told", "parts", "remedy"),
    [
        (
            failed("DeadlineExceeded"),
            ["ran longer than active_deadline (7d 00h)", "attempt 3 of 3"],
            "raise active_deadline",
        ),
        (
            failed("PreRunningDeadlineExceeded", job=""),
            ["did not start within pre_running_deadline (2h 00m)"],
            "pre_running_deadline",
        ),
        (
            failed("PreRunningDeadlineExceeded", "", unscheduled(WORKER, NO_GPU), job=""),
            *(["did not start", "too few free GPUs"], "workers.gpus"),
        ),
        (
            failed("PreRunningDeadlineExceeded", "", job="", events=(event("FailedScheduling", NO_GPU, WORKER),)),
            *(["did not start", "No node took the worker", "free GPUs"], "workers.gpus"),
        ),
        (
            failed("AppFailed", DRIVER.format(code=4, log="1/63 runs\nError: storage /results cannot be written\n")),
            *(["exit code 4", "storage /results cannot be written"], "mend what it says"),
        ),
        (
            failed("AppFailed", DRIVER.format(code=1, log="Traceback (most recent call last):\nKeyError: 'x'")),
            ["the launch failed (exit code 1)", "KeyError: 'x'"],
            "k8s logs",
        ),
        (
            failed("PreRunningDeadlineExceeded", job="", events=(PULLED, MISSING)),
            ["did not start", "The worker needs the secret 'wandb', which is not there"],
            "wandb",
        ),
        (
            failed("PreRunningDeadlineExceeded", job="", events=(MISSING, PULLED)),
            ["The worker needs the secret 'wandb', which is not there"],
            "wandb",
        ),
        (
            failed("PreRunningDeadlineExceeded", job="", events=(event("Failed", f"Error: {NO_DRIVER}", WORKER),)),
            ["The worker cannot be started: nvml error: driver not loaded"],
            "describe pod",
        ),
        (
            failed("JobStatusCheckTimeoutExceeded", "failing", events=(NODE_OF_HEAD_GONE,)),
            ["The node of the head went away"],
            "launch again with the same command: it goes on from storage; the head belongs",
        ),
        (
            failed("AppFailed", DRIVER.format(code=77, log="x\nSegmentation fault")),
            ["exit code 77", "Segmentation"],
            "k8s logs",
        ),
        (
            failed("AppFailed", DRIVER.format(code=-9, log="12/63 runs"), events=(HEAD_GONE,)),
            *(["was killed", "head used more memory"], "head.memory"),
        ),
        (
            failed("AppFailed", "Submitter completed but Ray job not found in RayCluster.", events=(HEAD_GONE,)),
            *(["the head with the launch on it was lost", "more memory"], "head.memory"),
        ),
        (failed("AppFailed", "The actor died unexpectedly"), ["was lost", "died unexpectedly"], "goes on from storage"),
        (
            failed("SubmissionFailed", "Job submission has failed. Reason: BackoffLimitExceeded.", job=""),
            *(["could not be handed to Ray", "BackoffLimitExceeded"], "--node submitter"),
        ),
        (
            failed(
                "SubmissionFailed",
                "",
                pod(SUBMITTER, "Pending", containerStatuses=waiting("ErrImagePull", "denied")),
                job="",
            ),
            *(["could not be handed to Ray", "does not let us in"], "image_pull_secrets"),
        ),
        (
            failed("JobStatusCheckTimeoutExceeded", "failing since 10:00", events=(HEAD_GONE,)),
            *(["has not answered the operator", "more memory"], "head.memory"),
        ),
        (failed("JobStatusCheckTimeoutExceeded", "failing since 10:00"), ["failing since"], "NetworkPolicy"),
        (
            failed("JobDeploymentStatusTransitionGracePeriodExceeded", "within 30s"),
            ["do not agree"],
            "goes on from storage",
        ),
        (failed("Newcomer", "who knows"), ["Newcomer", "who knows"], "goes on from storage"),
        (
            explain(picture(rayjob("ValidationFailed", reason="ValidationFailed", message="name is too long"))),
            *(["KubeRay refuses the RayJob", "name is too long"], "k8s delete digits-grid"),
        ),
    ],
)
def test_a_failure_is_told_in_words_with_what_lies_behind_it(told: Any, parts: list[str], remedy: str) -> None:
    assert told.state == "failed"
    for part in parts:
        assert part in f"{told.headline} {told.cause}"
    assert remedy in told.remedy


def test_evidence_of_an_attempt_survives_its_pods() -> None:
    lost = event("TaintManagerEviction", "Marking for deletion Pod", HEAD, ago=500)
    for job in (rayjob("Retrying", "", failed=1, age=900), rayjob("", "", failed=1, startTime=stamp(900))):
        told = explain(picture(job, events=(lost,)))
        assert told.state == "retrying"
        assert "attempt 1 of 3 failed" in told.headline
        assert "node of the head went away" in told.cause
    told = explain(picture(rayjob("Running", "RUNNING", failed=1), pod(), events=(lost,)))
    assert (told.state, told.cause) == ("running", "")
    assert "attempt 2 of 3" in told.headline
    assert "An attempt before: the node of the head went away" in told.details[0]


def test_of_an_attempt_that_failed_nothing_is_told_that_happened_to_one_before() -> None:
    lost = event("TaintManagerEviction", "Marking for deletion Pod", HEAD, ago=900)
    assert explain(picture(rayjob("Retrying", "", failed=2, age=500), events=(lost,))).cause == ""
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreateWorkerPod", "message": "no room"}
    made = {"metadata": {"name": CLUSTER}, "status": {"conditions": [condition]}}
    told = explain(picture(rayjob("Initializing", failed=1), pod(), cluster=made))
    assert "no room" in told.cause
    assert told.details == ()


def test_while_the_operator_still_says_why_it_retries_that_is_told() -> None:
    message = DRIVER.format(code=4, log="Error: the storage is full")
    told = explain(picture(rayjob("Retrying", "FAILED", failed=1, reason="AppFailed", message=message)))
    assert (told.state, told.cause) == ("retrying", "The storage is full")


def test_what_healed_is_no_cause() -> None:
    tried = event("FailedScheduling", NO_GPU, WORKER, ago=200)
    found = event("Scheduled", "Successfully assigned", WORKER, ago=100)
    told = failed("PreRunningDeadlineExceeded", job="", events=(tried, found))
    assert told.cause == ""
    old = pod(WORKER, containerStatuses=container(running={}, last=ended(137, "OOMKilled", ago=3600)))
    assert explain(picture(rayjob("Running", "RUNNING"), pod(), old)).cause == ""
    leaving = pod(WORKER, "Failed", reason="Evicted")
    leaving["metadata"]["deletionTimestamp"] = stamp(3)
    assert explain(picture(rayjob("Running", "RUNNING"), pod(), leaving)).cause == ""


def test_a_node_that_came_back_in_time_took_nothing_away() -> None:
    told = failed("AppFailed", "x", events=(event("TaintManagerEviction", "Cancelling deletion of Pod x", HEAD),))
    assert "went away" not in told.cause


def test_the_role_of_a_pod_that_is_gone_is_read_behind_the_name_of_its_job() -> None:
    job = "my-worker-grid-0a1b2c3d"
    names = (f"{job}-q9m4w", f"{job}-x7k2p-head-5gt8z", f"{job}-x7k2p-head", f"{job}-x7k2p-workers-worker-aa1")
    assert [role_of(name, job) for name in names] == ["submitter", "head", "head", "worker"]


def test_pods_of_an_earlier_attempt_do_not_count() -> None:
    old = pod(f"{JOB}-zzzzz-head-1", "Failed", cluster=f"{JOB}-zzzzz", reason="Evicted", message="disk")
    assert explain(picture(rayjob(), old)).cause == ""


def test_an_event_of_the_new_api_counts_by_when_it_was_seen_last() -> None:
    new = {
        "metadata": {"name": "x", "creationTimestamp": stamp(3000)},
        "regarding": {"kind": "Pod", "name": WORKER},
        "reason": "FailedScheduling",
        "note": NO_GPU,
        "type": "Warning",
        "eventTime": stamp(3000).replace("Z", ".123456Z"),
        "series": {"count": 9, "lastObservedTime": stamp(10).replace("Z", ".000001Z")},
    }
    told = failed("PreRunningDeadlineExceeded", job="", events=(new,))
    assert "free GPUs" in told.cause
