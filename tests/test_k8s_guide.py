"""k8s/README.md: every command, file and variable that it names is there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from orchestrator.cli import main
from orchestrator.entry_point import LaunchRequest
from orchestrator.k8s.profiles import load_profile
from orchestrator.k8s.rendering.manifests import render
from orchestrator.k8s.values import amount_of
from search_spaces.catalog import load_space
from tests.kubernetes_api.kinds import BY_NAME
from tests.kubernetes_api.validation import check
from tests.kubernetes_schemas import pod_templates, restricted_problems
from tests.waiting import PATIENCE_SECONDS

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "k8s"


def test_make_has_the_targets_that_the_guide_names() -> None:
    for target, part in (("image", "k8s/build.sh"), ("manifests", "k8s/write_manifests.py")):
        done = subprocess.run(
            ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )
        assert done.returncode == 0, done.stderr
        assert part in done.stdout


def guide_lines() -> list[str]:
    """Command lines of the guide, without comments; those that go on are joined."""
    text = (FOLDER / "README.md").read_text()
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL).replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.startswith("    ")]


def own_commands() -> Iterator[list[str]]:
    for line in guide_lines():
        if line.startswith("bo-sweep "):
            yield shlex.split(re.split(r"[|>]", line)[0], comments=True)[1:]


@pytest.mark.parametrize("arguments", list(own_commands()), ids=" ".join)
def test_every_command_of_the_guide_parses(arguments: list[str]) -> None:
    command: click.Command = main
    context = click.Context(main)
    rest = arguments
    while isinstance(command, click.Group):
        found = command.get_command(context, rest[0])
        assert found, f"there is no {' '.join(arguments)}"
        command, rest = found, rest[1:]
    command.make_context("bo-sweep", rest)


def test_commands_within_sentences_exist() -> None:
    inline = re.findall(r"`bo-sweep ((?:[a-z0-9]+(?:-[a-z]+)*[ `])+)", (FOLDER / "README.md").read_text())
    assert len(inline) > 5
    for text in inline:
        command: click.Command | None = main
        for word in text.strip("`").split():
            if not isinstance(command, click.Group):
                break
            command = command.get_command(click.Context(command), word)
            assert command, text


def test_files_and_variables_of_the_guide_exist() -> None:
    script = (FOLDER / "build.sh").read_text()
    named = re.findall(r"(?:apply -[kf] |cp )(k8s/\S+?)[`\s]", (FOLDER / "README.md").read_text())
    assert len(named) >= 3
    for path in named:
        assert (ROOT / path).exists(), path
    variables = re.findall(r"make image ([A-Z_]+)=", (FOLDER / "README.md").read_text())
    assert {"IMAGE", "PUSH", "EXTRA_PACKAGES", "BUILD_OPTIONS"} <= set(variables)
    for name in variables:
        assert f"${{{name}:-" in script, name
    folders = [path.name for path in (FOLDER / "components").iterdir()]
    guide = (FOLDER / "README.md").read_text()
    assert all(f"`{name}`" in guide or f"components/{name}" in guide for name in folders)


def test_the_cluster_that_the_guide_asks_for_holds_the_digits_and_the_object_store() -> None:
    said = re.search(r"(\d+) CPUs, (\d+) GB of memory", (FOLDER / "README.md").read_text())
    assert said
    dev = load_profile("dev", path=FOLDER / "clusters.yaml")
    space = load_space("digits-grid")
    _, rayjob = render(LaunchRequest(space=space, sweep=space.name), dev).job
    server = next(yaml.safe_load_all((FOLDER / "components" / "minio" / "server.yaml").read_text()))
    pods = [*pod_templates(rayjob), server["spec"]["template"]]
    asked = [pod["spec"]["containers"][0]["resources"]["requests"] for pod in pods]
    asked += [{"cpu": "950m", "memory": "290Mi"}, {"cpu": "100m", "memory": "512Mi"}]  # of kind, of KubeRay's operator
    assert sum(amount_of(one["cpu"]) for one in asked) <= int(said[1])
    assert sum(amount_of(one["memory"]) for one in asked) <= int(said[2]) * 1e9


def test_the_job_that_prepares_imagenet_writes_where_the_profile_prod_reads() -> None:
    item = yaml.safe_load((FOLDER / "prepare-imagenet.yaml").read_text())
    check(BY_NAME["Job"], item, applied=False)
    prod = load_profile("prod", path=FOLDER / "clusters.yaml")
    assert prod.data is not None
    spec = item["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    claims = {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in spec["volumes"]}
    (volume,) = [name for name, claim in claims.items() if claim == prod.data.claim]
    arguments = container["command"]
    assert arguments[arguments.index("--out") + 1] == f"{mounts[volume]}/{prod.data.path}"
    assert container["image"] == prod.image
    assert arguments[arguments.index("--workers") + 1] == container["resources"]["limits"]["cpu"]
    (source,) = [volume for volume in spec["volumes"] if volume["name"] == "source"]
    assert source["persistentVolumeClaim"]["readOnly"] is True
    assert restricted_problems(spec) == []
    assert item["metadata"]["namespace"] == prod.namespace
    prepare = main.get_command(click.Context(main), "prepare")
    assert isinstance(prepare, click.Group)
    imagenet = prepare.get_command(click.Context(prepare), "imagenet")
    assert imagenet
    imagenet.make_context("imagenet", [part.replace("/source", os.fspath(ROOT)) for part in arguments[3:]])
