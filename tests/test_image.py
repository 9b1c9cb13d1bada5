"""The image: what its Dockerfile promises, and what can get into it."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "k8s"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile, in order, lines that go on joined."""
    text = "\n".join(line for line in (FOLDER / "Dockerfile").read_text().splitlines() if not line.startswith("#"))
    lines = filter(None, re.sub(r"\\\n", " ", text).splitlines())
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def of(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def installed() -> list[set[str]]:
    """Debian's packages by stage."""
    found = re.findall(r"--no-install-recommends\s+(.*?)\s+&&", "\n".join(of("RUN")))
    return [set(names.split()) - {"${EXTRA_PACKAGES}"} for names in found]


def is_ignored(path: str) -> bool:
    """By .dockerignore, whose last line that matches a path or a folder above it decides."""

    def matches(pattern: str, part: str) -> bool:
        anywhere = pattern.startswith("**/")
        return fnmatch.fnmatchcase(Path(part).name if anywhere else part, pattern.removeprefix("**/"))

    ignored = False
    above = [*map(str, reversed(Path(path).parents)), path][1:]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#") and any(matches(line.removeprefix("!"), part) for part in above):
            ignored = not line.startswith("!")
    return ignored


def test_both_stages_start_from_a_base_that_a_digest_pins() -> None:
    pinned = "${BASE}${BASE_DIGEST:+@${BASE_DIGEST}}"
    assert of("FROM") == [f"{pinned} AS builder", pinned]
    assert [rest for rest in of("ARG") if rest.startswith("BASE=")] == [
        "BASE=docker.io/library/python:3.12-slim-bookworm"
    ]


def test_it_runs_as_a_plain_user_with_bash_and_no_entry_point() -> None:
    assert of("USER") == ["1000:1000"]
    last = instructions().index(("USER", "1000:1000"))
    assert not [name for name, _ in instructions()[last:] if name in ("RUN", "COPY", "ADD")]
    assert of("ENTRYPOINT") == []
    assert of("HEALTHCHECK")[0].endswith('CMD ["bo-sweep", "doctor"]')
    assert "useradd --uid 1000" in "".join(of("RUN"))
    assert "HOME=/home/bo-sweep" in of("ENV")[0]


def test_it_holds_no_secret_and_no_address_of_an_index() -> None:
    text = (FOLDER / "Dockerfile").read_text()
    assert not re.search(r"(?i)password|token|secret|api_key|--\S*index|--\S*host|https?://", text)
    assert of("ADD") == []


def test_the_compiler_stays_in_the_builder_and_both_stages_have_what_ffcv_needs() -> None:
    system = re.search(r"^SYSTEM_PACKAGES := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert system
    builder, runtime = installed()
    assert builder | {"libgl1"} == set(system[1].split())
    assert "libgl1" in runtime
    assert not any(re.match(r"(g\+\+|gcc|make|.*-dev)$", name) for name in runtime)
    assert {"libopencv-imgproc406", "libturbojpeg0"} <= runtime  # the names of Debian 12, which BASE says


def test_nothing_is_compiled_in_pods_and_a_missing_library_fails_the_build() -> None:
    """Official images of Python come without compiled modules, and a pod's user cannot write beside the sources."""
    steps = instructions()
    runtime = steps[max(index for index, (name, _) in enumerate(steps) if name == "FROM") :]
    commands = [rest for name, rest in runtime if name == "RUN"]
    assert "python -m compileall -q -j 0" in commands[0]
    assert 'get_path("stdlib")' in commands[0]
    assert not any("--no-compile" in rest for rest in commands)
    assert 'python -c "import cv2, ffcv, ray, torch"' in commands[-1]
    assert not any("PYTHONDONTWRITEBYTECODE" in rest for rest in of("ENV"))


def test_layers_come_in_the_order_of_how_often_they_change() -> None:
    steps = instructions()
    runtime = steps[max(index for index, (name, _) in enumerate(steps) if name == "FROM") :]
    folders = [rest.split()[-1] for name, rest in runtime if name == "COPY"]
    assert folders == ["/opt/bo-sweep/torch", "/opt/bo-sweep/others", "/opt/bo-sweep/own"]
    assert all("--no-cache-dir" in rest for rest in of("RUN") if re.search(r"pip (install|wheel)", rest))
    wheels = next(index for index, (_, rest) in enumerate(steps) if "pip wheel" in rest)
    assert [rest for name, rest in steps[:wheels] if name == "COPY"] == ["requirements.lock ./"]  # not the version
    after = [name for name, _ in runtime[[name for name, _ in runtime].index("USER") :]]
    assert after.count("LABEL") == 1  # with the revision, which is another one every time


def test_what_is_copied_exists_and_gets_past_dockerignore() -> None:
    copied = [rest.split()[:-1] for rest in of("COPY") if not rest.startswith("--from")]
    paths = [path for names in copied for path in names]
    assert {"pyproject.toml", "requirements.lock", "orchestrator", "workers", "search_spaces"} <= set(paths)
    for path in paths:
        assert (ROOT / path).exists(), path
        assert not is_ignored(path), path
    for package in PROJECT["tool"]["setuptools"]["packages"]:
        folder = package.replace(".", "/")
        assert folder.split("/")[0] in paths
        assert not is_ignored(f"{folder}/__init__.py")
    for package, patterns in PROJECT["tool"]["setuptools"]["package-data"].items():
        for pattern in patterns:
            found = list((ROOT / package.replace(".", "/")).glob(pattern))
            assert found
            assert not any(is_ignored(str(path.relative_to(ROOT))) for path in found)


def test_every_package_gets_into_the_wheel_that_the_image_holds() -> None:
    packages = {
        str(path.parent.relative_to(ROOT)).replace("/", ".")
        for top in ("orchestrator", "workers", "search_spaces")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages


@pytest.mark.parametrize(
    "path",
    [
        *(".git/config", ".venv/bin/python", "sweeps/digits-grid/sweep.json", ".env", "wandb-key", "k8s/clusters.yaml"),
        *("tests/test_image.py", "orchestrator/__pycache__/cli.cpython-312.pyc", "workers/old.pyc"),
    ],
)
def test_nothing_else_can_get_into_the_image(path: str) -> None:
    assert is_ignored(path)
