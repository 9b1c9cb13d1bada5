"""Where sweeps lie while they are disturbed: a folder, a tiny file system, an object store, a Ray cluster."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.object_storage import ObjectStorage
from orchestrator.storage import open_storage
from tests.chaos.sweep import Place
from tests.object_store import BUCKET, Store, started

DISK_BYTES = 48 * 2**20
STORE_BYTES = 128 * 2**20


def folder(path: Path) -> Place:
    """A sweep in a folder of a healthy disk."""
    return Place(str(path), open_storage(path))


@dataclass(frozen=True)
class TinyDisk:
    """A file system in memory, which can be filled and made read-only; needs root."""

    path: Path

    @property
    def _ballast(self) -> Path:
        return self.path / "ballast"

    def fill(self) -> None:
        """Leave not one byte free."""
        with suppress(OSError), open(self._ballast, "wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def set_writable(self, writable: bool) -> None:
        """Remount it; to take the right to write away, a moment is waited for at which no file is open for writing."""
        options = f"remount,{'rw' if writable else 'ro'}"
        for _ in range(200):
            if subprocess.run(["mount", "-o", options, self.path], capture_output=True).returncode == 0:
                return
            time.sleep(0.01)
        raise OSError(f"{self.path} cannot be remounted: a file on it stays open for writing")


def why_no_tiny_disk() -> str | None:
    """The reason why no file system can be mounted here, or None."""
    if os.geteuid() != 0:
        return "mounting a file system needs root"
    with tempfile.TemporaryDirectory() as path:
        tried = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", path], capture_output=True, text=True
        )
        if tried.returncode:
            return f"a file system cannot be mounted here: {tried.stderr.strip()}"
        subprocess.run(["umount", path], check=True)
    return None


@contextmanager
def tiny_disk(path: Path) -> Iterator[tuple[Place, TinyDisk]]:
    """A sweep on a disk of DISK_BYTES."""
    path.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", path], check=True)
    try:
        yield folder(path), TinyDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@contextmanager
def object_store() -> Iterator[tuple[Place, Store]]:
    """A sweep in an object store behind a proxy with faults; the checks go around the proxy."""
    with started("s3") as store:
        environment = {
            "AWS_ENDPOINT_URL": store.address,
            "AWS_ACCESS_KEY_ID": "anyone",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REGION": "us-east-1",
        }
        os.environ.update({name: value for name, value in environment.items() if name != "AWS_ENDPOINT_URL"})
        url = f"s3://{BUCKET}/chaos"
        yield Place(url, replace(ObjectStorage.from_url(url), endpoint=store.direct), environment), store


@dataclass
class Nodes:
    """A Ray cluster of three nodes with one CPU each on this machine; the launch itself is at home on the head."""

    ray: Any
    added: int = field(default=0)

    def use(self, place: Place) -> Place:
        """The same place, with launches on these nodes."""
        return replace(place, arguments=("--address", self.ray.address))

    def add(self) -> None:
        """One more node."""
        self.ray.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
        self.added += 1

    def remove(self, index: int, *, kill: bool) -> None:
        """Take away a node that is not the head: its raylet is killed, or it leaves in good order."""
        node = sorted(self.ray.worker_nodes, key=lambda each: str(each.raylet_socket_name))[index]
        if kill:
            (raylet,) = node.all_processes["raylet"]
            raylet.process.kill()
            raylet.process.wait()
        self.ray.remove_node(node, allow_graceful=not kill)

    def kill_head(self) -> None:
        """Kill the head's GCS, and with it the whole cluster."""
        (server,) = self.ray.head_node.all_processes["gcs_server"]
        server.process.kill()
        server.process.wait()


@contextmanager
def nodes(environment: Mapping[str, str] | None = None) -> Iterator[Nodes]:
    """A cluster of three nodes."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    cluster = Nodes(Cluster(initialize_head=True, head_node_args=head))
    try:
        cluster.add()
        cluster.add()
        yield cluster
    finally:
        with suppress(Exception):  # of one whose head was killed, what can be stopped
            cluster.ray.shutdown()
