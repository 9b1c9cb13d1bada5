"""What is sent to a bare Ray cluster for a sweep; test_on_a_ray_cluster.py sends it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.entry_point import LaunchRequest
from orchestrator.ray_environment import JOB_STOP_SECONDS
from orchestrator.ray_jobs.connection import connect, takes_jobs
from orchestrator.ray_jobs.parcel import pack
from orchestrator.ray_jobs.wheel import KINDS, running_code, write_wheel
from search_spaces.catalog import load_space
from search_spaces.runs import expand

SPACE = ("widths=[2]", "noise.rates=[0, 0.4]", "seeds=1")


def request(*overrides: str, **options: Any) -> LaunchRequest:
    space = load_space("digits-grid", [*SPACE, *overrides])
    return LaunchRequest(space, "small digits", **options)


class TestWheel:
    def test_it_holds_all_of_the_package_and_asks_for_nothing(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(write_wheel(tmp_path, running_code())) as wheel:
            names = wheel.namelist()
            metadata = wheel.read(f"bo_sweep-{distribution('bo-sweep').version}.dist-info/METADATA").decode()
        for name in ("orchestrator/cli.py", "workers/train.py", "search_spaces/builtin/digits-grid.yaml"):
            assert name in names
        assert "orchestrator/report/static/page.html" in names
        assert not [name for name in names if "__pycache__" in name or name.startswith("tests/")]
        assert "Name: bo-sweep" in metadata
        assert "Requires-Dist" not in metadata

    def test_the_same_code_gives_the_same_bytes_from_a_checkout_and_from_an_installed_package(
        self, tmp_path: Path
    ) -> None:
        here = write_wheel(tmp_path, running_code()).read_bytes()
        installed = tmp_path / "installed"
        with zipfile.ZipFile(tmp_path / next(tmp_path.glob("*.whl"))) as wheel:
            wheel.extractall(installed)
        (installed / "search_spaces" / "__pycache__").mkdir()
        (installed / "search_spaces" / "__pycache__" / "spec.cpython-311.pyc").write_bytes(b"of this machine")
        for name in (".env", "wandb.key", "spec.py~", "spec.py.orig"):
            (installed / "search_spaces" / name).write_text("of this machine")
        assert write_wheel(tmp_path, running_code(installed)).read_bytes() == here
        (installed / "search_spaces" / "spec.py").write_text("changed = True\n")
        assert running_code(installed).digest != running_code().digest

    def test_all_kinds_of_files_that_are_packaged_travel(self) -> None:
        project = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text())
        packaged = [name for names in project["tool"]["setuptools"]["package-data"].values() for name in names]
        assert {Path(name).suffix for name in packaged} | {".py"} == set(KINDS)

    def test_unpacked_it_is_what_runs(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(write_wheel(tmp_path, running_code())) as wheel:
            wheel.extractall(tmp_path)
        code = "import orchestrator, importlib.metadata as m; print(orchestrator.__file__, m.requires('bo-sweep'))"
        found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert found.stdout.split() == [str(tmp_path / "orchestrator" / "__init__.py"), "None"]


class TestParcel:
    def test_the_same_launch_has_the_same_id_and_any_other_another(self) -> None:
        code = running_code()
        parcel = pack(request(), "/shared", None, code)
        assert parcel == pack(request(), "file:///shared", None, code)
        assert parcel.job_id == f"small-digits-{parcel.digest}"
        others = [
            pack(request("recipe.epochs=3"), "/shared", None, code),
            pack(request(workers=2), "/shared", None, code),
            pack(request(), "s3://bucket/sweeps", None, code),
            pack(request(), "/shared", "/data", code),
            pack(request(), "/shared", None, replace(code, files=code.files[1:])),
        ]
        assert len({each.digest for each in (parcel, *others)}) == 6

    def test_the_command_is_one_line_for_a_shell(self) -> None:
        parcel = pack(request(cells=("noise_rate>=0.2 ratio<10",), figures=False), "/shared", "/data")
        assert parcel.entrypoint == (
            "exec python -m orchestrator.cli launch space.yaml --storage /shared --name 'small digits' --data /data "
            "--address auto --as-job --no-figures --cells 'noise_rate>=0.2 ratio<10'"
        )

    def test_a_label_file_travels_and_runs_keep_their_ids(self, tmp_path: Path) -> None:
        np.save(tmp_path / "noisy.npy", np.zeros(500, int))
        asked = request(f"noise={{model: file, file: {tmp_path}/noisy.npy, rates: [0.1]}}")
        parcel = pack(asked, "/shared", None)
        content = dict(parcel.files)
        assert content["labels.npy"] == (tmp_path / "noisy.npy").read_bytes()
        assert str(tmp_path) not in content["space.yaml"].decode()
        unpacked = tmp_path / "unpacked"
        unpacked.mkdir()
        for name, written in content.items():
            (unpacked / name).write_bytes(written)
        there = load_space(str(unpacked / "space.yaml"))
        assert [run.run_id for run in expand(there)] == [run.run_id for run in expand(asked.space)]
        (tmp_path / "noisy.npy").write_bytes(b"another")
        with pytest.raises(ValueError, match="file_sha256"):
            pack(asked, "/shared", None)

    def test_what_nodes_could_not_find_is_told_at_once(self) -> None:
        with pytest.raises(ValueError, match="'sweeps' is a folder of this machine") as told:
            pack(request(), "sweeps", "data")
        assert "--data 'data' is relative" in str(told.value)
        assert "s3://bucket/prefix" in str(told.value)
        with pytest.raises(ValueError, match="credentials"):
            pack(request(), "s3://key:secret@bucket/sweeps", None)

    def test_stopping_leaves_time_to_save(self, tmp_path: Path) -> None:
        environment = pack(request(), "/shared", None).runtime_environment(tmp_path)
        assert environment["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == str(JOB_STOP_SECONDS)
        assert environment.keys() == {"working_dir", "env_vars"}


def test_only_dashboards_and_ray_client_take_jobs() -> None:
    assert all(map(takes_jobs, ("http://head:8265", "https://ray.example.org", "ray://head:10001")))
    assert not any(map(takes_jobs, (None, "auto", "head:6379")))
    with pytest.raises(ValueError, match="http://head:8265"):
        connect("head:6379")
