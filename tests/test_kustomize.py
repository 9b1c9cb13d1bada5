"""k8s/: what GitOps applies is what the command line submits."""

from __future__ import annotations

import json
import runpy
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from click.testing import CliRunner

from orchestrator.commands.k8s.render import render as render_command
from orchestrator.entry_point import LaunchRequest
from orchestrator.k8s.names import SPEC_HASH
from orchestrator.k8s.profile import ClusterProfile, Spot
from orchestrator.k8s.profiles import load_profile, profile_names
from orchestrator.k8s.rendering.manifests import Manifests, render
from search_spaces.catalog import load_space
from tests.kubernetes_api.kinds import BY_NAME
from tests.kubernetes_api.validation import check
from tests.kubernetes_schemas import restricted_problems
from tests.waiting import PATIENCE_SECONDS

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "k8s"
PROFILES = FOLDER / "clusters.yaml"
DIGEST = "sha256:" + "3" * 64

Item = dict[str, Any]
needs_kustomize = pytest.mark.skipif(
    not (shutil.which("kustomize") or shutil.which("kubectl")),
    reason="neither kustomize nor kubectl is on the PATH: what overlays and components make is not checked",
)


def profile(name: str = "dev") -> ClusterProfile:
    return load_profile(name, path=PROFILES)


def rendered(space_name: str, on: ClusterProfile) -> Manifests:
    space = load_space(space_name)
    return render(LaunchRequest(space=space, sweep=space.name), on)


def built(folder: Path) -> list[Item]:
    command = ["kustomize", "build"] if shutil.which("kustomize") else ["kubectl", "kustomize"]
    done = subprocess.run(
        [*command, str(folder)], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    items = list(yaml.safe_load_all(done.stdout))
    assert all(items)
    return items


def composed(folder: Path, *components: str, **more: Any) -> list[Item]:
    """The base with components, and with more fields of a kustomization, as a folder beside the overlays has it."""
    shutil.copytree(FOLDER, folder / "k8s")
    overlay = folder / "k8s" / "overlays" / "other"
    overlay.mkdir()
    content = {
        "resources": ["../../base"],
        "components": [f"../../components/{name}" for name in components],
        **more,
    }
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(content))
    return built(overlay)


def by_name(items: Iterable[Item]) -> dict[tuple[str, str], Item]:
    """Objects by kind and name; the hash in names is left out, since it is that of what was there before patches."""
    (job,) = [item for item in items if item["kind"] == "RayJob"]
    sweep, _, digest = job["metadata"]["name"].rpartition("-")
    assert len(digest) == 8
    found = {}
    for item in json.loads(json.dumps(list(items)).replace(job["metadata"]["name"], f"{sweep}-HASH")):
        item["metadata"].get("annotations", {}).pop(SPEC_HASH, None)
        if not item["metadata"].get("annotations", True):
            del item["metadata"]["annotations"]
        found[item["kind"], item["metadata"]["name"]] = item
    return found


def test_what_is_generated_is_what_render_makes_now() -> None:
    files = runpy.run_path(str(FOLDER / "write_manifests.py"))["files"]()
    assert len(files) == 6
    for path, text in files.items():
        assert path.read_text() == text, f"{path} is out of date: make manifests"


@pytest.mark.parametrize("folder", ["base", "overlays/prod"])
def test_base_and_prod_are_the_bytes_of_the_command_line_that_their_header_names(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BO_SWEEP_CLUSTERS", str(PROFILES))
    _, command, written = (FOLDER / folder / "sweep.yaml").read_text().split("\n", 2)
    words = shlex.split(command.removeprefix("# "))
    assert words[:3] == ["bo-sweep", "k8s", "render"]
    done = CliRunner().invoke(render_command, words[3:])
    assert done.exit_code == 0, done.stderr
    assert done.stdout == written


def test_all_that_is_optional_comes_from_components() -> None:
    kinds = [item["kind"] for item in yaml.safe_load_all((FOLDER / "base" / "setup.yaml").read_text())]
    assert kinds == ["ServiceAccount", "Role", "PersistentVolumeClaim"]
    for name in profile_names(PROFILES):
        assert profile(name).namespace == "bo-sweep"


OPTIONS: dict[str, dict[str, Any]] = {
    "networkpolicy": {},
    "podmonitor": {"pod_monitor": True},
    "kueue": {"queue": "sweeps"},
    "spot": {"spot": Spot(node_selector={"karpenter.sh/capacity-type": "spot"})},
}


@needs_kustomize
@pytest.mark.parametrize("components", [[], *([name] for name in OPTIONS), list(OPTIONS)], ids="+".join)
def test_base_with_components_is_what_render_makes_of_the_profile_with_those_options(
    components: list[str], tmp_path: Path
) -> None:
    options = {field: value for name in components for field, value in OPTIONS[name].items()}
    expected = by_name(rendered("digits-grid", profile().model_copy(update=options)).all)
    if "networkpolicy" not in components:  # the command line always sets it up
        del expected["NetworkPolicy", "bo-sweep"]
    assert by_name(composed(tmp_path, *components)) == expected


@needs_kustomize
@pytest.mark.parametrize(("overlay", "space"), [("dev", "digits-grid"), ("prod", "imagenet-grid")])
def test_overlays_are_what_the_command_line_submits_with_the_profile_of_that_name(overlay: str, space: str) -> None:
    made = rendered(space, profile(overlay))
    found = built(FOLDER / "overlays" / overlay)
    assert by_name(found) == by_name(made.all)
    for item in found:
        check(BY_NAME[item["kind"]], item, applied=False)


@needs_kustomize
def test_an_image_and_a_namespace_of_ones_own_reach_every_pod(tmp_path: Path) -> None:
    image = {"name": "bo-sweep", "newName": "registry.example.org/bo-sweep", "digest": DIGEST}
    found = composed(tmp_path, images=[image], namespace="team")
    update = {"image": f"registry.example.org/bo-sweep@{DIGEST}", "namespace": "team"}
    expected = by_name(rendered("digits-grid", profile().model_copy(update=update)).all)
    del expected["NetworkPolicy", "bo-sweep"]
    assert by_name(found) == expected


@needs_kustomize
def test_a_changed_sweep_gets_a_new_name_and_leaves_the_results_where_they_are(tmp_path: Path) -> None:
    found = composed(tmp_path, "renamed")
    before, after = (
        {item["kind"]: item for item in items} for items in (rendered("digits-grid", profile()).all, found)
    )
    for kind in ("RayJob", "ConfigMap"):
        assert after[kind]["metadata"]["name"] == before[kind]["metadata"]["name"] + "-2"
    for kind in ("ServiceAccount", "PersistentVolumeClaim"):
        assert after[kind]["metadata"]["name"] == before[kind]["metadata"]["name"]
    cluster = after["RayJob"]["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        volumes = {volume["name"]: volume for volume in group["template"]["spec"]["volumes"]}
        assert volumes["config"]["configMap"]["name"] == after["ConfigMap"]["metadata"]["name"]
        assert volumes["results"]["persistentVolumeClaim"]["claimName"] == "bo-sweep-results"


@needs_kustomize
def test_the_object_store_for_trying_out_is_the_one_that_the_profile_dev_s3_names() -> None:
    items = {item["kind"]: item for item in built(FOLDER / "components" / "minio")}
    results = profile("dev-s3").results
    assert results.endpoint is not None
    assert results.url is not None
    address, bucket = urlsplit(results.endpoint), urlsplit(results.url).netloc
    service, job = items["Service"], items["Job"]["spec"]["template"]
    assert (address.hostname, address.port) == (service["metadata"]["name"], service["spec"]["ports"][0]["port"])
    assert items["Secret"]["metadata"]["name"] == results.secret
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= set(items["Secret"]["stringData"])
    assert job["spec"]["containers"][0]["command"][-1] == f"try/{bucket}"
    server = items["Deployment"]["spec"]["template"]
    assert service["spec"]["selector"].items() <= server["metadata"]["labels"].items()
    for item in items.values():
        assert item["metadata"]["namespace"] == profile("dev-s3").namespace
        check(BY_NAME[item["kind"]], item, applied=False)
    for template in (server, job):
        assert restricted_problems(template["spec"]) == []


def test_every_profile_is_valid_and_renders() -> None:
    assert profile_names(PROFILES) == ["dev", "dev-s3", "prod"]
    for name in ("dev", "dev-s3"):
        assert rendered("digits-grid", profile(name)).notes == ()
    made = rendered("imagenet-grid", profile("prod"))
    assert made.notes == ()
    for item in made.all:
        check(BY_NAME[item["kind"]], item, applied=False)
