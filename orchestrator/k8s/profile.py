"""A cluster as its users know it: what one entry of `clusters.yaml` may say. Placement only, never identity."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from orchestrator.budget import parse_duration
from orchestrator.k8s.names import OWN_LABELS, label_problems, secrets_in
from orchestrator.k8s.values import (
    Count,
    Duration,
    Gigabytes,
    Labels,
    Name,
    Namespace,
    SecretValue,
    Size,
    Text,
    Variable,
    Version,
    amount_of,
)
from search_spaces.frozen import Frozen

DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
IMAGE_NAME = re.compile(
    r"([A-Za-z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)
LEAST_HEAD_MEMORY = "2Gi"


class Toleration(Frozen):
    """A taint that workers tolerate, as Kubernetes has it."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    tolerationSeconds: Count | None = None  # noqa: N815 (the API's own name)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.operator == "Exists" and self.value is not None:
            raise ValueError("a toleration with operator Exists has no value: leave `value` out")
        if self.operator == "Equal" and self.key is None:
            raise ValueError("a toleration with operator Equal needs a key; operator Exists alone tolerates all")
        if self.tolerationSeconds is not None and self.effect != "NoExecute":
            raise ValueError("tolerationSeconds goes with effect NoExecute, which alone takes pods away")
        if self.key is not None and (problems := label_problems({self.key: self.value or ""}, "toleration")):
            raise ValueError("; ".join(problems))
        return self


class Workers(Frozen):
    """The worker pods, one a node, all alike. `cpus`, `gpus` and memory are of each."""

    nodes: Count = Field(default=1, ge=1)
    gpus: Count = Field(default=0, ge=0)
    cpus: Count = Field(default=4, ge=1)
    memory: Size = "16Gi"
    shared_memory: Size = "8Gi"
    """Size of /dev/shm, part of `memory`; without a size KubeRay would take all of it."""
    object_store_gb: Gigabytes = Field(default=1.0, ge=0.1)
    """Ray's object store, in /dev/shm. Small: FFCV reads through the page cache, which needs the memory."""
    scratch: Size = "20Gi"
    """Local disk for logs, Ray's session and data sets that are made on the spot."""
    gpu_product: str | None = None
    """As in the node label nvidia.com/gpu.product, for example NVIDIA-H100-80GB-HBM3."""
    node_selector: Labels = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    nodes_on_demand: bool = False
    """Nodes are made when they are asked for (an autoscaler): that none of them is there now is no mistake."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        if self.gpu_product and not self.gpus:
            problems.append(f"gpu_product {self.gpu_product!r} without GPUs: give `gpus`, how many each node has")
        if self.object_store_gb * 1e9 > amount_of(self.shared_memory):
            problems.append(
                f"object_store_gb {self.object_store_gb:g} does not fit into shared_memory {self.shared_memory}"
            )
        if amount_of(self.shared_memory) > amount_of(self.memory):
            problems.append(f"shared_memory {self.shared_memory} is part of memory, which is only {self.memory}")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class Head(Frozen):
    """The pod of Ray's head and of the launch: CPUs only, and never on spot nodes."""

    cpus: Count = Field(default=2, ge=1)
    memory: Size = "8Gi"
    scratch: Size = "20Gi"
    node_selector: Labels = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    on_gpu_nodes: bool = False
    """Let it run on nodes with GPUs, where a cluster has no others."""

    @field_validator("memory")
    @classmethod
    def _enough(cls, memory: str) -> str:
        if amount_of(memory) < amount_of(LEAST_HEAD_MEMORY):
            raise ValueError(f"{memory} is too little for Ray's head and the launch: give {LEAST_HEAD_MEMORY} or more")
        return memory


class Spot(Frozen):
    """Workers on nodes that may be taken away; a lost node costs nothing but time."""

    node_selector: Labels = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.node_selector and not self.tolerations:
            raise ValueError("spot: give node_selector or tolerations, by which workers find spot nodes")
        return self


class Results(Frozen):
    """Where sweeps are kept: a claim that many nodes can write (RWX), or an object store."""

    claim: Name | None = None
    size: Size | None = None
    """With `claim`: it is made with this size where there is none."""
    storage_class: Name | None = None
    url: str | None = None
    """s3://bucket/prefix or gs://bucket/prefix."""
    endpoint: str | None = None
    """With s3://: the address of a server of one's own."""
    secret: Name | None = None
    """With `url`: the secret whose values become the environment of head and workers, AWS_ACCESS_KEY_ID and the like.
    None where pods have an identity by `service_account_annotations`, which is the one way for gs://."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        problems = []
        if (self.claim is None) == (self.url is None):
            problems.append(
                "results: give either `claim` (a volume that all nodes can write) or `url` (s3:// or gs://)"
            )
        if self.url is not None and not re.fullmatch(r"(s3|gs)://[A-Za-z0-9._-]+(/[^?#\s]*)?", self.url):
            problems.append("results.url must be s3://bucket/prefix or gs://bucket/prefix; keys are in results.secret")
        if self.claim is None and (self.size or self.storage_class):
            problems.append("results.size and results.storage_class go with results.claim")
        if self.url is None and (self.endpoint or self.secret):
            problems.append("results.endpoint and results.secret go with results.url")
        if (self.url or "").startswith("gs://") and (self.endpoint or self.secret):
            problems.append(
                "results.endpoint and results.secret go with s3://; for gs:// pods have an identity "
                "(service_account_annotations)"
            )
        if self.endpoint is not None and not re.fullmatch(r"https?://[^\s@/]+(/\S*)?", self.endpoint):
            problems.append(
                "results.endpoint must be http://host:port or https://host:port; keys are in results.secret"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self


class Data(Frozen):
    """Where prepared betons are, as `bo-sweep prepare --out` leaves them; mounted read-only."""

    claim: Name | None = None
    path: str = ""
    """Folder in the claim."""
    host_path: str | None = None
    """A folder of every node instead; the strict levels of Pod Security forbid it."""

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        if path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"data.path {path!r}: must be a folder in the claim, without a leading / or ..")
        return path

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.claim is None) == (self.host_path is None):
            raise ValueError("data: give either `claim` or `host_path`")
        host_path = self.host_path
        if host_path is not None and (self.path or not host_path.startswith("/") or ".." in host_path.split("/")):
            raise ValueError("data.host_path must be an absolute path without .., and `path` goes with `claim`")
        return self


class SecretKey(Frozen):
    """One value of a secret."""

    secret: Name
    key: SecretValue


class Submitters(Frozen):
    """Who may launch and watch sweeps in the namespace, by the Role that is rendered; an administrator applies it."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


class ClusterProfile(Frozen):
    """Everything about a cluster that a sweep does not say: where it is, what its nodes are like, where files are.

    Durations are as on the command line (30m, 2d). One validated value of this stands for one rendered sweep.
    """

    context: str | None = None
    """Of the kubeconfig; None for the current one."""
    namespace: Namespace = "default"
    image: str = Field(min_length=1)
    """Holds this version of bo-sweep; pinned by digest (name@sha256:...) unless `unpinned_image` is true."""
    unpinned_image: bool = False
    """For trying out: a tag may come to mean another image in the midst of a sweep."""
    ray_version: Version | None = None
    """Of the image; None for the version that is installed here."""
    image_pull_secrets: tuple[Name, ...] = ()
    service_account: Name = "bo-sweep"
    service_account_annotations: Labels = Field(default_factory=dict)
    """For example eks.amazonaws.com/role-arn: an identity for the object store, without keys."""
    workers: Workers = Workers()
    head: Head = Head()
    spot: Spot | None = None
    queue: Name | None = None
    """A LocalQueue of Kueue."""
    priority_class: Name | None = None
    results: Results
    data: Data | None = None
    wandb: SecretKey | None = None
    env: dict[Variable, Text] = Field(default_factory=dict)
    """More environment for head and workers. No secrets: it is readable by all who may read the job."""
    labels: Labels = Field(default_factory=dict)
    """More labels, for accounting."""
    submitters: Submitters = Submitters()
    pod_monitor: bool = False
    """Also render a PodMonitor for the Prometheus operator."""
    active_deadline: Duration = "7d"
    """Longest time of one attempt, waiting for nodes included."""
    pre_running_deadline: Duration = "2h"
    """Longest time until training starts: the guard against a stuck image pull or GPUs that never come."""
    cleanup_after: Duration = "10m"
    """From the end of the job until its pods are removed."""
    retries: Count = Field(default=2, ge=0, le=20)
    """New clusters after an attempt has failed; each goes on from storage."""

    @field_validator("image")
    @classmethod
    def _image_like(cls, image: str) -> str:
        if not IMAGE_NAME.fullmatch(image):
            raise ValueError(
                f"image {image!r}: must be a name in small letters such as registry.example.org/bo-sweep@sha256:... "
                "(64 hex digits)"
            )
        return image

    @field_validator("labels")
    @classmethod
    def _labels_of_ones_own(cls, labels: dict[str, str]) -> dict[str, str]:
        taken = [key for key in labels if key in OWN_LABELS or key.startswith("ray.io/")]
        if taken:
            raise ValueError(f"{', '.join(taken)}: set by bo-sweep, Kueue (field `queue`) or KubeRay. Leave it out")
        return labels

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        if not DIGEST.search(self.image) and not self.unpinned_image:
            problems.append(
                f"image {self.image!r} is not pinned: give its digest (name@sha256:...), or allow a tag with "
                "unpinned_image: true"
            )
        if parse_duration(self.pre_running_deadline) >= parse_duration(self.active_deadline):
            problems.append(
                f"pre_running_deadline {self.pre_running_deadline} must be shorter than active_deadline "
                f"{self.active_deadline}, which counts from the same moment"
            )
        if secrets := secrets_in(self.env):
            problems.append(
                f"env holds {', '.join(secrets)}: everyone who may read the job would see it. Put it into a secret "
                "(results.secret, wandb)"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def with_defaults(self, ray_version: str) -> ClusterProfile:
        """The same with the version of Ray filled in."""
        return self if self.ray_version else self.model_copy(update={"ray_version": ray_version})
