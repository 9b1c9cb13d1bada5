"""The doctor: what is well passes, what is not is told with a remedy, and nothing stays behind."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from click.testing import CliRunner, Result

from orchestrator import slots
from orchestrator.checks import machine, ray_clusters, services, software
from orchestrator.checks.data import check_betons
from orchestrator.checks.finding import Finding
from orchestrator.cli import main
from orchestrator.doctor import Check, looks
from orchestrator.storage import open_storage
from search_spaces.datasets import DATASETS
from tests import object_store
from tests.waiting import PATIENCE_SECONDS
from workers.beton_file import manifest_path, write_beton
from workers.betons import prepare_digits, prepare_mixture

pytestmark = pytest.mark.ray


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No login, cluster or setting of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith(("WANDB_", "RAY_", "KUBE", "BO_SWEEP_")) or name in ("NETRC", "CUDA_VISIBLE_DEVICES"):
            monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def doctor(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["doctor", *map(str, arguments)])


def check(name: str, storage: str = "sweeps", data: Path = Path("data")) -> Check:
    """One check as the doctor makes it, exceptions caught."""
    (look,) = [look for look in looks(storage, data) if look.name == name]
    return look.check()


def assert_told(finding: Finding | Check, status: str, found: str, remedy: str) -> None:
    assert (finding.status, found in finding.found, remedy in finding.remedy) == (status, True, True), finding


def test_all_is_well_here_and_nothing_stays_behind(tmp_path: Path, data_folder: Path) -> None:
    prepare_digits(data_folder / "digits")
    result = doctor("digits-grid", "--storage", tmp_path / "new" / "sweeps", "--data", data_folder, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["schema_version"], document["healthy"]) == (1, True)
    statuses = {one["name"]: one["status"] for one in document["checks"]}
    must_be_well = ("Python", "packages", "torchvision", "FFCV", "betons of digits", "storage", "Ray")
    assert {statuses[name] for name in must_be_well} == {"ok"}
    assert statuses["Weights & Biases"] == "warning"
    assert statuses["Kubernetes"] == "skipped"
    for one in document["checks"]:
        assert set(one) == {"name", "status", "found", "remedy"}
        assert one["found"]
        assert bool(one["remedy"]) == (one["status"] != "ok")
    assert "bo-sweep launch digits-grid --storage" in result.stderr
    assert not (tmp_path / "new").exists()


def test_a_failed_check_exits_with_4_and_stops_no_other(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = doctor("cifar10-grid", "--storage", tmp_path / "file" / "sweeps", "--data", tmp_path)
    assert result.exit_code == 4
    words = " ".join(result.stdout.split())
    for part in ("train.beton", "cannot be written", "-> choose another place with --storage", "wandb login"):
        assert part in words
    assert "run the same command again" in result.stderr


def test_an_unknown_space_is_a_usage_error() -> None:
    result = doctor("cifar10-gird")
    assert result.exit_code == 2
    assert "Did you mean 'cifar10-grid'?" in result.stderr
    assert result.stdout == ""


def test_an_exception_in_any_check_becomes_a_failure_with_a_remedy(tmp_path: Path) -> None:
    def broken() -> Finding:
        raise RuntimeError("out of luck")

    for look in [*looks("sweeps", tmp_path, "digits", "10.0.0.1:6379"), *looks("sweeps", tmp_path)]:
        made = replace(look, make=broken).check()
        assert (made.status, made.found) == ("failed", "RuntimeError: out of luck")
        assert len(made.remedy) > 5


def test_an_unsupported_python_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.python_version", lambda: "3.14.0")
    assert_told(software.check_python(), "failed", "Python 3.14.0; bo-sweep needs <3.14,>=3.11", "make PYTHON=")


def test_packages_out_of_range_and_missing_ones_are_told_together(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed = {
        "bo_sweep-0.1.0": "Name: bo-sweep\nVersion: 0.1.0\nRequires-Dist: torch<2.16,>=2.11\n"
        'Requires-Dist: no-such-package>=1\nRequires-Dist: click>=8\nRequires-Dist: other; extra == "dev"\n',
        "torch-2.9.0": "Name: torch\nVersion: 2.9.0\n",
    }
    for name, text in installed.items():
        (tmp_path / f"{name}.dist-info").mkdir()
        (tmp_path / f"{name}.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\n{text}")
    monkeypatch.syspath_prepend(tmp_path)
    made = software.check_packages()
    assert_told(
        made, "failed", "torch is 2.9.0, needed is <2.16,>=2.11; no-such-package is not installed", "make install"
    )
    assert "click" not in made.found
    assert "other" not in made.found


def test_a_broken_ffcv_names_the_system_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "workers.loader", None)
    made = check("FFCV")
    for part in ("make install", "libopencv-dev", "libturbojpeg0-dev", "pkg-config"):
        assert_told(made, "failed", "ModuleNotFoundError", part)


def test_a_torchvision_that_does_not_fit_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert_told(check("torchvision"), "failed", "torchvision", "same index")


class TestGpus:
    @pytest.fixture(autouse=True)
    def one_gpu_that_torch_does_not_see(self, monkeypatch: pytest.MonkeyPatch) -> None:
        listed = os.listdir
        monkeypatch.setattr(os, "listdir", lambda path: ["nvidia0", "nvidiactl"] if path == "/dev" else listed(path))
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    def test_a_driver_that_does_not_fit_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("torch.version.cuda", "13.2")
        found = "torch was built for CUDA 13.2 but sees no device although /dev/nvidia* exist"
        assert_told(machine.check_gpus(), "failed", found, "update the driver to one for CUDA 13.2")

    def test_hidden_gpus_are_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("torch.version.cuda", "13.2")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert_told(machine.check_gpus(), "failed", "CUDA_VISIBLE_DEVICES is ''", "unset CUDA_VISIBLE_DEVICES")

    def test_a_torch_without_cuda_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("torch.version.cuda", None)
        assert_told(machine.check_gpus(), "failed", "built without CUDA", "pip install torch torchvision")

    def test_small_shared_memory_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        usage = shutil.disk_usage("/")._replace(total=64 * 2**20)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        monkeypatch.setattr(machine, "SHARED_MEMORY", Path("/"))
        assert_told(machine.check_shared_memory(), "warning", "0.07 GB", "--shm-size")


def test_little_memory_and_few_files_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1500000000\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    monkeypatch.setattr(slots, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    assert_told(machine.check_cpus_and_memory(), "warning", "3 of", "--workers 1")
    monkeypatch.setattr("resource.getrlimit", lambda kind: (1024, 2048))
    assert_told(machine.check_open_files(), "warning", "2048 files at most", "nofile=65536")


class TestBetons:
    @pytest.fixture
    def digits(self, data_folder: Path, tmp_path: Path) -> Path:
        prepare_digits(data_folder / "digits")
        shutil.copytree(data_folder / "digits", tmp_path / "digits")
        return tmp_path / "digits" / "train.beton"

    def test_sound_ones_are_described(self, digits: Path, tmp_path: Path) -> None:
        manifest_path(tmp_path / "digits" / "test.beton").unlink()
        found = check_betons("digits", tmp_path).found
        assert "train.beton: 700 samples" in found
        assert "labels 0 to 9, version sklearn-digits-1, its checksum fits; test.beton: 1,097 samples" in found
        assert found.endswith("version not told, no manifest, so no checksum to compare with")

    def test_those_found_are_checked_where_no_space_is_named(self, digits: Path, tmp_path: Path) -> None:
        prepare_mixture(tmp_path / "gaussian-mixture", samples=20, dimension=3, signal=10.0, seed=0)
        assert_told(check("betons of digits", data=tmp_path), "ok", "700 samples", "")
        assert_told(check("betons of gaussian-mixture", data=tmp_path), "ok", "20 samples", "")
        assert_told(check("betons", data=tmp_path / "empty"), "skipped", "no beton in", "--data")

    def test_truncated(self, digits: Path, tmp_path: Path) -> None:
        os.truncate(digits, 3_000_000)
        assert_told(check("betons of digits", data=tmp_path), "failed", "truncated", "prepare the data set again")

    def test_changed_bytes(self, digits: Path, tmp_path: Path) -> None:
        with open(digits, "r+b") as file:
            file.seek(2**21)
            file.write(b"\xff" * 8)
        assert_told(check("betons of digits", data=tmp_path), "failed", "its bytes changed", "restore it")

    @pytest.mark.parametrize(
        ("label", "version", "problem"),
        [(10, DATASETS["digits"].version, "labels lie in 0..10, not 0..9"), (9, "old", "it holds version 'old'")],
    )
    def test_of_another_data_set(self, label: int, version: str, problem: str, tmp_path: Path) -> None:
        images, labels = np.zeros((700, 1, 8, 8), np.uint8), np.zeros(700, np.int64)
        labels[-1] = label
        path = tmp_path / "digits" / "train.beton"
        write_beton(path, lambda: (images, labels), samples=700, dataset="digits", version=version)
        assert_told(check("betons of digits", data=tmp_path), "failed", problem, "prepare the data set again")

    def test_missing(self, tmp_path: Path) -> None:
        assert_told(check_betons("imagenet", tmp_path), "failed", "imagenet/test.beton", "prepare imagenet")
        assert_told(check_betons("digits", tmp_path), "ok", "made in", "")


class TestStorage:
    def test_an_object_store(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anyone")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        with object_store.started("s3") as store:
            monkeypatch.setenv("AWS_ENDPOINT_URL", store.address)
            made = check("storage", f"s3://{object_store.BUCKET}/doctor")
            assert open_storage(f"s3://{object_store.BUCKET}/doctor").list() == []
        assert_told(made, "ok", f"s3://{object_store.BUCKET}/doctor", "")

    def test_an_unknown_scheme_is_told(self) -> None:
        assert_told(check("storage", "ftp://host/folder"), "failed", "allowed are a path and", "--storage")

    def test_little_space_is_told(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        usage = shutil.disk_usage("/")._replace(free=10**8)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        assert_told(services.check_storage(str(tmp_path / "sweeps")), "warning", "0.1 GB free", "free space")

    def test_files_of_others_stay(self, tmp_path: Path) -> None:
        (tmp_path / "sweep").mkdir()
        (tmp_path / "sweep" / "sweep.json").write_text("{}")
        assert services.check_storage(str(tmp_path)).status == "ok"
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["home", "sweep", "sweep.json"]


class TestRay:
    def test_an_address_where_nothing_listens(self) -> None:
        result = doctor("--address", "127.0.0.1:1", "--json")
        assert result.exit_code == 4
        (made,) = [Check(**one) for one in json.loads(result.stdout)["checks"] if one["name"] == "Ray cluster"]
        assert_told(made, "failed", "no Ray cluster answers at 127.0.0.1:1", "ray status")

    def test_an_address_where_something_else_listens(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ray_clusters, "ANSWER_SECONDS", 1.5)
        with socket.create_server(("127.0.0.1", 0)) as server:
            made = ray_clusters.check_ray_cluster(f"127.0.0.1:{server.getsockname()[1]}")
        assert_told(made, "failed", "no Ray cluster let us in", "6379")

    def test_an_untested_version(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ray.__version__", "2.99.0")
        assert_told(ray_clusters.check_ray(), "warning", "Ray 2.99.0; tested are", "make install")

    def test_a_cluster_that_runs_here(self, tmp_path: Path) -> None:
        shutil.copy(shutil.which("sleep") or "", tmp_path / ray_clusters.HEAD_PROCESS)
        with subprocess.Popen([tmp_path / ray_clusters.HEAD_PROCESS, "3600"]) as head:
            try:
                assert_told(ray_clusters.check_ray_here(), "warning", f"process {head.pid}, ", "ray stop")
            finally:
                head.kill()

    def test_a_note_of_a_cluster_that_is_gone(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(psutil, "process_iter", lambda names: iter(()))  # whatever else runs on this machine
        monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
        assert ray_clusters.check_ray_here().status == "ok"
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.1:6379")
        assert_told(ray_clusters.check_ray_here(), "warning", "10.0.0.1:6379", f"rm {tmp_path}/ray/ray_current_cluster")

    def test_a_cluster_lets_in_who_has_its_token(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef0123456789abcdef")
        monkeypatch.setattr(ray_clusters, "ANSWER_SECONDS", PATIENCE_SECONDS)  # who is refused, is so long before that
        with cluster() as address:
            assert_told(ray_clusters.check_ray_cluster(address), "ok", "1 nodes, 1 CPUs, 0 GPUs", "")
            monkeypatch.setenv("RAY_AUTH_TOKEN", "of another cluster")
            refused = ray_clusters.check_ray_cluster(address)
            monkeypatch.delenv("RAY_AUTH_TOKEN")
            without = ray_clusters.check_ray_cluster(address)
        assert_told(refused, "failed", "RAY_AUTH_MODE is token, RAY_AUTH_TOKEN is set", "export RAY_AUTH_MODE=token")
        assert_told(without, "failed", "RAY_AUTH_TOKEN is not set", "ray get-auth-token")


@contextmanager
def cluster() -> Iterator[str]:
    """The address of a Ray cluster of one CPU, which inherits the environment."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:  # Ray wants short paths
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--port=0"]
        command += ["--num-cpus=1", "--include-dashboard=false", "--object-store-memory=80000000"]
        command += ["--disable-usage-stats", f"--temp-dir={folder}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as head:
            try:
                assert head.stdout is not None
                told = next(line for line in head.stdout if "ray start --address=" in line)
                yield told.partition("--address='")[2].partition("'")[0]
            finally:
                os.killpg(head.pid, signal.SIGKILL)  # SIGTERM would drain for half a minute


class TestWandb:
    def test_nobody_is_logged_in(self) -> None:
        assert_told(services.check_wandb(), "warning", "not logged in to api.wandb.ai", "wandb login")

    def test_a_key_in_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANDB_API_KEY", "not-to-be-shown")
        made = services.check_wandb()
        assert_told(made, "ok", "WANDB_API_KEY is set", "")
        assert "not-to-be-shown" not in made.found

    def test_switched_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANDB_MODE", "offline")
        assert_told(services.check_wandb(), "ok", "nothing is sent", "")

    def test_a_key_counts_for_the_host_that_is_configured(self, tmp_path: Path) -> None:
        (tmp_path / "home" / ".netrc").write_text("machine api.wandb.ai login user password not-to-be-shown\n")
        made = services.check_wandb()
        assert_told(made, "ok", ".netrc has a key for api.wandb.ai", "")
        assert "not-to-be-shown" not in made.found
        settings = tmp_path / "home" / ".config" / "wandb" / "settings"
        settings.parent.mkdir(parents=True)
        settings.write_text("[default]\nbase_url = https://wandb.example.org\n")
        assert_told(services.check_wandb(), "warning", "not logged in to wandb.example.org", "wandb login")

    def test_a_damaged_netrc(self, tmp_path: Path) -> None:
        (tmp_path / "home" / ".netrc").write_text("machine\nmachine x")
        assert_told(services.check_wandb(), "warning", ".netrc cannot be read", "correct")


class TestKubernetes:
    @pytest.fixture
    def kubeconfig(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'none'}{os.pathsep}{tmp_path / 'config'}")
        return tmp_path / "config"

    def test_it_is_not_needed(self) -> None:
        assert_told(services.check_kubernetes(), "skipped", "no kubeconfig", "not needed unless --on k8s")

    def test_the_package_is_asked_for(self, monkeypatch: pytest.MonkeyPatch, kubeconfig: Path) -> None:
        monkeypatch.setitem(sys.modules, "kubernetes", None)
        kubeconfig.write_text("")
        assert_told(services.check_kubernetes(), "skipped", str(kubeconfig), "pip install kubernetes")

    def test_the_api_is_asked_for_its_version(self, kubeconfig: Path) -> None:
        pytest.importorskip("kubernetes")
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), KubernetesApi) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            address = f"http://127.0.0.1:{server.server_port}"
            kubeconfig.write_text(
                "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
                f"clusters: [{{name: c, cluster: {{server: '{address}'}}}}]\n"
                "contexts: [{name: c, context: {cluster: c, user: c}}]\nusers: [{name: c, user: {token: t}}]\n"
            )
            assert_told(services.check_kubernetes(), "ok", f"{address} is Kubernetes v1.34.0", "")
            server.shutdown()
        start = time.monotonic()
        assert_told(services.check_kubernetes(), "warning", str(kubeconfig), "kubectl version")
        assert time.monotonic() - start < 2 * services.KUBERNETES_SECONDS


class KubernetesApi(http.server.BaseHTTPRequestHandler):
    """Knows its version, and nothing else."""

    def do_GET(self) -> None:
        names = ("major", "minor", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform")
        content = json.dumps(dict.fromkeys(names, "1") | {"gitVersion": "v1.34.0"}).encode()
        self.send_response(200 if self.path == "/version/" else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet."""
