"""What KubeRay refuses late is refused by us first: each row breaks one thing in a good RayJob, and expects words."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.k8s.names import label_problems, sweep_name_problems
from orchestrator.k8s.rendering.refusals import refusals
from tests.cluster_profiles import rayjob_of, rendered

Change = Callable[[dict[str, Any]], Any]
RULE = {"policy": "DeleteCluster", "condition": {"jobStatus": "FAILED", "ttlSeconds": 60}}


def spec_of(job: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = job["spec"]
    return spec


def cluster_of(job: dict[str, Any]) -> dict[str, Any]:
    cluster: dict[str, Any] = job["spec"]["rayClusterSpec"]
    return cluster


def head_of(job: dict[str, Any]) -> dict[str, Any]:
    head: dict[str, Any] = cluster_of(job)["headGroupSpec"]
    return head


def workers_of(job: dict[str, Any]) -> dict[str, Any]:
    workers: dict[str, Any] = cluster_of(job)["workerGroupSpecs"][0]
    return workers


def sets(place: Callable[[dict[str, Any]], dict[str, Any]], **values: Any) -> Change:
    return lambda job: place(job).update(values)


def drops(place: Callable[[dict[str, Any]], dict[str, Any]], name: str) -> Change:
    return lambda job: place(job).pop(name)


def head_variable(name: str, value: str) -> Change:
    def change(job: dict[str, Any]) -> None:
        head_of(job)["template"]["spec"]["containers"][0]["env"].append({"name": name, "value": value})

    return change


def both(*changes: Change) -> Change:
    def change(job: dict[str, Any]) -> None:
        for one in changes:
            one(job)

    return change


def metadata(**values: Any) -> Change:
    return sets(lambda job: job["metadata"], **values)


def spec(**values: Any) -> Change:
    return sets(spec_of, **values)


def cluster(**values: Any) -> Change:
    return sets(cluster_of, **values)


def workers(**values: Any) -> Change:
    return sets(workers_of, **values)


def rules(*given: dict[str, Any]) -> Change:
    return both(
        spec(deletionStrategy={"deletionRules": list(given)}),
        spec(shutdownAfterJobFinishes=False, ttlSecondsAfterFinished=0),
    )


def rule(policy: str, seconds: int, **state: str) -> dict[str, Any]:
    return {"policy": policy, "condition": {"ttlSeconds": seconds, **state}}


def queued(change: Change) -> Change:
    return both(lambda job: job["metadata"]["labels"].update({"kueue.x-k8s.io/queue-name": "q"}), change)


ROWS: dict[str, tuple[Change, str]] = {
    # metadata
    "a generated name": (both(drops(lambda job: job["metadata"], "name"), metadata(generateName="a-")), "generateName"),
    "a name of 48 characters": (metadata(name="a" * 48), "48 characters: KubeRay takes at most 47"),
    "a name that starts with a digit": (metadata(name="9a"), "'9a'.*start with a letter"),
    "capitals in a name": (metadata(name="Ab"), "a-z"),
    "a label with blanks": (metadata(labels={"a": "b c"}), "a='b c'"),
    "a label's key with two slashes": (metadata(labels={"a/b/c": "d"}), "'a/b/c'"),
    # submission
    "a submission mode with a typo": (spec(submissionMode="K8SJobMode"), "'K8SJobMode': KubeRay knows K8sJobMode"),
    "retries in interactive mode": (spec(submissionMode="InteractiveMode"), "backoffLimit cannot go with Interactive"),
    "a template in sidecar mode": (
        both(spec(submissionMode="SidecarMode"), drops(spec_of, "submitterConfig")),
        "submitterPodTemplate cannot go with SidecarMode",
    ),
    "a submitter's retries in sidecar mode": (
        both(spec(submissionMode="SidecarMode"), drops(spec_of, "submitterPodTemplate")),
        "submitterConfig cannot go with SidecarMode",
    ),
    "a head that restarts in sidecar mode": (
        both(
            spec(submissionMode="SidecarMode"),
            drops(spec_of, "submitterPodTemplate"),
            drops(spec_of, "submitterConfig"),
            sets(lambda job: head_of(job)["template"]["spec"], restartPolicy="Always"),
        ),
        "restartPolicy 'Always' of the head",
    ),
    "two commands": (spec(entrypoint="a; b"), "ends the command there at ';'"),
    "commands joined by &&": (spec(entrypoint="a && b"), "background at '&'"),
    "a pipe": (spec(entrypoint="a | b"), "pipes it at '|'"),
    "a variable": (spec(entrypoint="a $HOME"), "variable at '\\$'"),
    "backticks": (spec(entrypoint="a `b`"), "runs what it encloses"),
    "quotes": (spec(entrypoint="a 'b c'"), "takes quotes away"),
    "a redirection": (spec(entrypoint="a --cells ratio<10"), "reads from a file at '<'"),
    "a second line": (spec(entrypoint="a\nb"), "ends the command there at"),
    "an assignment": (spec(entrypoint="A=b c"), "starts with a variable"),
    "no entry point": (drops(spec_of, "entrypoint"), "it is empty"),
    "packages at run time": (spec(runtimeEnvYAML="pip: [x]"), "runtimeEnvYAML holds pip: only env_vars"),
    "a runtime environment that is no YAML": (spec(runtimeEnvYAML="a: [b"), "not valid YAML"),
    "a runtime environment that is a list": (spec(runtimeEnvYAML="- a"), "must be a mapping, not list"),
    "a number in env_vars": (spec(runtimeEnvYAML="env_vars: {A: 1}"), "quote numbers"),
    "a secret in env_vars": (spec(runtimeEnvYAML="env_vars: {WANDB_API_KEY: x}"), "holds WANDB_API_KEY.*secretKeyRef"),
    "a dollar in env_vars": (spec(runtimeEnvYAML="env_vars: {A: $HOME}"), "double quotes of bash"),
    # times
    "no time at all": (spec(activeDeadlineSeconds=0), "activeDeadlineSeconds 0: must be at least 1"),
    "no time to start": (spec(preRunningDeadlineSeconds=-5), "preRunningDeadlineSeconds -5"),
    "fewer than no retries": (spec(backoffLimit=-1), "backoffLimit -1"),
    "a negative time to live": (spec(ttlSecondsAfterFinished=-1), "ttlSecondsAfterFinished -1"),
    "a time to live without shutdown": (spec(shutdownAfterJobFinishes=False), "needs shutdownAfterJobFinishes"),
    # the two ways to clean up
    "both ways to clean up": (spec(deletionStrategy={"deletionRules": [RULE]}), "two ways to clean up"),
    "rules and policies": (
        both(rules(RULE), lambda job: spec_of(job)["deletionStrategy"].update(onSuccess={"policy": "DeleteSelf"})),
        "both deletionRules and onSuccess",
    ),
    "an empty strategy": (rules(), "deletionStrategy is empty"),
    "a policy for one end only": (
        both(rules(), spec(deletionStrategy={"onSuccess": {"policy": "DeleteSelf"}})),
        "one under onFailure",
    ),
    "a policy without content": (
        both(rules(), spec(deletionStrategy={"onSuccess": {"policy": "DeleteSelf"}, "onFailure": {}})),
        "a policy under onSuccess and one under onFailure",
    ),
    "a rule for two states": (
        rules(rule("DeleteSelf", 1, jobStatus="FAILED", jobDeploymentStatus="Failed")),
        "deletionRules.0: give one of",
    ),
    "a rule for no state": (rules(RULE, rule("DeleteSelf", 1)), "deletionRules.1: give one of"),
    "a rule before the end": (rules(rule("DeleteSelf", -1, jobStatus="FAILED")), "ttlSeconds -1"),
    "a rule twice": (rules(RULE, RULE), "deletionRules.1: there is a rule for DeleteCluster at jobStatus FAILED"),
    "the outside before the inside": (
        rules(RULE, rule("DeleteWorkers", 90, jobStatus="FAILED")),
        "DeleteCluster after 60 s would come before DeleteWorkers after 90 s",
    ),
    "workers deleted under an autoscaler": (
        both(rules(rule("DeleteWorkers", 1, jobStatus="FAILED")), cluster(enableInTreeAutoscaling=True)),
        "DeleteWorkers cannot go with autoscaling",
    ),
    "a borrowed cluster deleted": (
        both(rules(RULE), spec(clusterSelector={"ray.io/cluster": "c"}, backoffLimit=0)),
        "DeleteCluster cannot go with clusterSelector",
    ),
    # the submitter
    "a submitter without container": (
        sets(lambda job: spec_of(job)["submitterPodTemplate"]["spec"], containers=[]),
        "submitterPodTemplate has no container",
    ),
    "a submitter with a command": (
        sets(lambda job: spec_of(job)["submitterPodTemplate"]["spec"]["containers"][0], command=["a"]),
        "submitterPodTemplate has a command",
    ),
    "a submitter that always restarts": (
        sets(lambda job: spec_of(job)["submitterPodTemplate"]["spec"], restartPolicy="Always"),
        "restartPolicy 'Always': a Job takes",
    ),
    "a submitter with fewer than no retries": (spec(submitterConfig={"backoffLimit": -2}), "submitterConfig.*-2"),
    # clusters of others, and suspension
    "no cluster": (drops(spec_of, "rayClusterSpec"), "give rayClusterSpec"),
    "a selector that names none": (spec(clusterSelector={"a": "b"}, backoffLimit=0), "must name a cluster"),
    "retries on a borrowed cluster": (spec(clusterSelector={"ray.io/cluster": "c"}), "backoffLimit cannot go with"),
    "a borrowed cluster suspended": (
        spec(clusterSelector={"ray.io/cluster": "c"}, backoffLimit=0, suspend=True),
        "suspend cannot go with clusterSelector",
    ),
    "suspended without shutdown": (
        spec(suspend=True, shutdownAfterJobFinishes=False, ttlSecondsAfterFinished=0),
        "suspend needs shutdownAfterJobFinishes",
    ),
    # the cluster
    "a head without container": (
        sets(lambda job: head_of(job)["template"]["spec"], containers=[]),
        "the head group has no container",
    ),
    "workers without container": (
        sets(lambda job: workers_of(job)["template"]["spec"], containers=[]),
        "worker group 'workers' has no container",
    ),
    "resources twice": (sets(head_of, resources={"CPU": "1"}), "both in rayStartParams \\(num-cpus, num-gpus\\)"),
    "labels as a parameter": (
        sets(lambda job: workers_of(job)["rayStartParams"], labels="a=b"),
        "labels in rayStartParams",
    ),
    "a wrong label of a group": (workers(labels={"a": "-"}), "labels of worker group 'workers': a='-'"),
    "no least": (drops(workers_of, "minReplicas"), "must have minReplicas and maxReplicas"),
    "no most": (drops(workers_of, "maxReplicas"), "must have minReplicas and maxReplicas"),
    "a negative number": (workers(minReplicas=-1), "minReplicas -1 must be at least 0"),
    "more than most": (workers(minReplicas=3, maxReplicas=2, replicas=2), "minReplicas 3 is more than maxReplicas 2"),
    "a number outside": (workers(replicas=7), "replicas 7 is not from"),
    "suspended workers": (workers(suspend=True), "is suspended"),
    "idle time without its autoscaler": (workers(idleTimeoutSeconds=5), "idleTimeoutSeconds is for version 2"),
    "a negative idle time": (
        both(workers(idleTimeoutSeconds=-5), cluster(autoscalerOptions={"version": "v2"})),
        "idleTimeoutSeconds -5",
    ),
    "a priority without its autoscaler": (workers(priority=1), "priority is for version 2"),
    "a priority in an old Ray": (
        both(workers(priority=1), cluster(autoscalerOptions={"version": "v2"}, rayVersion="2.55.0")),
        "priority needs Ray 2.56",
    ),
    "no authentication": (drops(cluster_of, "authOptions"), "authOptions: {mode: token} is missing"),
    "authentication off": (cluster(authOptions={"mode": "disabled"}), "authOptions: {mode: token} is missing"),
    "tokens of Kubernetes": (
        cluster(authOptions={"mode": "token", "enableK8sTokenAuth": True}),
        "enableK8sTokenAuth is not for RayJobs",
    ),
    "no version of Ray": (drops(cluster_of, "rayVersion"), "rayVersion is missing"),
    "a version that is none": (cluster(rayVersion="latest"), "rayVersion 'latest' is no version"),
    "a version without tokens": (cluster(rayVersion="2.51.9"), "rayVersion 2.51.9: .* Ray 2.52 or newer"),
    "a token of one's own": (head_variable("RAY_AUTH_TOKEN", "x"), "the head group sets RAY_AUTH_TOKEN"),
    "authentication off by a variable": (head_variable("RAY_AUTH_MODE", "disabled"), "sets RAY_AUTH_MODE"),
    "a redis address": (head_variable("RAY_REDIS_ADDRESS", "redis:6379"), "RAY_REDIS_ADDRESS"),
    "a redis user": (head_variable("REDIS_USERNAME", "a"), "a user of Redis"),
    "a redis user as a parameter": (
        sets(lambda job: head_of(job)["rayStartParams"], **{"redis-username": "a"}),
        "a user of Redis",
    ),
    "fault tolerance of the head": (
        cluster(gcsFaultToleranceOptions={"redisAddress": "a"}),
        "does not resume training",
    ),
    "fault tolerance by annotation": (metadata(annotations={"ray.io/ft-enabled": "true"}), "does not resume training"),
    "the second autoscaler without autoscaling": (
        head_variable("RAY_enable_autoscaler_v2", "true"),
        "RAY_enable_autoscaler_v2=true without",
    ),
    "two versions of the autoscaler": (
        both(
            head_variable("RAY_enable_autoscaler_v2", "0"),
            cluster(enableInTreeAutoscaling=True, autoscalerOptions={"version": "v1"}),
        ),
        "are both set",
    ),
    "pods that restart under the second autoscaler": (
        both(
            sets(lambda job: workers_of(job)["template"]["spec"], restartPolicy="Always"),
            cluster(enableInTreeAutoscaling=True, autoscalerOptions={"version": "v2"}),
        ),
        "restartPolicy 'Always': version 2",
    ),
    "a negative idle time of the autoscaler": (
        cluster(autoscalerOptions={"idleTimeoutSeconds": -1}),
        "autoscalerOptions.idleTimeoutSeconds -1",
    ),
    "the autoscaler's command": (
        cluster(autoscalerOptions={"env": [{"name": "KUBERAY_GEN_AUTOSCALER_START_CMD", "value": "x"}]}),
        "in the place of KubeRay",
    ),
    "a network policy of the operator": (cluster(networkPolicy={}), "feature RayClusterNetworkPolicy"),
    "TLS of the operator": (cluster(tlsOptions={"enabled": True}), "feature RayClusterMTLS"),
    "a history server": (cluster(historyServerOptions={}), "feature RayClusterHistoryServer"),
    "a way to upgrade": (cluster(upgradeStrategy={"type": "Recreate"}), "upgradeStrategy cannot be set"),
    # Kueue
    "suspend beside Kueue": (queued(spec(suspend=False)), "suspend is Kueue's"),
    "no shutdown with Kueue": (
        queued(spec(shutdownAfterJobFinishes=False, ttlSecondsAfterFinished=0)),
        "Kueue needs shutdownAfterJobFinishes",
    ),
    "a borrowed cluster with Kueue": (
        queued(spec(clusterSelector={"ray.io/cluster": "c"}, backoffLimit=0)),
        "Kueue cannot admit",
    ),
    "autoscaling with Kueue": (queued(cluster(enableInTreeAutoscaling=True)), "Kueue admits a fixed number"),
    "eight groups with Kueue": (
        queued(lambda job: cluster_of(job).update(workerGroupSpecs=[workers_of(job)] * 8)),
        "at most 7 worker groups, not 8",
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_each_is_refused_alone_and_by_its_name(row: str) -> None:
    change, words = ROWS[row]
    broken = copy.deepcopy(rayjob_of(rendered()))
    assert refusals(broken) == []
    change(broken)
    found = refusals(broken)
    assert len(found) == 1, found
    assert re.search(words, found[0])


def test_all_are_told_at_once_also_of_a_manifest_with_hardly_anything_in_it() -> None:
    broken = copy.deepcopy(rayjob_of(rendered()))
    for name in ("a name of 48 characters", "a submission mode with a typo", "no least", "no authentication"):
        ROWS[name][0](broken)
    assert len(refusals(broken)) == 4
    assert len(refusals({})) == 3
    assert refusals({"metadata": {"name": "a"}, "spec": {"rayClusterSpec": {}, "entrypoint": "a"}})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("9-lives", "'sweep-9-lives'"),
        ("Digits_Grid", "'digits-grid'"),
        ("a" * 39, "39 characters: at most 38"),
        ("ends-", "'ends'"),
    ],
)
def test_names_that_cannot_be_are_told_with_one_that_can(name: str, words: str) -> None:
    (problem,) = sweep_name_problems(name)
    assert words in problem
    assert sweep_name_problems("digits-grid") == []


def test_labels_are_held_to_the_rules_of_kubernetes() -> None:
    good = {"a": "", "app.kubernetes.io/name": "A_b.c-1", "x" * 63: "y" * 63, f"{'a' * 60}.example.org/b": "c"}
    assert label_problems(good, "labels") == []
    bad = {"": "a", "-a": "b", "A.B/c": "d", "x" * 64: "e", "f": "y" * 64, "g": ".h", "/i": "j"}
    assert len(label_problems(bad, "labels")) == len(bad)
