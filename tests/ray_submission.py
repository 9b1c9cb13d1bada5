"""A rendered RayJob, and the Ray cluster that it describes: what KubeRay makes of it, on this machine."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from orchestrator.entry_point import LaunchRequest
from orchestrator.k8s.profile import ClusterProfile, Results, Workers
from orchestrator.k8s.rendering.manifests import render
from orchestrator.k8s.rendering.mounts import Mounts
from search_spaces.catalog import load_space
from tests.launches import creeping_at
from tests.ray_cluster import TokenCluster, token_cluster

SWEEP = "digits-grid"
SPACE = (
    *("widths=[2]", "noise.rates=[0, 0.4]", "seeds=1", "recipe.epochs=60", "evaluation.points=20"),
    "resources.checkpoint_seconds=0.2",
)
"""2 runs in one pack of a few seconds, which is saved all the time."""
STOP_VARIABLES = ("RAY_JOB_STOP_WAIT_TIME_S",)
PROFILE = ClusterProfile(
    image="registry.example.org/bo-sweep:1",
    unpinned_image=True,
    results=Results(claim="results"),
    workers=Workers(cpus=2),
)


@dataclass(frozen=True)
class Submission:
    """A rendered sweep whose ConfigMap is mounted, and the cluster that its RayJob describes."""

    job: dict[str, Any]
    mounts: Mounts
    cluster: TokenCluster

    def command(self, submission_id: str) -> list[str]:
        """The submitter's container, as KubeRay 1.7 makes it (BuildJobSubmitCommand of its common/job.go)."""
        address, spec = self.cluster.address, self.job["spec"]
        check = (
            f"import urllib.request; r=urllib.request.urlopen('{address}/api/gcs_healthz', timeout=10); "
            "exit(0 if b'success' in r.read() else 1)"
        )
        environment = json.dumps(yaml.safe_load(spec["runtimeEnvYAML"]))
        script = [
            *("until", f'python -c "{check}"', ">/dev/null", "2>&1", ";"),
            *("do", "echo", f'"Waiting for Ray Dashboard GCS to become healthy at {address} ..."', ";"),
            *("sleep", "2", ";", "done", ";"),
            *(
                "if",
                "!",
                "ray",
                "job",
                "status",
                "--address",
                address,
                submission_id,
                ">/dev/null",
                "2>&1",
                ";",
                "then",
            ),
            *("ray", "job", "submit", "--address", address, "--no-wait"),
            *("--runtime-env-json", json.dumps(environment), "--submission-id", submission_id),
            *("--", spec["entrypoint"].strip(), ";", "fi", ";"),
            *("ray", "job", "logs", "--address", address, "--follow", submission_id),
        ]
        return ["/bin/bash", "-ce", "--", " ".join(script)]

    def run(self, submission_id: str) -> str:
        """Submit and follow to the end; returns what the submitter's pod has for its log."""
        done = self.cluster.run(*self.command(submission_id))
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def start(self, submission_id: str) -> subprocess.Popen[str]:
        """The same, not waited for."""
        return subprocess.Popen(
            self.command(submission_id),
            env=dict(self.cluster.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def status(self, submission_id: str) -> str:
        """What the operator decides by."""
        return str(self.cluster.get(f"/api/jobs/{submission_id}")["status"])

    def drivers(self) -> list[psutil.Process]:
        """The processes that run the entry point."""
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if f"{self.mounts.config}/space.yaml" in (process.info["cmdline"] or ())
            and any(word.endswith("/bin/bo-sweep") for word in process.info["cmdline"])
        ]

    @property
    def sign(self) -> Path:
        """While this file is there, training hardly gets on."""
        return Path(self.mounts.config) / "creeps"

    @property
    def sweep(self) -> Path:
        return Path(self.mounts.results) / SWEEP


def variables(template: dict[str, Any]) -> dict[str, str]:
    """The environment of the only container of a pod."""
    (container,) = template["spec"]["containers"]
    return {each["name"]: each["value"] for each in container["env"]}


@contextmanager
def rendered_cluster(folder: Path) -> Iterator[Submission]:
    """A cluster with the environment of the rendered pods, but for the time to save: a job has to bring that itself."""
    mounts = Mounts(*(str(folder / name) for name in ("config", "results", "data", "home")))
    for path in (mounts.config, mounts.results, mounts.data, mounts.home):
        Path(path).mkdir()
    config, job = render(LaunchRequest(load_space(SWEEP, SPACE), SWEEP, figures=False), PROFILE, mounts).job
    for name, text in config["data"].items():
        (Path(mounts.config) / name).write_text(text)
    for name, content in config.get("binaryData", {}).items():
        (Path(mounts.config) / name).write_bytes(base64.b64decode(content))
    groups = job["spec"]["rayClusterSpec"]
    head, worker = (groups["headGroupSpec"], groups["workerGroupSpecs"][0])
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    of_head = {name: value for name, value in variables(head["template"]).items() if name not in STOP_VARIABLES}
    of_worker = variables(worker["template"]) | creeping_at(Path(mounts.config) / "creeps")
    with token_cluster(of_head, of_worker) as cluster:
        yield Submission(job, mounts, cluster)
