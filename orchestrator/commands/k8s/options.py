"""Options of commands that know a cluster: its profile, how to reach it, and what a launch on it is asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from orchestrator.commands.options import Command, all_of

if TYPE_CHECKING:
    from orchestrator.k8s.client.connect import Connection
    from orchestrator.k8s.profile import ClusterProfile


@dataclass(frozen=True)
class ClusterChoice:
    """What a command line says about the cluster of a launch."""

    profile: str | None = None
    context: str | None = None
    namespace: str | None = None
    image: str | None = None
    nodes: int | None = None
    gpus_per_node: int | None = None
    settings: tuple[str, ...] = ()

    @property
    def given(self) -> list[tuple[str, str]]:
        """The options that were given, with their values, as they would be given again."""
        named = {
            "--profile": self.profile,
            "--context": self.context,
            "--namespace": self.namespace,
            "--image": self.image,
            "--nodes": self.nodes,
            "--gpus-per-node": self.gpus_per_node,
        }
        single = [(name, str(value)) for name, value in named.items() if value is not None]
        return [*single, *(("--cluster-set", setting) for setting in self.settings)]

    def load(self) -> ClusterProfile:
        """The profile, with what the command line changes. Raises ValueError with all problems."""
        from orchestrator.k8s.profiles import load_profile

        return load_profile(
            self.profile,
            self.settings,
            context=self.context,
            namespace=self.namespace,
            image=self.image,
            nodes=self.nodes,
            gpus_per_node=self.gpus_per_node,
        )


@dataclass(frozen=True)
class ConnectionChoice:
    """What a command line says about how to reach a cluster."""

    profile: str | None = None
    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None

    def load(self) -> ClusterProfile | None:
        """The profile that is named, or the default one of the file; None where there is neither.

        Raises ValueError with all problems.
        """
        from orchestrator.k8s.profiles import load_profile, profiles_file

        if self.profile is None and not profiles_file().is_file():
            return None
        return load_profile(self.profile, context=self.context, namespace=self.namespace)

    def connection(self) -> Connection:
        """How to reach it: as the command line says, else as the profile does, else as kubectl would."""
        profile = self.load()
        if profile is None:
            from orchestrator.k8s.client.connect import Connection

            return Connection(self.kubeconfig, self.context, self.namespace)
        return connection_of(profile, self.kubeconfig)


def connection_of(profile: ClusterProfile, kubeconfig: Path | None = None) -> Connection:
    """How to reach the cluster of a profile."""
    from orchestrator.k8s.client.connect import Connection

    return Connection(kubeconfig, profile.context, profile.namespace)


def complete_profiles(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from orchestrator.k8s.profiles import profile_names

    try:
        return [name for name in profile_names() if name.startswith(incomplete)]
    except ValueError:
        return []  # the command itself tells what is wrong with the file


profile_option = click.option(
    "--profile",
    metavar="NAME",
    shell_complete=complete_profiles,
    help="Profile of the cluster in clusters.yaml.  [default: the file's own default]",
)
context_option = click.option("--context", metavar="NAME", help="Context of the kubeconfig.")
namespace_option = click.option("-n", "--namespace", metavar="NAME", help="Namespace of the sweeps.")
kubeconfig_option = click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Kubeconfig file.  [default: $KUBECONFIG, or ~/.kube/config]",
)

_cluster = all_of(
    profile_option,
    context_option,
    namespace_option,
    click.option("--image", metavar="NAME@DIGEST", help="Image of all pods, pinned by its digest."),
    click.option("--nodes", type=click.IntRange(min=1), help="Number of worker nodes."),
    click.option("--gpus-per-node", type=click.IntRange(min=0), help="GPUs of each worker node; 0 for none."),
    click.option(
        "--cluster-set",
        "settings",
        metavar="KEY=VALUE",
        multiple=True,
        help="Override a value of the profile, e.g. workers.cpus=32. Repeatable.",
    ),
)
_connection = all_of(profile_option, kubeconfig_option, context_option, namespace_option)


def cluster_options(command: Command) -> Command:
    """The options of a cluster that a launch goes to; the command gets them as one `cluster: ClusterChoice`."""
    return _gathered(command, _cluster, "cluster", ClusterChoice)


def connection_options(command: Command) -> Command:
    """The options of a cluster that is there; the command gets them as one `cluster: ConnectionChoice`."""
    return _gathered(command, _connection, "cluster", ConnectionChoice)


def _gathered(
    command: Command, options: Callable[[Command], Command], name: str, choice: type[ClusterChoice | ConnectionChoice]
) -> Command:
    fields = list(choice.__dataclass_fields__)

    @functools.wraps(command)
    def gathering(**values: Any) -> Any:
        chosen = choice(**{field: values.pop(field) for field in fields})
        return command(**values, **{name: chosen})

    return options(cast(Command, gathering))
