"""A launch as Kubernetes manifests: a pure function of what is asked for and of the cluster's profile.

It works offline and imports neither torch nor ray. The same request and profile give the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from orchestrator.entry_point import LaunchRequest
from orchestrator.k8s.names import (
    QUEUE,
    SPEC_HASH,
    content_hash,
    job_name,
    label_problems,
    sweep_labels,
    sweep_name_problems,
)
from orchestrator.k8s.profile import ClusterProfile
from orchestrator.k8s.rendering.documents import Manifest, to_yaml
from orchestrator.k8s.rendering.entrypoint import command_problem, entry_point, launch_environment
from orchestrator.k8s.rendering.launch_problems import (
    capacity_problems,
    launch_notes,
    profile_problems,
    request_problems,
)
from orchestrator.k8s.rendering.mounts import Mounts
from orchestrator.k8s.rendering.rayjob import API_VERSION, rayjob_spec
from orchestrator.k8s.rendering.refusals import refusals
from orchestrator.k8s.rendering.setup import setup
from orchestrator.k8s.rendering.space_files import SPACE_FILE, config_data
from search_spaces.dataset_choice import DatasetChoice
from search_spaces.explain import list_problems

__all__ = ["Manifest", "Manifests", "RenderError", "render", "to_yaml"]


class RenderError(ValueError):
    """A launch that cannot run on this cluster; the message lists every problem."""


@dataclass(frozen=True)
class Manifests:
    """What is submitted for one launch.

    Attributes:
        name: of the RayJob and its ConfigMap: the sweep's, and 8 hex digits of the hash of what they hold.
        setup: what the namespace needs once, for all sweeps.
        job: the ConfigMap and the RayJob, in this order.
        notes: what is not wrong, but worth knowing.
    """

    name: str
    namespace: str
    sweep: str
    setup: tuple[Manifest, ...]
    job: tuple[Manifest, ...]
    notes: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[Manifest, ...]:
        """All of them, in the order in which they are applied."""
        return self.setup + self.job

    def yaml(self) -> str:
        """All of them as one stream of YAML documents."""
        return to_yaml(self.all)


def render(request: LaunchRequest, profile: ClusterProfile, mounts: Mounts | None = None) -> Manifests:
    """The manifests of a launch.

    Args:
        mounts: where things are in pods; tests give other folders.

    Raises:
        RenderError: (a ValueError) the cluster cannot run it, or KubeRay would refuse it: all problems in one message.
    """
    mounts = mounts or Mounts()
    profile = profile.with_defaults(ray_version=version("ray"))
    parts, problems = _parts(request, mounts, profile)
    lacking, notes = capacity_problems(request, profile)
    problems += [*request_problems(request), *profile_problems(request, profile), *lacking]
    problems += _refusals(parts)
    if problems:
        raise RenderError(list_problems(f"sweep {request.sweep} on Kubernetes", problems))
    return Manifests(
        parts.name,
        profile.namespace,
        request.sweep,
        setup(profile),
        parts.job(),
        (*notes, *launch_notes(request, profile)),
    )


@dataclass(frozen=True)
class _Parts:
    """What the manifests of a launch are made of.

    Attributes:
        command: the entry point.
        environment: variables of the head for values that no command of bash can hold.
        data: fields of the ConfigMap.
    """

    sweep: str
    dataset: DatasetChoice
    profile: ClusterProfile
    mounts: Mounts
    command: str
    environment: dict[str, str]
    data: dict[str, Any]

    @property
    def digest(self) -> str:
        """Of all that is submitted, but the name that holds it, and the version of what submits it."""
        profile = self.profile
        return content_hash(
            {"data": self.data, "spec": self._spec(self.sweep), "labels": profile.labels, "queue": profile.queue}
        )

    @property
    def name(self) -> str:
        return job_name(self.sweep, self.digest)

    def job(self) -> tuple[Manifest, Manifest]:
        """The ConfigMap and the RayJob."""
        name, profile = self.name, self.profile
        labels = {**profile.labels, **sweep_labels(self.sweep)}
        metadata = {
            "name": name,
            "namespace": profile.namespace,
            "labels": labels,
            "annotations": {SPEC_HASH: self.digest},
        }
        queue = {QUEUE: profile.queue} if profile.queue else {}
        in_queue = metadata | {"labels": labels | queue}
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "immutable": True, **self.data}
        return config, {"apiVersion": API_VERSION, "kind": "RayJob", "metadata": in_queue, "spec": self._spec(name)}

    def _spec(self, config: str) -> Manifest:
        return rayjob_spec(
            self.profile,
            self.sweep,
            self.dataset,
            entry_point=self.command,
            config=config,
            mounts=self.mounts,
            environment=self.environment,
        )


def _parts(request: LaunchRequest, mounts: Mounts, profile: ClusterProfile) -> tuple[_Parts, list[str]]:
    """What the manifests are made of, and what is wrong with it.

    Conditions on cells and signatures of failures travel in the environment: they hold characters that bash would
    change in the entry point.
    """
    data, problems = config_data(request.space, mounts.config)
    arguments = replace(request, cells=(), signature=None).arguments(
        f"{mounts.config}/{SPACE_FILE}",
        storage=mounts.storage(profile.results),
        data_folder=mounts.data,
        address="auto",
    )
    command, unsafe = entry_point(arguments)
    parts = _Parts(request.sweep, request.space.dataset, profile, mounts, command, launch_environment(request), data)
    return parts, [*problems, *sweep_name_problems(request.sweep), *unsafe, *label_problems(profile.labels, "labels")]


def _refusals(parts: _Parts) -> list[str]:
    """What KubeRay would refuse, apart from what was told already in terms of the command line."""
    _, made = replace(
        parts,
        sweep="sweep" if sweep_name_problems(parts.sweep) else parts.sweep,
        command="bo-sweep" if command_problem(parts.command) else parts.command,
        profile=parts.profile.model_copy(update={"labels": {}}),
    ).job()
    return refusals(made)
