"""From what a cluster shows to one cause in plain words, and what to do about it."""

from __future__ import annotations

import itertools

import pytest

from orchestrator.k8s.watching.causes import explain
from orchestrator.k8s.watching.observed import Picture
from orchestrator.k8s.watching.unschedulable import obstacles
from tests.cluster_scenes import (
    CLUSTER,
    HEAD,
    JOB,
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


def pulling(message: str, reason: str = "ImagePullBackOff") -> Item:
    return pod(WORKER, "Pending", containerStatuses=waiting(reason, message))


def ended(code: int, reason: str = "Error", *, ago: float = 30, message: str = "") -> Item:
    return {"exitCode": code, "reason": reason, "finishedAt": stamp(ago), "message": message}


OUT_OF_MEMORY = pod(WORKER, containerStatuses=container(running={}, last=ended(137, "OOMKilled")))
NO_GPU = (
    "0/5 nodes are available: 2 Insufficient nvidia.com/gpu, 3 node(s) had untolerated taint {dedicated: ml}. "
    "preemption: 0/5 nodes are available: 5 Preemption is not helpful for scheduling."
)
MISSING_SECRET = pod(
    WORKER, "Pending", containerStatuses=waiting("CreateContainerConfigError", 'secret "wandb" not found')
)
WAITS_FOR_HEAD = pod(
    OTHER, "Pending", initContainerStatuses=container("wait-gcs-ready", running={"startedAt": stamp(400)})
)
READY_HEAD = pod(HEAD)
BACK_OFF = {"reason": "CrashLoopBackOff"}
NO_BASH = (
    "failed to create containerd task: OCI runtime create failed: runc create failed: unable to start container "
    'process: exec: "/bin/bash": stat /bin/bash: no such file or directory: unknown'
)


@pytest.mark.parametrize(
    ("shown", "state", "parts", "remedy"),
    [
        (picture(rayjob("", age=5)), "starting", ["not looked at it yet"], ""),
        (picture(rayjob("", age=90)), "unattended", ["1m 30s", "KubeRay's operator does not run"], "k8s doctor"),
        (picture(rayjob()), "starting", ["the operator makes the Ray cluster", "5m 00s", "attempt 1 of 3"], ""),
        (picture(rayjob(), pod(HEAD, "Pending")), "starting", ["the head starts", "0 of 2 workers"], ""),
        (picture(rayjob(), READY_HEAD, pod(WORKER)), "starting", ["the head is ready", "1 of 2 workers ready"], ""),
        (picture(rayjob("Running")), "starting", ["handed to Ray"], ""),
        (picture(rayjob("Running", "RUNNING"), pod(), pod(WORKER), pod(OTHER)), "running", ["2 of 2 workers"], ""),
        (picture(rayjob("Running", "SUCCEEDED")), "running", ["Ending", "succeeded"], ""),
        (picture(rayjob("Complete", "SUCCEEDED", endTime=stamp(60))), "done", ["Done after 4m 00s"], ""),
        (picture(rayjob("Complete", "STOPPED")), "stopped", ["has been saved"], "launch again"),
        (picture(rayjob("Suspended")), "queued", ["someone set spec.suspend"], "kubectl patch rayjob"),
        (picture(None), "deleted", ["results stay"], ""),
        (
            picture(rayjob() | {"metadata": rayjob()["metadata"] | {"deletionTimestamp": stamp(9)}}),
            *("deleting", ["since 9s"], ""),
        ),
    ],
)
def test_each_state_has_its_headline(shown: Picture, state: str, parts: list[str], remedy: str) -> None:
    told = explain(shown)
    assert told.state == state
    for part in parts:
        assert part in f"{told.headline} {told.cause}"
    assert remedy in told.remedy
    assert bool(told.remedy) == bool(remedy)


PODS_IN_TROUBLE: list[tuple[str, Item, list[Item], list[str], str]] = [
    (
        "not in the registry",
        pulling("", "ErrImagePull"),
        [
            event(
                "Failed",
                'Failed to pull image "x": rpc error: code = NotFound desc = manifest unknown: not found',
                WORKER,
            )
        ],
        ["registry does not have it"],
        "make image",
    ),
    ("unauthorised", pulling("ErrImagePull: 401 Unauthorized"), [], ["does not let us in"], "image_pull_secrets"),
    ("wrong processor", pulling("no match for platform in manifest"), [], ["processor"], "linux/amd64"),
    ("rate limit", pulling("429 toomanyrequests: You have reached"), [], ["limits pulls"], "registry of your own"),
    ("malformed", pulling("couldn't parse image", "InvalidImageName"), [], ["malformed"], "`image`"),
    ("no registry", pulling("dial tcp: lookup r: no such host"), [], ["does not reach"], "network"),
    ("another pull", pulling("something: quite new"), [], ["quite new"], "kubectl describe pod"),
    (
        "no GPUs",
        unscheduled(WORKER, NO_GPU),
        [],
        ["2 of 5 nodes have too few free GPUs", "dedicated=ml"],
        "workers.gpus",
    ),
    ("taint too", unscheduled(WORKER, NO_GPU), [], [], "add {key: dedicated, value: ml} to workers.tolerations"),
    (
        "memory of the head",
        unscheduled(HEAD, "0/1 nodes are available: 1 Insufficient memory."),
        [],
        ["o node takes the head", "too little free memory"],
        "head.memory",
    ),
    (
        "labels",
        unscheduled(WORKER, "0/4 nodes are available: 4 node(s) didn't match Pod's node affinity/selector."),
        [],
        ["4 of 4 nodes lack the labels"],
        "workers.gpu_product",
    ),
    (
        "taint without a value",
        unscheduled(WORKER, "0/2 nodes are available: 2 node(s) had untolerated taint {gpu: }."),
        [],
        ["the taint gpu,"],
        "{key: gpu, operator: Exists}",
    ),
    (
        "unbound claim",
        unscheduled(WORKER, "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims."),
        [],
        ["not bound"],
        "results.storage_class",
    ),
    (
        "no claim",
        unscheduled(WORKER, '0/3 nodes are available: persistentvolumeclaim "imagenet" not found.'),
        [],
        ["'imagenet' is not there"],
        "data.claim",
    ),
    (
        "GPU nodes for the head",
        unscheduled(HEAD, "0/3 nodes are available: 3 node(s) had untolerated taint {nvidia.com/gpu: present}."),
        [],
        ["3 of 3 nodes are kept for pods with GPUs"],
        "the head belongs on a node without GPUs",
    ),
    (
        "taint and head",
        unscheduled(HEAD, "0/3 nodes are available: 3 node(s) had untolerated taint {dedicated: ml}."),
        [],
        ["which it does not tolerate"],
        "to head.tolerations",
    ),
    ("full nodes", unscheduled(WORKER, "0/3 nodes are available: 3 Too many pods."), [], ["as many pods"], "wait"),
    (
        "spread",
        unscheduled(WORKER, "0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules."),
        [],
        ["hold a pod of this sweep already"],
        "workers.nodes",
    ),
    (
        "cordoned",
        unscheduled(WORKER, "0/2 nodes are available: 2 node(s) were unschedulable."),
        [],
        ["cordoned"],
        "kubectl get nodes",
    ),
    ("strange scheduler", unscheduled(WORKER, "it is complicated"), [], ["it is complicated"], "describe pod"),
    (
        "autoscaler",
        unscheduled(WORKER, NO_GPU),
        [event("TriggeredScaleUp", "pod triggered scale-up: [{gpu-pool 0->1}]", WORKER, ago=120)],
        ["autoscaler makes a node", "2m 00s ago"],
        "wait",
    ),
    (
        "autoscaler fails",
        unscheduled(WORKER, NO_GPU),
        [event("FailedScaleUp", "out of quota in zone b", WORKER)],
        ["could not make a node", "out of quota"],
        "cloud quota",
    ),
    (
        "autoscaler refuses",
        unscheduled(WORKER, NO_GPU),
        [event("NotTriggerScaleUp", "pod didn't trigger scale-up: 1 node(s) had taint", WORKER)],
        ["too few free GPUs"],
        "workers.gpus",
    ),
    ("no secret", MISSING_SECRET, [], ["the secret 'wandb', which is not there"], "wandb"),
    (
        "no key",
        pod(
            WORKER,
            "Pending",
            containerStatuses=waiting("CreateContainerConfigError", "couldn't find key token in Secret default/wandb"),
        ),
        [],
        ["the key 'token' of the secret 'wandb'"],
        "wandb.key",
    ),
    (
        "root",
        pod(
            WORKER,
            "Pending",
            containerStatuses=waiting(
                "CreateContainerConfigError", "container has runAsNonRoot and image will run as root"
            ),
        ),
        [],
        ["would run as root"],
        "make image",
    ),
    (
        "no bash",
        pod(
            WORKER,
            containerStatuses=waiting(
                "RunContainerError", 'exec: "/bin/bash": stat /bin/bash: no such file or directory'
            ),
        ),
        [],
        ["lacks what it is to run"],
        "bash",
    ),
    (
        "mount",
        pod(WORKER, "Pending"),
        [event("FailedMount", 'MountVolume.SetUp failed for volume "data": mount failed: exit status 32', WORKER)],
        ["cannot be mounted", "exit status 32"],
        "kubectl describe pvc",
    ),
    (
        "attach",
        pod(WORKER, "Pending"),
        [event("FailedAttachVolume", 'Multi-Attach error for volume "pvc-1" Volume is already used by pod(s)', WORKER)],
        ["one node only"],
        "ReadWriteMany",
    ),
    (
        "host path",
        pod(WORKER, "Pending"),
        [event("FailedMount", "hostPath type check failed: /data is not a directory", WORKER)],
        ["data.host_path is not on the node"],
        "workers.node_selector",
    ),
    (
        "network of the node",
        pod(WORKER, "Pending"),
        [event("FailedCreatePodSandBox", "Failed to create pod sandbox: plugin type=cni failed", WORKER)],
        ["cannot set up the network"],
        "administrator",
    ),
    ("memory", OUT_OF_MEMORY, [], ["more memory than its limit (16Gi)"], "workers.memory"),
    (
        "crash loop",
        pod(
            WORKER,
            conditions=[{"type": "Ready", "status": "False"}],
            containerStatuses=container(
                waiting={"reason": "CrashLoopBackOff"}, last=ended(1, message="a\nno such flag\n")
            ),
        ),
        [],
        ["ended with exit code 1: no such flag"],
        "k8s logs digits-grid --node worker",
    ),
    (
        "segmentation fault",
        pod(WORKER, containerStatuses=container(terminated=ended(139))),
        [],
        ["crashed (SIGSEGV)"],
        "k8s logs",
    ),
    (
        "evicted for disk",
        pod(WORKER, "Failed", reason="Evicted", message='Usage of EmptyDir volume "tmp" exceeds the limit "20Gi". '),
        [],
        ["more local disk"],
        "workers.scratch",
    ),
    (
        "evicted for memory",
        pod(HEAD, "Failed", reason="Evicted", message="The node was low on resource: memory."),
        [],
        ["node of the head ran low on memory"],
        "head.memory",
    ),
    (
        "preempted",
        pod(
            WORKER,
            "Failed",
            conditions=[{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}],
        ),
        [],
        ["pod of higher priority"],
        "priority_class",
    ),
    (
        "spot node gone",
        pod(
            WORKER, "Failed", reason="NodeShutdown", message="Pod was terminated in response to imminent node shutdown."
        ),
        [],
        ["node of the worker went away"],
        "runs go on from their checkpoints",
    ),
    (
        "rate limit that speaks of rights",
        pulling("429 Too Many Requests - toomanyrequests: You have reached your unauthorized pull rate limit"),
        [],
        ["limits pulls"],
        "registry of your own",
    ),
    (
        "a hidden repository",
        pulling("pull access denied, repository does not exist or may require authorization: server message"),
        [],
        ["does not have it, or does not let us in"],
        "pull secret",
    ),
    ("a slow registry", pulling("dial tcp 10.0.0.1:443: connect: no route to host"), [], ["does not reach"], "network"),
    (
        "a strange wait",
        pod(WORKER, "Pending", containerStatuses=waiting("Newcomer", "why")),
        [],
        ["Newcomer (why)"],
        "",
    ),
    (
        "no bash, as containerd tells it",
        pod(WORKER, containerStatuses=container(terminated=ended(128, "StartError", message=NO_BASH))),
        [],
        ["lacks what it is to run: stat /bin/bash: no such file or directory"],
        "make image",
    ),
    (
        "killed",
        pod(WORKER, containerStatuses=container(terminated=ended(137))),
        [],
        ["The container 'ray-worker' of the worker was killed (SIGKILL)"],
        "k8s logs",
    ),
    (
        "a node that started anew",
        pod(WORKER, containerStatuses=container(terminated=ended(137, "ContainerStatusUnknown", message="located"))),
        [],
        ["The node of the worker lost its container"],
        "new pod takes over",
    ),
    (
        "an init container that fails",
        pod(
            WORKER,
            "Pending",
            initContainerStatuses=container("wait-gcs-ready", waiting=BACK_OFF, last=ended(1)),
            containerStatuses=waiting("PodInitializing", ""),
        ),
        [],
        ["The container 'wait-gcs-ready' of the worker ended with exit code 1"],
        "kubectl logs -l app.kubernetes.io/instance=digits-grid,ray.io/node-type=worker -c wait-gcs-ready",
    ),
    (
        "node low on disk",
        pod(WORKER, "Failed", reason="Evicted", message="The node had condition: [DiskPressure]. "),
        [],
        ["The node of the worker ran low on local disk"],
        "workers.scratch",
    ),
    (
        "shared memory",
        pod(WORKER, "Failed", reason="Evicted", message='Usage of EmptyDir volume "shared-memory" exceeds the limit'),
        [],
        ["more shared memory"],
        "workers.shared_memory",
    ),
    (
        "drained",
        pod(
            WORKER,
            conditions=[{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}],
        ),
        [],
        ["asked to leave its node"],
        "new pod takes over",
    ),
    (
        "refused by its node",
        pod(WORKER, "Failed", reason="UnexpectedAdmissionError", message="Allocate failed due to no healthy devices."),
        [],
        ["The node that was chosen refused the worker (Allocate failed due to no healthy devices)"],
        "plugin of its GPUs",
    ),
    (
        "no room on its node after all",
        pod(WORKER, "Failed", reason="OutOfnvidia.com/gpu", message="", containerStatuses=None),
        [],
        ["refused the worker (OutOfnvidia.com/gpu)"],
        "new pod takes over",
    ),
    (
        "failed for a new reason",
        pod(WORKER, "Failed", reason="Newcomer", message="who knows", containerStatuses=None),
        [],
        ["The worker failed (Newcomer: who knows)"],
        "describe pod",
    ),
    ("unknown to its node", pod(WORKER, "Unknown"), [], ["The node of the worker does not answer"], "node-1"),
    (
        "a silent node",
        pod(WORKER, conditions=[{"type": "Ready", "status": "False", "lastTransitionTime": stamp(40)}]),
        [event("NodeNotReady", "Node is not ready", WORKER, ago=41)],
        ["The node of the worker does not answer"],
        "kubectl describe node node-1",
    ),
    (
        "gated",
        pod(
            WORKER,
            "Pending",
            conditions=[
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "SchedulingGated",
                    "message": "Scheduling is blocked due to non-empty scheduling gates",
                }
            ],
        ),
        [],
        ["waits for its admission by Kueue"],
        "workloads",
    ),
    (
        "others make room",
        unscheduled(WORKER, NO_GPU) | {"status": unscheduled(WORKER, NO_GPU)["status"] | {"nominatedNodeName": "n"}},
        [],
        ["Pods of lower priority leave a node to make room"],
        "wait",
    ),
    (
        "unbound claim, and why",
        unscheduled(WORKER, "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims."),
        [event("FailedBinding", "no storage class is set", "results", "PersistentVolumeClaim")],
        ["not bound to a volume (results: no storage class is set)"],
        "results.storage_class",
    ),
    (
        "probe",
        pod(HEAD, conditions=[{"type": "Ready", "status": "False"}]),
        [event("Unhealthy", "Readiness probe failed: timeout", HEAD, count=7)],
        ["does not answer its health check (7 times)"],
        "--node head",
    ),
]


@pytest.mark.parametrize(
    ("broken", "events", "parts", "remedy"),
    [case[1:] for case in PODS_IN_TROUBLE],
    ids=[case[0] for case in PODS_IN_TROUBLE],
)
def test_a_pod_in_trouble_is_explained_with_a_remedy(
    broken: Item, events: list[Item], parts: list[str], remedy: str
) -> None:
    told = explain(picture(rayjob(), broken, events=tuple(events)))
    for part in parts:
        assert part in told.cause
    assert remedy in told.remedy
    assert "{role}" not in told.cause + told.remedy


def test_a_worker_that_does_not_reach_a_ready_head_is_told_but_one_that_waits_for_it_is_not() -> None:
    told = explain(picture(rayjob(), READY_HEAD, WAITS_FOR_HEAD))
    assert told.state == "starting"
    assert "does not reach the head" in told.cause
    assert "NetworkPolicy" in told.remedy
    assert explain(picture(rayjob(), pod(HEAD, "Pending"), WAITS_FOR_HEAD)).cause == ""
    fresh = pod(OTHER, "Pending", initContainerStatuses=container("wait-gcs-ready", running={"startedAt": stamp(20)}))
    assert explain(picture(rayjob(), READY_HEAD, fresh)).cause == ""


def test_nobody_is_in_trouble_because_ray_has_just_started() -> None:
    since = [
        {"type": "PodScheduled", "status": "True"},
        {"type": "Ready", "status": "True", "lastTransitionTime": stamp(10)},
    ]
    assert explain(picture(rayjob(), pod(HEAD, conditions=since), WAITS_FOR_HEAD)).cause == ""
    unhealthy = event("Unhealthy", "Readiness probe failed", HEAD, count=7)
    unready: Item = {"conditions": [{"type": "Ready", "status": "False"}]}
    for ago, cause in ((20, False), (400, True)):
        started = container("ray-head", running={"startedAt": stamp(ago)})
        told = explain(picture(rayjob(), pod(HEAD, containerStatuses=started, **unready), events=(unhealthy,)))
        assert bool(told.cause) is cause


def test_an_image_that_is_being_pulled_is_a_state_of_its_own() -> None:
    pulls = event("Pulling", "Pulling image", HEAD, ago=40)
    assert explain(picture(rayjob(), pod(HEAD, "Pending"), events=(pulls,))).state == "pulling"
    pulled = event("Pulled", "Successfully pulled image", HEAD, ago=20)
    assert explain(picture(rayjob(), pod(HEAD, "Pending"), events=(pulls, pulled))).state == "starting"


QUOTA = (
    'Failed to create worker Pod for the cluster default/x, pods "x-workers-worker-" is forbidden: exceeded quota: '
    "gpus, requested: requests.nvidia.com/gpu=8, used: requests.nvidia.com/gpu=8, limited: requests.nvidia.com/gpu=8"
)
POD_SECURITY = (
    'Failed to create head Pod default/x, pods "x-head-" is forbidden: violates PodSecurity "restricted:latest": '
    'hostPath volumes (volume "data")'
)


def of_cluster(reason: str, message: str, ago: float = 60) -> Item:
    return event(reason, message, CLUSTER, "RayCluster", ago=ago)


@pytest.mark.parametrize(
    ("told_by", "parts", "remedy"),
    [
        (of_cluster("FailedToCreateWorkerPod", QUOTA), ["quota 'gpus'", "asked requests.nvidia.com/gpu=8"], "raised"),
        (of_cluster("FailedToCreateHeadPod", POD_SECURITY), ["level restricted forbids", "hostPath"], "data.host_path"),
        (
            of_cluster(
                "FailedToCreateHeadPod",
                'error looking up service account default/bo-sweep: serviceaccount "bo-sweep" not found',
            ),
            *(["service account 'bo-sweep' is not there"], "--only setup"),
        ),
        (
            of_cluster("FailedToCreateHeadPod", "pods is forbidden: no PriorityClass with name urgent was found"),
            *(["no priority class 'urgent'"], "priority_class"),
        ),
        (
            of_cluster(
                "FailedToCreateHeadPod", 'admission webhook "policy.example.org" denied the request: team label missing'
            ),
            *(["policy.example.org", "team label missing"], "as it says"),
        ),
        (
            of_cluster(
                "FailedToCreateHeadPod",
                'Internal error occurred: failed calling webhook "policy.example.org": failed to call webhook: timeout',
            ),
            *(["policy.example.org", "does not answer", "timeout"], "wait"),
        ),
        (
            of_cluster(
                "FailedToCreateHeadPod",
                "pods \"x\" is forbidden: ValidatingAdmissionPolicy 'team' with binding 'b' denied request: no label",
            ),
            *(["policy 'team' refuses", "no label"], "as it says"),
        ),
        (
            of_cluster(
                "FailedToCreateWorkerPod",
                'pods "x" is forbidden: maximum memory usage per Container is 4Gi, but limit is 16Gi',
            ),
            *(["limit range", "4Gi"], "workers.memory"),
        ),
        (
            of_cluster("FailedToCreateWorkerPod", 'pods "x" is forbidden: failed quota: q: must specify limits.cpu'),
            *(["must specify limits.cpu"], "administrator"),
        ),
        (
            event("FailedToCreateRayCluster", "Failed to create RayCluster default/x: etcd is full", JOB, "RayJob"),
            *(["Ray cluster cannot be made", "etcd is full"], "doctor"),
        ),
        (
            of_cluster("InvalidRayClusterSpec", "The RayCluster spec is invalid: no containers"),
            ["KubeRay refuses"],
            "doctor",
        ),
    ],
)
def test_pods_that_were_not_made_are_explained(told_by: Item, parts: list[str], remedy: str) -> None:
    told = explain(picture(rayjob(), events=(told_by,)))
    assert told.state == "waiting"
    for part in parts:
        assert part in told.cause
    assert remedy in told.remedy


def test_what_was_made_after_all_is_no_trouble_and_the_condition_counts_where_events_are_gone() -> None:
    quota = of_cluster("FailedToCreateWorkerPod", QUOTA, 90), of_cluster("CreatedWorkerPod", "Created worker Pod", 30)
    assert explain(picture(rayjob(), READY_HEAD, events=quota)).cause == ""
    for reason, made in (
        ("FailedToCreateRayCluster", "CreatedRayCluster"),
        ("FailedToCreateRayJobSubmitter", "CreatedRayJobSubmitter"),
    ):
        events = (event(reason, "webhook", JOB, "RayJob", ago=9), event(made, "Created", JOB, "RayJob", ago=5))
        assert explain(picture(rayjob(), READY_HEAD, events=events)).cause == ""
    warning = of_cluster("InvalidRayClusterSpec", "RayCluster spec warning default/x: restartPolicy should be Never")
    assert explain(picture(rayjob(), READY_HEAD, events=(warning,))).cause == ""
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreateWorkerPod", "message": QUOTA}
    cluster = {"metadata": {"name": CLUSTER}, "status": {"conditions": [condition]}}
    assert "quota 'gpus'" in explain(picture(rayjob(), READY_HEAD, cluster=cluster)).cause


IN_ORDER = [
    ("refused", of_cluster("InvalidRayClusterSpec", "no containers"), "KubeRay refuses"),
    ("quota", of_cluster("FailedToCreateWorkerPod", QUOTA), "quota 'gpus'"),
    ("image", pulling("unauthorized"), "cannot be pulled"),
    ("config", MISSING_SECRET, "the secret 'wandb'"),
    (
        "claim",
        unscheduled(OTHER, "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims."),
        "not bound",
    ),
    ("memory", OUT_OF_MEMORY, "more memory"),
    ("taint", unscheduled(OTHER, "0/2 nodes are available: 2 node(s) had untolerated taint {a: b}."), "the taint a=b"),
    ("capacity", unscheduled(OTHER, "0/5 nodes are available: 5 Insufficient nvidia.com/gpu."), "free GPUs"),
    ("network", WAITS_FOR_HEAD, "does not reach"),
]


@pytest.mark.parametrize(
    ("first", "second"),
    list(itertools.combinations(IN_ORDER, 2)),
    ids=lambda scene: scene[0] if isinstance(scene, tuple) else None,
)
def test_of_two_troubles_the_causal_one_is_told_first_and_the_other_among_the_details(
    first: tuple[str, Item, str], second: tuple[str, Item, str]
) -> None:
    things = [first[1], second[1]]
    pods = [thing for thing in things if thing["kind"] == "Pod"]
    events = tuple(thing for thing in things if thing["kind"] == "Event")
    for order in (pods, pods[::-1]):
        told = explain(picture(rayjob(), READY_HEAD, *order, events=events))
        assert first[2] in told.cause
        assert any(second[2] in detail for detail in told.details)


def test_of_the_same_trouble_the_head_comes_first_and_pods_are_counted() -> None:
    message = "0/5 nodes are available: 5 Insufficient cpu."
    told = explain(picture(rayjob(), *(unscheduled(name, message) for name in (*WORKERS, HEAD))))
    assert "no node takes the head" in told.cause.lower()
    assert told.details[0].endswith("(2 pods)")


@pytest.mark.parametrize(
    ("message", "kinds"),
    [
        ("", []),
        (
            "0/3 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 node(s) were unschedulable.",
            ["capacity", "capacity", "node"],
        ),
        ("0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }.", ["node"]),
        ("0/9 nodes are available: 9 node(s) had untolerated taint(s).", ["taint"]),
        (
            "0/2 nodes are available: 1 node(s) had volume node affinity conflict, 1 Insufficient ephemeral-storage.",
            ["claim", "capacity"],
        ),
    ],
)
def test_the_scheduler_s_words_are_understood(message: str, kinds: list[str]) -> None:
    assert [obstacle.kind for obstacle in obstacles(message)] == kinds
