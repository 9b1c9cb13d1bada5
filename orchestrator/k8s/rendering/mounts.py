"""Where things are in the pods of a sweep, and the volumes that bring them there."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Any

from orchestrator.k8s.profile import ClusterProfile, Results
from search_spaces.dataset_choice import DatasetChoice

RAY_FOLDER = "/tmp/ray"
SHARED_MEMORY = "/dev/shm"
HOME_LIMIT = "5Gi"


@dataclass(frozen=True)
class Mounts:
    """Folders in pods. Tests give others."""

    config: str = "/etc/bo-sweep"
    """The space, and the noise file where it names one."""
    results: str = "/results"
    """The claim that holds the sweeps."""
    data: str = "/data"
    """The data folder. It is writable, since workers keep measurements in it and make data sets that come with
    bo-sweep; a prepared data set is mounted read-only as a folder in it."""
    home: str = "/home/bo-sweep"
    """Of uid 1000; caches go there."""

    def storage(self, results: Results) -> str:
        """What `--storage` is in a pod."""
        return self.results if results.url is None else results.url


@dataclass(frozen=True)
class Volumes:
    """Volumes of a pod, and where its container mounts them."""

    volumes: tuple[dict[str, Any], ...] = ()
    mounts: tuple[dict[str, Any], ...] = ()

    def __add__(self, other: Volumes) -> Volumes:
        return Volumes(self.volumes + other.volumes, self.mounts + other.mounts)


def config_volume(name: str, mounts: Mounts) -> Volumes:
    """The ConfigMap of a launch."""
    return _volume("config", mounts.config, {"configMap": {"name": name}}, readOnly=True)


def results_volume(profile: ClusterProfile, mounts: Mounts, *, read_only: bool = False) -> Volumes:
    """The claim that holds the sweeps; nothing where they are in an object store."""
    if profile.results.claim is None:
        return Volumes()
    source = {"persistentVolumeClaim": {"claimName": profile.results.claim}}
    return _volume("results", mounts.results, source, **({"readOnly": True} if read_only else {}))


def data_volumes(profile: ClusterProfile, dataset: DatasetChoice, scratch: str, mounts: Mounts) -> Volumes:
    """The data folder, and the prepared data set in it where the space trains on one."""
    folder = _volume("data", mounts.data, _empty(scratch))
    data = profile.data
    if data is None or dataset.described.embedded:
        return folder
    where = posixpath.join(mounts.data, dataset.name)
    if data.host_path is not None:
        path = posixpath.join(data.host_path, dataset.name)
        return folder + _volume("dataset", where, {"hostPath": {"path": path, "type": "Directory"}}, readOnly=True)
    # Read-only as a whole, so that the kubelet does not change the owner of its files either.
    source = {"persistentVolumeClaim": {"claimName": data.claim, "readOnly": True}}
    return folder + _volume("dataset", where, source, subPath=posixpath.join(data.path, dataset.name), readOnly=True)


def ray_volumes(*, shared_memory: str, scratch: str) -> Volumes:
    """What a node of Ray needs: shared memory for its object store, and local disk for its session and logs."""
    memory = {"emptyDir": {"medium": "Memory", "sizeLimit": shared_memory}}
    return _volume("shared-memory", SHARED_MEMORY, memory) + _volume("ray", RAY_FOLDER, _empty(scratch))


def home_volume(mounts: Mounts) -> Volumes:
    """A home that can be written, whatever the image has there."""
    return _volume("home", mounts.home, _empty(HOME_LIMIT))


def _empty(limit: str) -> dict[str, Any]:
    return {"emptyDir": {"sizeLimit": limit}}


def _volume(name: str, path: str, source: dict[str, Any], **mount: Any) -> Volumes:
    return Volumes(({"name": name, **source},), ({"name": name, "mountPath": path, **mount},))
