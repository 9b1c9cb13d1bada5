"""`make image`: which builder it takes, how it pins the base, and what it prints."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.k8s.profiles import load_profile
from tests.waiting import PATIENCE_SECONDS

ROOT = Path(__file__).resolve().parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
DIGEST = "sha256:" + "5" * 64
PUSHED = "sha256:" + "7" * 64

STUB = """#!/bin/sh
echo "${{0##*/}} $*" >> "$CALLS"
case "$1" in
info) exit {info} ;;
pull) exit {pull} ;;
inspect) echo {digest} ;;
image)
    echo "python@{digest}"
    for name in registry.example.org:5000/bo-sweep ada/bo-sweep; do echo "$name@{pushed}"; done ;;
push) if [ "$2" = --digestfile ]; then printf %s {pushed} > "$3"; fi ;;
esac
"""
TOOLS = ("sed", "head", "grep", "mktemp", "cat", "rm", "git", "sh")


@dataclass
class Bench:
    """A PATH on which builders are stubs that note how they were called."""

    folder: Path

    def put(self, name: str, *, works: bool = True, pulls: bool = True, digest: str = DIGEST) -> None:
        script = STUB.format(info=int(not works), pull=int(not pulls), digest=digest, pushed=PUSHED)
        path = self.folder / name
        path.write_text(script)
        path.chmod(0o755)

    def build(self, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.folder), "CALLS": str(self.folder / "calls"), "HOME": str(self.folder)}
        return subprocess.run(
            ["/bin/sh", "k8s/build.sh"],
            cwd=ROOT,
            env={**environment, **variables},
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )

    @property
    def calls(self) -> list[str]:
        notes = self.folder / "calls"
        return [line for line in notes.read_text().splitlines() if " info" not in line] if notes.exists() else []


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    for tool in TOOLS:
        place = shutil.which(tool)
        assert place, tool
        (tmp_path / tool).symlink_to(place)
    return Bench(tmp_path)


@pytest.mark.parametrize("builder", ["docker", "podman", "buildah"])
def test_the_builder_that_works_is_used_and_the_base_is_pinned(builder: str, bench: Bench) -> None:
    for name in ("docker", "podman", "buildah"):
        bench.put(name, works=name == builder)
    done = bench.build()
    assert done.returncode == 0, done.stderr
    image = f"{'' if builder == 'docker' else 'localhost/'}bo-sweep:{VERSION}"  # as the cluster will know it
    assert done.stdout == f"{image}\n"
    assert f"BASE_DIGEST={DIGEST}" in done.stderr
    archive = "kind load image-archive bo-sweep.tar"
    load = {
        "docker": f"kind load docker-image {image}\n",
        "podman": f"podman save -o bo-sweep.tar {image} && {archive}\n",
        "buildah": f"buildah push {image} docker-archive:bo-sweep.tar:{image} && {archive}\n",
    }
    assert f"For kind: {load[builder]}" in done.stderr
    assert f"  image: {image}\n" in done.stderr
    assert f" -t {image} " in "".join(bench.calls)
    (build,) = [call for call in bench.calls if " build " in call]
    assert build.startswith(f"{builder} build")
    assert ("--format docker" in build) == (builder != "docker")
    assert ("--layers" in build) == (builder == "buildah"), "the others make layers in any case"
    assert "--build-arg BASE=docker.io/library/python:3.12-slim-bookworm" in build
    assert f"--build-arg BASE_DIGEST={DIGEST}" in build
    assert f"--build-arg VERSION={VERSION}" in build
    assert build.endswith(" .")
    assert not [call for call in bench.calls if " push" in call]


@pytest.mark.parametrize("builder", ["docker", "podman", "buildah"])
def test_a_push_prints_what_goes_into_the_profile(builder: str, bench: Bench) -> None:
    bench.put(builder)
    done = bench.build(PUSH="1", IMAGE="registry.example.org:5000/bo-sweep", BASE_DIGEST=DIGEST)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"registry.example.org:5000/bo-sweep@{PUSHED}\n"
    assert load_profile(path=bench.folder / "none", image=done.stdout.strip(), results={"claim": "c"})
    assert not [call for call in bench.calls if " pull" in call]  # the digest was given
    (push,) = [call for call in bench.calls if " push" in call]
    assert push.endswith(f" registry.example.org:5000/bo-sweep:{VERSION}")


@pytest.mark.parametrize(("image", "code"), [("docker.io/ada/bo-sweep:1", 0), ("registry.example.org/other:1", 4)])
def test_docker_calls_its_own_registry_otherwise_and_a_push_without_digest_fails(
    image: str, code: int, bench: Bench
) -> None:
    bench.put("docker")
    done = bench.build(PUSH="1", IMAGE=image, BASE_DIGEST=DIGEST)
    assert done.returncode == code
    assert done.stdout == ("" if code else f"docker.io/ada/bo-sweep@{PUSHED}\n")
    assert ("does not tell the digest" in done.stderr) == bool(code)


def test_a_base_without_a_digest_is_built_from_and_told(bench: Bench) -> None:
    bench.put("buildah", pulls=False)
    done = bench.build(BASE="localhost/python:3.12", EXTRA_PACKAGES="g++ make", BUILD_OPTIONS="--network host")
    assert done.returncode == 0, done.stderr
    assert "cannot be repeated" in done.stderr
    assert "BASE_DIGEST=sha256:" in done.stderr
    (build,) = [call for call in bench.calls if " build " in call]
    assert "--network host" in build
    assert "BASE=localhost/python:3.12 --build-arg BASE_DIGEST= --build-arg EXTRA_PACKAGES=g++ make" in build


@pytest.mark.parametrize(
    ("builders", "variables", "code", "part"),
    [
        ([], {}, 4, "None of docker, podman and buildah works here"),
        (["podman"], {"BUILDER": "docker"}, 4, "None of docker works here"),
        (["docker"], {"PUSH": "1"}, 2, f"IMAGE=registry.example.org/bo-sweep:{VERSION}"),
        (["docker"], {"IMAGE": f"bo-sweep@{DIGEST}"}, 2, "a digest is what a build ends with"),
    ],
)
def test_what_cannot_be_built_is_told_before_anything_is(
    builders: list[str], variables: dict[str, str], code: int, part: str, bench: Bench
) -> None:
    for name in builders:
        bench.put(name)
    done = bench.build(**variables)
    assert done.returncode == code
    assert part in done.stderr
    assert done.stdout == ""
    assert bench.calls == []
