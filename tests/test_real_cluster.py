"""On a real API server with KubeRay's definitions, with or without its operator: `make test-cluster KUBECONFIG=...`."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from orchestrator.cli import main
from orchestrator.k8s.client.api import Api, Connection, connect
from orchestrator.k8s.names import of_product
from orchestrator.storage import Storage
from tests.waiting import wait_for

VARIABLE = "BO_SWEEP_TEST_KUBECONFIG"
KEYS = {"AWS_ACCESS_KEY_ID": "anyone", "AWS_SECRET_ACCESS_KEY": "secret"}
SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "store"}, "stringData": KEYS}
IMAGE = f"registry.example.org/bo-sweep@sha256:{'0' * 64}"

pytestmark = pytest.mark.skipif(VARIABLE not in os.environ, reason=f"{VARIABLE} names no kubeconfig of a cluster")


@pytest.fixture
def api() -> Iterator[Api]:
    """Of a namespace of its own at the strictest level of Pod Security, which is deleted afterwards."""
    from kubernetes import client

    name = f"bo-sweep-test-{secrets.token_hex(4)}"
    api = connect(Connection(kubeconfig=Path(os.environ[VARIABLE]), namespace=name))
    namespaces = client.CoreV1Api(api.client)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespaces.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=name, labels=labels)))
    yield api
    namespaces.delete_namespace(name)


@pytest.fixture
def bo_sweep(api: Api, s3_folder: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command, with a profile whose results are in an object store on loopback."""
    profile = {
        "namespace": api.namespace,
        "image": IMAGE,
        "workers": {"nodes": 1, "cpus": 4},
        "results": {"url": s3_folder.url, "secret": "store"},
    }
    profiles = tmp_path / "clusters.yaml"
    profiles.write_text(yaml.safe_dump({"default": "real", "clusters": {"real": profile}}))
    monkeypatch.setenv("BO_SWEEP_CLUSTERS", str(profiles))
    monkeypatch.setenv("KUBECONFIG", os.environ[VARIABLE])
    return lambda *arguments: CliRunner().invoke(main, list(arguments))


def test_a_sweep_is_tried_submitted_joined_and_deleted(bo_sweep: Callable[..., Result], api: Api) -> None:
    launch = ("launch", "digits-grid", "--on", "k8s")
    refused = bo_sweep(*launch)
    assert refused.exit_code == 4
    assert "there is no secret 'store'" in refused.stderr
    assert api.list("RayJob", labels=of_product()) == []
    api.apply(SECRET)

    tried = bo_sweep(*launch, "--dry-run=server")
    assert tried.exit_code == 0, tried.stderr
    assert "the cluster would accept it (submitted)" in tried.stdout
    assert api.list("RayJob", labels=of_product()) == api.list("ConfigMap", labels=of_product()) == []

    first = bo_sweep(*launch)
    assert first.exit_code == 0, first.stderr
    assert first.stdout.endswith(": submitted\n")
    (job,), (config,) = api.list("RayJob", labels=of_product()), api.list("ConfigMap", labels=of_product())
    assert config["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
    assert {each["manager"] for each in job["metadata"]["managedFields"]} >= {"bo-sweep"}

    again = bo_sweep(*launch)
    assert (again.exit_code, again.stdout) == (0, f"{job['metadata']['name']}: runs already\n"), again.stderr
    changed = bo_sweep(*launch, "--set", "recipe.epochs=3")
    assert changed.exit_code == 4
    assert "recipe.epochs: 60, now 3" in changed.stderr
    status = bo_sweep("k8s", "status", "digits-grid")
    assert status.exit_code == 0, status.stderr
    assert status.stdout.startswith("digits-grid: ")

    deleted = bo_sweep("k8s", "delete", "digits-grid", "--yes")
    assert deleted.exit_code == 0, deleted.stderr
    wait_for(lambda: not api.list("RayJob", labels=of_product()), every=0.5)
    assert api.list("ConfigMap", labels=of_product()) == []
    assert bo_sweep("k8s", "status", "digits-grid").exit_code == 2


def test_the_doctor_finds_nothing_that_fails(bo_sweep: Callable[..., Result], api: Api) -> None:
    api.apply(SECRET)
    made = bo_sweep("k8s", "doctor")
    assert made.exit_code == 0, made.stdout + made.stderr
