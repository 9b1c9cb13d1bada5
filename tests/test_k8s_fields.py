"""The manifests of a launch, field by field: the job, its pods, storage and data, and the setup of a namespace."""

from __future__ import annotations

import re
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.k8s.rendering.manifests import RenderError, render
from orchestrator.k8s.rendering.mounts import Mounts
from orchestrator.k8s.rendering.pods import reader_pod_spec
from orchestrator.ray_environment import NODE_ENVIRONMENT, RAY_ENVIRONMENT
from tests.cluster_profiles import (
    DATA,
    GPU_NODES,
    ON_CPUS,
    PROFILES,
    by_kind,
    container_of,
    environment_of,
    gpu_profile,
    launch,
    pods_of,
    profile,
    rayjob_of,
    rendered,
    texts_in,
)
from tests.kubernetes_schemas import pod_templates

# The job, line by line


def test_the_job_has_every_field_that_cleans_up_and_bounds_it() -> None:
    made = rendered(active_deadline="3d", pre_running_deadline="45m", cleanup_after="90s", retries=4)
    spec = rayjob_of(made)["spec"]
    assert spec["submissionMode"] == "K8sJobMode"
    assert (spec["backoffLimit"], spec["submitterConfig"]) == (4, {"backoffLimit": 3})
    assert (spec["activeDeadlineSeconds"], spec["preRunningDeadlineSeconds"]) == (259200, 2700)
    assert (spec["shutdownAfterJobFinishes"], spec["ttlSecondsAfterFinished"]) == (True, 90)
    assert yaml.safe_load(spec["runtimeEnvYAML"]) == {"env_vars": {"PYTHONUNBUFFERED": "1"}}
    assert not spec.keys() & {"suspend", "deletionStrategy", "clusterSelector"}
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"] == version("ray")
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is False
    assert "gcsFaultToleranceOptions" not in cluster
    assert rayjob_of(rendered(ray_version="2.55.1"))["spec"]["rayClusterSpec"]["rayVersion"] == "2.55.1"
    submitter = pods_of(made)["submitter"]
    assert submitter["restartPolicy"] == "Never"
    assert "command" not in container_of(submitter)
    assert container_of(submitter)["resources"]["limits"]["memory"] == "1Gi"


def test_the_head_has_no_work_and_stays_where_it_is() -> None:
    job = rayjob_of(rendered(wandb={"secret": "wandb", "key": "k"}))["spec"]
    spec = job["rayClusterSpec"]["headGroupSpec"]
    parameters = spec["rayStartParams"]
    assert (parameters["num-cpus"], parameters["num-gpus"]) == ("0", "0")
    assert all(isinstance(value, str) for value in parameters.values())
    assert spec["template"]["metadata"]["annotations"] == {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }
    # A move of the submitter counts as a failure of its Job, and too many of these end the attempt.
    assert job["submitterPodTemplate"]["metadata"]["annotations"] == spec["template"]["metadata"]["annotations"]
    pod = spec["template"]["spec"]
    ports = {port["name"]: port["containerPort"] for port in container_of(pod)["ports"]}
    assert ports == {"gcs-server": 6379, "dashboard": 8265, "client": 10001, "metrics": 8080}
    assert "nvidia.com/gpu" not in container_of(pod)["resources"]["limits"]
    assert environment_of(pod)["WANDB_API_KEY"] == {"secretKeyRef": {"name": "wandb", "key": "k"}}
    assert unwanted(pod) == {
        "cloud.google.com/gke-accelerator",
        "cloud.google.com/gke-preemptible",
        "cloud.google.com/gke-spot",
        "eks.amazonaws.com/capacityType",
        "k8s.amazonaws.com/accelerator",
        "karpenter.k8s.aws/instance-gpu-name",
        "karpenter.sh/capacity-type",
        "kubernetes.azure.com/accelerator",
        "kubernetes.azure.com/scalesetpriority",
        "nvidia.com/gpu.present",  # by the GPU operator
        "nvidia.com/gpu.product",  # by feature discovery, which the device plugin's chart brings
    }
    on_gpu_nodes = pods_of(rendered(head={"on_gpu_nodes": True}))["head"]
    assert on_gpu_nodes["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    left = unwanted(on_gpu_nodes)
    assert "karpenter.sh/capacity-type" in left
    assert not [key for key in left if "gpu." in key or "accelerator" in key or "gpu-name" in key]


def unwanted(pod: dict[str, Any]) -> set[str]:
    """Labels of nodes that a pod must not run on."""
    required = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = required["nodeSelectorTerms"]
    assert all(one["operator"] == ("NotIn" if "values" in one else "DoesNotExist") for one in term["matchExpressions"])
    return {one["key"] for one in term["matchExpressions"]}


def test_workers_are_one_a_node_with_fixed_resources_and_a_small_object_store() -> None:
    workers = GPU_NODES | {"object_store_gb": 2.5, "scratch": "200Gi", "gpu_product": "NVIDIA-H100-80GB-HBM3"}
    made = render(launch("imagenet-grid"), gpu_profile(workers=workers))
    (group,) = rayjob_of(made)["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] == 2
    assert group["rayStartParams"] == {"object-store-memory": "2500000000"}
    pod = group["template"]["spec"]
    held = {"cpu": "96", "memory": "900Gi", "ephemeral-storage": "200Gi", "nvidia.com/gpu": "8"}
    assert container_of(pod)["resources"] == {"requests": held, "limits": held}
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    (apart,) = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert apart["topologyKey"] == "kubernetes.io/hostname"
    assert apart["labelSelector"]["matchLabels"].items() <= group["template"]["metadata"]["labels"].items()
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["shared-memory"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "64Gi"}
    assert volumes["ray"]["emptyDir"] == {"sizeLimit": "200Gi"}
    mounted = {mount["name"]: mount["mountPath"] for mount in container_of(pod)["volumeMounts"]}
    assert (mounted["shared-memory"], mounted["ray"]) == ("/dev/shm", "/tmp/ray")
    assert NODE_ENVIRONMENT.items() <= environment_of(pod).items()
    assert NODE_ENVIRONMENT.items() <= RAY_ENVIRONMENT.items()
    assert "WANDB_API_KEY" not in environment_of(pod)


def test_without_gpus_workers_may_share_a_node_since_kind_has_only_one() -> None:
    pod = pods_of(rendered(workers={"nodes": 3}))["worker"]
    assert pod["affinity"]["podAntiAffinity"].keys() == {"preferredDuringSchedulingIgnoredDuringExecution"}
    assert "tolerations" not in pod
    assert container_of(pod)["resources"]["limits"].keys() == {"cpu", "memory", "ephemeral-storage"}


def test_spot_workers_add_to_selectors_and_tolerations_and_the_head_does_not_follow() -> None:
    made = pods_of(render(launch("imagenet-grid"), PROFILES["spot"]))
    assert made["worker"]["nodeSelector"] == {"zone": "a", "karpenter.sh/capacity-type": "spot"}
    assert [one["key"] for one in made["worker"]["tolerations"]] == ["nvidia.com/gpu", "team", "spot"]
    assert "nodeSelector" not in made["head"]
    assert "tolerations" not in made["head"]
    assert "karpenter.sh/capacity-type" in unwanted(made["submitter"])


def test_values_of_the_environment_arrive_as_the_profile_has_them() -> None:
    """The kubelet takes $(NAME) for a variable, and $$ for $."""
    given = {"A": "plain", "B": "$(HOME)", "C": "$$(HOME)", "D": "a$b$", "E": "$$"}
    rendered_values = environment_of(pods_of(rendered(env=given))["worker"])
    for name, value in given.items():
        text = rendered_values[name]
        assert not re.search(r"\$\(", text.replace("$$", "")), text  # nothing that the kubelet would put in
        assert text.replace("$$", "$") == value


# Storage and data


def test_a_claim_is_mounted_where_the_entry_point_stores() -> None:
    made = rendered(workers={"cpus": 2})
    for component in ("head", "worker"):
        pod = pods_of(made)[component]
        assert {"name": "results", "persistentVolumeClaim": {"claimName": "bo-sweep-results"}} in pod["volumes"]
        assert {"name": "results", "mountPath": "/results"} in container_of(pod)["volumeMounts"]
    assert rayjob_of(made)["spec"]["entrypoint"] == (
        "exec bo-sweep launch /etc/bo-sweep/space.yaml --storage /results --name digits-grid --data /data "
        "--address auto --as-job"
    )
    assert not any(volume["name"] == "results" for volume in pods_of(made)["submitter"]["volumes"])


def test_an_object_store_needs_no_volume_but_its_keys_from_a_secret() -> None:
    made = render(launch("imagenet-grid"), PROFILES["own s3"])
    assert "--storage s3://bucket/sweeps " in rayjob_of(made)["spec"]["entrypoint"]
    pods = pods_of(made)
    for component in ("head", "worker"):
        assert container_of(pods[component])["envFrom"] == [{"secretRef": {"name": "s3-keys"}}]
        assert environment_of(pods[component])["AWS_ENDPOINT_URL"] == "http://minio.storage:9000"
        assert not any(volume["name"] == "results" for volume in pods[component]["volumes"])
    assert "envFrom" not in container_of(pods["submitter"])
    with pytest.raises(ValueError, match="s3://bucket/sweeps, not in a claim"):
        reader_pod_spec(PROFILES["own s3"], ["python"], Mounts())


def test_the_data_set_is_read_only_in_a_data_folder_that_can_be_written() -> None:
    made = pods_of(render(launch("imagenet-grid"), gpu_profile(data=DATA)))
    for component in ("head", "worker"):
        mounts = {mount["name"]: mount for mount in container_of(made[component])["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in made[component]["volumes"]}
        assert mounts["data"] == {"name": "data", "mountPath": "/data"}
        assert "emptyDir" in volumes["data"]
        assert mounts["dataset"] == {
            "name": "dataset",
            "mountPath": "/data/imagenet",
            "subPath": "betons/imagenet",
            "readOnly": True,
        }
        assert volumes["dataset"]["persistentVolumeClaim"] == {"claimName": "datasets", "readOnly": True}
    on_host = pods_of(render(launch("imagenet-grid"), PROFILES["host path"]))["worker"]
    assert {"name": "dataset", "hostPath": {"path": "/mnt/betons/imagenet", "type": "Directory"}} in on_host["volumes"]


def test_what_the_launch_leaves_behind_in_the_head_is_reaped() -> None:
    made = pods_of(rendered())
    assert [name for name, spec in made.items() if spec.get("shareProcessNamespace")] == ["head"]


def test_data_that_comes_with_bo_sweep_needs_no_claim() -> None:
    for space in ("digits-grid", "gmm-grid"):
        made = pods_of(render(launch(space, *ON_CPUS), profile(data=DATA)))
        assert not any(volume["name"] == "dataset" for volume in made["worker"]["volumes"])
    with pytest.raises(RenderError, match=r"data.claim .* cifar10/train.beton"):
        render(launch("cifar10-grid", *ON_CPUS), profile())


def test_other_folders_in_pods_come_out_everywhere(tmp_path: Path) -> None:
    mounts = Mounts(config=f"{tmp_path}/c", results=f"{tmp_path}/r", data=f"{tmp_path}/d", home=f"{tmp_path}/h")
    made = render(launch(), profile(), mounts)
    command = shlex.split(rayjob_of(made)["spec"]["entrypoint"])
    assert command[3] == f"{tmp_path}/c/space.yaml"
    assert command[command.index("--storage") + 1] == f"{tmp_path}/r"
    assert command[command.index("--data") + 1] == f"{tmp_path}/d"
    assert not {"/etc/bo-sweep", "/results", "/data", "/home/bo-sweep"} & set(texts_in(list(made.job)))


# The setup of a namespace


def test_the_setup_is_the_same_for_all_sweeps() -> None:
    chosen = PROFILES["everything"]
    assert render(launch(), chosen).setup == render(launch("imagenet-grid"), chosen).setup
    kinds = [one["kind"] for one in render(launch(), chosen).setup]
    assert kinds == ["ServiceAccount", "Role", "RoleBinding", "NetworkPolicy", "PodMonitor"]
    assert [one["kind"] for one in rendered(service_account="default").setup] == ["Role", "NetworkPolicy"]
    assert [one["kind"] for one in rendered().all][-2:] == ["ConfigMap", "RayJob"]


def test_the_role_lets_submitters_launch_watch_and_fetch_and_nothing_else() -> None:
    made = by_kind(render(launch(), PROFILES["everything"]))
    may = {
        (group, resource): set(rule["verbs"])
        for rule in made["Role"]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    look = {"get", "list", "watch"}
    assert may["ray.io", "rayjobs"] == look | {"create", "update", "patch", "delete"}
    assert may["ray.io", "rayclusters"] == may["", "pods"] == may["", "events"] == may["", "pods/log"] == look
    assert may["", "configmaps"] == {"get", "list", "create", "patch", "delete"}
    assert may["", "pods/portforward"] == {"get", "create"}
    assert may["batch", "jobs"] == look | {"create", "delete"}
    assert may["", "persistentvolumeclaims"] == {"get"}
    writable = {key for key, verbs in may.items() if verbs - look}
    assert writable == {
        *(("ray.io", "rayjobs"), ("", "configmaps"), ("", "pods/portforward"), ("batch", "jobs")),
    }
    assert not any("*" in key or "secret" in key[1] for key in may)
    subjects = [(one["kind"], one["name"]) for one in made["RoleBinding"]["subjects"]]
    assert subjects == [("User", "ada@example.org"), ("Group", "researchers")]
    assert made["RoleBinding"]["roleRef"]["name"] == made["Role"]["metadata"]["name"]
    nobody = by_kind(rendered())
    assert "RoleBinding" not in nobody
    assert nobody["Role"] == made["Role"]


def test_the_network_policy_lets_in_sweeps_the_operator_and_metrics() -> None:
    policy = by_kind(render(launch(), PROFILES["everything"]))["NetworkPolicy"]["spec"]
    own = {"podSelector": policy["podSelector"]}
    for template in pod_templates(rayjob_of(rendered())):
        assert policy["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert policy["policyTypes"] == ["Ingress"]
    among, operator, metrics = policy["ingress"]
    assert among == {"from": [own]}
    assert operator["ports"] == [{"protocol": "TCP", "port": 8265}]
    assert [one["podSelector"]["matchLabels"] for one in operator["from"]] == [
        {"app.kubernetes.io/name": "kuberay-operator"},  # by helm
        {"app.kubernetes.io/component": "kuberay-operator"},  # by kubectl apply -k
    ]
    assert all(one["namespaceSelector"] == {} for one in operator["from"])
    assert metrics["ports"] == [{"protocol": "TCP", "port": 8080}]
    assert len(by_kind(rendered())["NetworkPolicy"]["spec"]["ingress"]) == 2


def test_a_new_claim_can_be_written_by_many_nodes_and_is_kept() -> None:
    claim = by_kind(render(launch("imagenet-grid"), PROFILES["new claim"]))["PersistentVolumeClaim"]
    assert claim["metadata"]["name"] == "results"
    assert claim["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "500Gi"}},
        "storageClassName": "shared",
    }
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert "app.kubernetes.io/instance" not in claim["metadata"]["labels"]  # deleting a sweep's objects leaves it
    assert "PersistentVolumeClaim" not in by_kind(rendered())


def test_the_pod_monitor_finds_the_metrics_of_head_and_workers() -> None:
    monitor = by_kind(render(launch(), PROFILES["everything"]))["PodMonitor"]["spec"]
    for component in ("head", "worker"):
        pod = pods_of(rendered())[component]
        assert "metrics" in {port["name"] for port in container_of(pod)["ports"]}
    assert monitor["podMetricsEndpoints"] == [{"port": "metrics"}]
    assert monitor["selector"]["matchLabels"]["app.kubernetes.io/name"] == "bo-sweep"


def test_the_reader_mounts_results_and_cannot_write() -> None:
    pod = reader_pod_spec(profile(), ["python", "-m", "x"], Mounts())
    assert container_of(pod)["command"] == ["python", "-m", "x"]
    assert {"name": "results", "mountPath": "/results", "readOnly": True} in container_of(pod)["volumeMounts"]
    assert pod["restartPolicy"] == "Never"
    assert container_of(pod)["resources"]["limits"].keys() == {"cpu", "memory", "ephemeral-storage"}


def test_no_secret_stands_in_any_manifest() -> None:
    made = render(launch(), PROFILES["everything"])
    assert not any(one["kind"] == "Secret" for one in made.all)
