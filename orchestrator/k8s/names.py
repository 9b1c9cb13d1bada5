"""Names and labels of everything that a sweep has in a cluster."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from search_spaces.runs import canonical_json

PRODUCT = "bo-sweep"

NAME = "app.kubernetes.io/name"
INSTANCE = "app.kubernetes.io/instance"
MANAGED_BY = "app.kubernetes.io/managed-by"
VERSION = "app.kubernetes.io/version"
COMPONENT = "app.kubernetes.io/component"
SPEC_HASH = "bo-sweep/spec-hash"
"""Annotation of the RayJob and its ConfigMap: the whole SHA-256 of what was submitted."""

QUEUE = "kueue.x-k8s.io/queue-name"
"""Set by us where a profile names a queue of Kueue."""
GPU_RESOURCE = "nvidia.com/gpu"
"""What NVIDIA's device plugin gives out; also the key of the taint that such nodes often have."""
GPU_PRODUCT = "nvidia.com/gpu.product"
"""Node label of NVIDIA's feature discovery."""
OWN_LABELS = (NAME, INSTANCE, MANAGED_BY, VERSION, COMPONENT, QUEUE)
RAY_CLUSTER = "ray.io/cluster"
"""KubeRay's label of pods: the name of their RayCluster."""
RAY_NODE_TYPE = "ray.io/node-type"
"""KubeRay's label of pods: head or worker."""
RAY_GROUP = "ray.io/group"
"""KubeRay's label of pods: the name of their group."""
RAY_JOB = "ray.io/originated-from-cr-name"
"""KubeRay's label of RayClusters and submitter Jobs: the name of their RayJob."""

MOST_SWEEP_CHARACTERS = 38
HASH_DIGITS = 8
DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def common_labels() -> dict[str, str]:
    """Labels of what all sweeps of a namespace share."""
    return {NAME: PRODUCT, MANAGED_BY: PRODUCT, VERSION: _version_label()}


def sweep_labels(sweep: str) -> dict[str, str]:
    """Labels of the objects of one sweep."""
    return {NAME: PRODUCT, INSTANCE: sweep, MANAGED_BY: PRODUCT, VERSION: _version_label()}


def pod_labels(sweep: str, component: str) -> dict[str, str]:
    """Labels of a sweep's pods; `component` is head, worker, submitter or reader.

    Without the version: it is part of no spec, so that another version of bo-sweep still finds the same RayJob.
    """
    return {NAME: PRODUCT, INSTANCE: sweep, MANAGED_BY: PRODUCT, COMPONENT: component}


def of_sweep(sweep: str) -> str:
    """Selects the objects of one sweep."""
    return f"{NAME}={PRODUCT},{INSTANCE}={sweep}"


def of_product() -> str:
    """Selects the objects of all sweeps, and what they share."""
    return f"{NAME}={PRODUCT},{MANAGED_BY}={PRODUCT}"


def of_ray_job(name: str) -> str:
    """Selects the RayClusters and the submitter Job that KubeRay made for a RayJob."""
    return f"{RAY_JOB}={name}"


def of_ray_cluster(name: str) -> str:
    """Selects the pods of a RayCluster."""
    return f"{RAY_CLUSTER}={name}"


def content_hash(content: Any) -> str:
    """64 hex digits of the SHA-256 of the canonical JSON of `content`."""
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def job_name(sweep: str, digest: str) -> str:
    """The name of a sweep's RayJob and ConfigMap whose content has this hash."""
    return f"{sweep}-{digest[:HASH_DIGITS]}"


def sweep_name_problems(sweep: str) -> list[str]:
    """Why a sweep of this name cannot go to Kubernetes, and what to do."""
    problems = []
    if len(sweep) > MOST_SWEEP_CHARACTERS:
        problems.append(
            f"sweep name {sweep!r} has {len(sweep)} characters: at most {MOST_SWEEP_CHARACTERS} leave room for what "
            "KubeRay adds. Give a shorter one with --name"
        )
    if not DNS_1035.fullmatch(sweep):
        problems.append(
            f"sweep name {sweep!r} names objects of Kubernetes: it must hold only a-z, 0-9 and '-', start with a "
            f"letter and not end with '-'. Give another one with --name, for example {_near(sweep)!r}"
        )
    return problems


def label_problems(labels: Mapping[str, str], where: str) -> list[str]:
    """What Kubernetes would refuse in labels; `where` names them in the messages."""
    problems = []
    for key, value in labels.items():
        prefix, slash, name = key.rpartition("/")
        prefix_is_fine = not slash or (len(prefix) <= 253 and re.fullmatch(DNS_SUBDOMAIN, prefix))
        if not (prefix_is_fine and len(name) <= 63 and re.fullmatch(LABEL_NAME, name)):
            problems.append(
                f"{where}: {key!r} is no key of a label: at most 63 of A-Z a-z 0-9 - _ . that start and end with a "
                "letter or digit, perhaps after a domain and '/'"
            )
        if len(value) > 63 or not re.fullmatch(f"({LABEL_NAME})?", value):
            problems.append(
                f"{where}: {key}={value!r} is no value of a label: at most 63 of A-Z a-z 0-9 - _ . that start and end "
                "with a letter or digit"
            )
    return problems


def secrets_in(variables: Iterable[str]) -> list[str]:
    """Names of environment variables that hold secrets, going by how they end."""
    return [name for name in variables if re.search(r"(KEY|TOKEN|SECRET|PASSWORD)$", name.upper())]


LABEL_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"
DNS_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"


def _version_label() -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", version("bo-sweep"))[:63].strip("_.-")


def _near(sweep: str) -> str:
    """A name like this one that would do."""
    plain = re.sub(r"[^a-z0-9]+", "-", sweep.lower()).strip("-")
    named = plain if re.match("[a-z]", plain) else f"sweep-{plain}".rstrip("-")
    return named[:MOST_SWEEP_CHARACTERS].rstrip("-")
