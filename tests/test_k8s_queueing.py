"""Why a queue of Kueue does not let a launch start, in plain words."""

from __future__ import annotations

import pytest

from orchestrator.k8s.watching.causes import explain
from tests.cluster_scenes import (
    Item,
    picture,
    rayjob,
    stamp,
)


def workload(**conditions: tuple[str, str]) -> Item:
    listed = [
        {"type": name, "status": status, "message": text, "reason": "Preempted"}
        for name, (status, text) in conditions.items()
    ]
    return {"metadata": {"name": "rayjob-x"}, "status": {"conditions": listed}}


@pytest.mark.parametrize(
    ("made", "cause", "remedy"),
    [
        (
            workload(
                QuotaReserved=("False", "insufficient unused quota for nvidia.com/gpu in flavor h100, 8 more needed")
            ),
            "8 more needed",
            "workers.nodes",
        ),
        (
            workload(QuotaReserved=("False", "insufficient quota for cpu, request > maximum capacity (8 > 4)")),
            *("maximum capacity", "so much it never has"),
        ),
        (
            workload(
                QuotaReserved=(
                    "False",
                    "couldn't assign flavors to pod set head: resource ephemeral-storage unavailable in ClusterQueue",
                )
            ),
            *("ephemeral-storage unavailable", "its administrator adds that resource to coveredResources"),
        ),
        (
            workload(QuotaReserved=("False", "LocalQueue team-a doesn't exist")),
            "cannot admit it",
            "kubectl get localqueues",
        ),
        (workload(QuotaReserved=("False", "ClusterQueue gpus is inactive")), "takes nothing in", "administrator"),
        (workload(QuotaReserved=("False", ""), Evicted=("True", "for team b")), "had to leave", "goes on from storage"),
        (None, "Kueue has not taken it", "doctor"),
    ],
)
def test_a_job_in_a_queue_says_what_it_waits_for(made: Item | None, cause: str, remedy: str) -> None:
    job = rayjob("Suspended", queue="team-a")
    job["spec"]["suspend"] = True
    told = explain(picture(job, workload=made))
    assert (told.state, told.headline) == ("queued", "Queued for 5m 00s.")
    assert cause in told.cause
    assert remedy in told.remedy


def test_a_job_that_waits_for_a_check_says_which_and_one_that_was_given_up_how_to_bring_it_back() -> None:
    job = rayjob("Suspended", queue="team-a")
    job["spec"]["suspend"] = True
    checked = workload(QuotaReserved=("True", "Quota reserved in ClusterQueue gpus"))
    checked["status"]["admissionChecks"] = [
        {"name": "nodes", "state": "Pending", "message": "ProvisioningRequest is being worked on"},
        {"name": "other", "state": "Ready"},
    ]
    told = explain(picture(job, workload=checked))
    assert "waits for its checks: nodes (ProvisioningRequest is being worked on)" in told.cause
    given_up = workload(Evicted=("True", "The workload is deactivated"), QuotaReserved=("False", "evicted"))
    told = explain(picture(job, workload=given_up | {"spec": {"active": False}}))
    assert "has given it up: The workload is deactivated" in told.cause
    assert "kubectl patch workload rayjob-x" in told.remedy
    late = workload(Evicted=("True", "Exceeded the PodsReady timeout x"), QuotaReserved=("False", ""))
    late["status"]["conditions"][0] |= {"reason": "PodsReadyTimeout", "lastTransitionTime": stamp(60)}
    told = explain(picture(job, workload=late))
    assert told.headline == "Queued for 1m 00s."
    assert "Its pods were not ready in the time" in told.cause
    assert "for others" not in told.cause


def test_a_job_that_its_queue_has_admitted_was_suspended_by_nobody() -> None:
    job = rayjob("Suspended", queue="team-a", age=7200)
    job["spec"]["suspend"] = True
    told = explain(picture(job, workload=workload(Admitted=("True", "admitted"))))
    assert (told.state, told.cause, told.remedy) == ("starting", "", "")
    told = explain(picture(rayjob("Suspended", queue="team-a", age=7200)))
    assert told.state == "starting"
    resumed = rayjob("", queue="team-a", age=7200, startTime=stamp(7000))
    assert explain(picture(resumed)).state == "starting"
    assert explain(picture(rayjob("", startTime=None, age=7200))).state == "unattended"
