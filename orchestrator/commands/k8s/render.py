"""`bo-sweep k8s render`: what a launch would submit, as YAML."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

from orchestrator.commands.k8s.options import ClusterChoice, cluster_options
from orchestrator.commands.options import (
    DEFAULT_STORAGE,
    again,
    budget_options,
    choice_options,
    json_option,
    load,
    space_options,
    user_errors,
    with_gpus,
)


@click.command()
@space_options
@choice_options
@budget_options
@cluster_options
@click.option(
    "--only",
    type=click.Choice(["setup", "job"]),
    help="What an administrator applies once for a namespace, or what this launch submits.  [default: both]",
)
@json_option
def render(
    space: str,
    overrides: tuple[str, ...],
    seeds: int | None,
    name: str | None,
    gpus_per_run: float | None,
    cluster: ClusterChoice,
    only: str | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Print the Kubernetes manifests of a launch: the same bytes for the same space and profile, made offline.

    They hold no secrets. What the cluster could not run, and what KubeRay would refuse, is told instead (exit code 2).

    \b
    Example:  bo-sweep k8s render imagenet-grid --profile prod --only job
    """
    from orchestrator.console import LOG, print_json, print_next
    from orchestrator.entry_point import LaunchRequest
    from orchestrator.k8s.rendering.documents import to_yaml
    from orchestrator.k8s.rendering.manifests import render as render_manifests

    with user_errors():
        overrides = with_gpus(overrides, gpus_per_run)
        parsed = load(space, overrides, seeds)
        request = LaunchRequest(space=parsed, sweep=name or parsed.name, **asked)
        made = render_manifests(request, cluster.load())
    chosen = {"setup": made.setup, "job": made.job, None: made.all}[only]
    if as_json:
        print_json({"name": made.name, "namespace": made.namespace, "notes": list(made.notes), "manifests": chosen})
    else:
        sys.stdout.write(to_yaml(chosen))
    for note in made.notes:
        LOG.print(f"Note: {note}", markup=False)
    same = [word for option in cluster.given for word in option]
    go_on = f"{again('launch', space, DEFAULT_STORAGE, name, overrides, seeds)} {shlex.join(['--on', 'k8s', *same])}"
    print_next(f"{go_on} --dry-run=server    # what the cluster says to it")
