"""What a strict API server and a careful administrator ask of manifests: schemas without unknown fields, and the level
"restricted" of Pod Security, field by field.

The CRDs of KubeRay lie beside the project; tests that need them are skipped where they are not.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from referencing import Registry, Resource

CRD_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "kuberay"
KUBERNETES_VERSIONS = ("1.29", "1.37")
"""The oldest and the newest that manifests are held against."""
CRD_KINDS = {"RayJob": "ray.io_rayjobs.json", "RayCluster": "ray.io_rayclusters.json"}
RESTRICTED_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret")
}

needs_crds = pytest.mark.skipif(not CRD_FOLDER.is_dir(), reason=f"the CRDs of KubeRay are not at {CRD_FOLDER}")


def schema_problems(manifest: dict[str, Any]) -> list[str]:
    """What strict validation finds in a manifest of a core kind or of KubeRay's; pod templates are looked at too."""
    if manifest["kind"] not in CRD_KINDS:
        return list(_core_problems(manifest))
    named = {key: manifest[key] for key in ("apiVersion", "kind", "metadata")}
    assert named["apiVersion"] == "ray.io/v1"
    found = [f"{_path(error)}: {error.message}" for error in _crd_validator(manifest["kind"]).iter_errors(manifest)]
    for template in pod_templates(manifest):
        found += _core_problems({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {}, "template": template})
    # The CRD says nothing of metadata: that of any core kind is the same.
    return [*found, *_core_problems({"apiVersion": "v1", "kind": "ConfigMap", "metadata": manifest["metadata"]})]


def pod_templates(rayjob: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of the submitter, the head and the workers."""
    spec = rayjob["spec"]
    cluster = spec["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [spec["submitterPodTemplate"], *(group["template"] for group in groups)]


def restricted_problems(pod: dict[str, Any]) -> list[str]:
    """Where a pod's spec does not hold the level "restricted" of the Pod Security Standards."""
    return [*_pod_problems(pod), *(problem for one in _containers(pod) for problem in _container_problems(one, pod))]


def _pod_problems(pod: dict[str, Any]) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield field
    for volume in pod.get("volumes", []):
        (kind,) = volume.keys() - {"name"}
        if kind not in RESTRICTED_VOLUMES:
            yield f"volume {kind}"
    security = pod.get("securityContext", {})
    if security.get("sysctls"):
        yield "sysctls"
    if security.get("runAsUser") == 0:
        yield "runAsUser 0"


def _container_problems(container: dict[str, Any], pod: dict[str, Any]) -> Iterator[str]:
    of_pod, own = pod.get("securityContext", {}), container.get("securityContext", {})
    name = container["name"]
    if own.get("privileged"):
        yield f"{name}: privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: allowPrivilegeEscalation"
    if own.get("runAsNonRoot", of_pod.get("runAsNonRoot")) is not True:
        yield f"{name}: runAsNonRoot"
    if own.get("runAsUser", 1) == 0:
        yield f"{name}: runAsUser 0"
    if own.get("seccompProfile", of_pod.get("seccompProfile", {})).get("type") not in ("RuntimeDefault", "Localhost"):
        yield f"{name}: seccompProfile"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"{name}: capabilities"
    if own.get("procMount", "Default") != "Default":
        yield f"{name}: procMount"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield f"{name}: hostPort"


def _containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for kind in ("initContainers", "containers", "ephemeralContainers") for one in pod.get(kind, [])]


def _core_problems(manifest: dict[str, Any]) -> Iterator[str]:
    for version in KUBERNETES_VERSIONS:
        for error in _core_validator(version, manifest["kind"], manifest["apiVersion"]).iter_errors(manifest):
            yield f"{manifest['kind']} in {version}: {_path(error)}: {error.message}"


@functools.cache
def _core_validator(version: str, kind: str, api_version: str) -> jsonschema.Draft202012Validator:
    """By the schemas of kubernetes-validate, which reads and resolves them anew for every manifest."""
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    group = re.sub(r"^([^./]*)(\.[^/]*)?/", r"\1-", api_version)
    schema = json.loads((folder / f"{kind.lower()}-{group}.json").read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(schema, registry=_definitions(version))


@functools.cache
def _definitions(version: str) -> Registry[Any]:
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    content = json.loads((folder / "_definitions.json").read_text(encoding="utf-8"))
    return Resource.from_contents(content) @ Registry()


@functools.cache
def _crd_validator(kind: str) -> jsonschema.Draft202012Validator:
    document = json.loads((CRD_FOLDER / CRD_KINDS[kind]).read_text(encoding="utf-8"))
    (schema,) = [one["schema"]["openAPIV3Schema"] for one in document["spec"]["versions"] if one["name"] == "v1"]
    return jsonschema.Draft202012Validator(_strict(schema))


def _strict(schema: Any) -> Any:
    """The schema with unknown fields as errors, as the API server's strict validation has it."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _strict(value) for key, value in schema.items()}
    is_closed = isinstance(made.get("properties"), dict) and made.get("type") == "object"
    if is_closed and "additionalProperties" not in made and not made.get("x-kubernetes-preserve-unknown-fields"):
        made["additionalProperties"] = False
    return made


def _path(error: jsonschema.ValidationError) -> str:
    return ".".join(map(str, error.absolute_path))
