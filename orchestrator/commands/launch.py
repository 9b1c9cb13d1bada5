"""`bo-sweep launch`: run what is missing, then draw; here, on a Ray cluster, or on Kubernetes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from orchestrator.commands.k8s.options import ClusterChoice, cluster_options, kubeconfig_option
from orchestrator.commands.options import (
    budget_options,
    data_option,
    json_option,
    launch_options,
    load,
    space_options,
    sweep_options,
    user_errors,
    with_gpus,
)


class DryRunAlone(click.Command):
    """Lets --dry-run stand alone, as kubectl does: click would take the word after it for its value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, ["--dry-run=client" if word == "--dry-run" else word for word in args])


@click.command(cls=DryRunAlone)
@space_options
@sweep_options
@launch_options
@click.option(
    "--dry-run",
    type=click.Choice(["client", "server"]),
    help="Print the plan, or with --on k8s the manifests, and stop; =server asks the cluster about them too.",
)
@click.option("--on", "where", type=click.Choice(["k8s"]), help="Run on Kubernetes; by default here or at --address.")
@click.option(
    "--address",
    help="A running Ray cluster: host:6379 or auto to join it, http://host:8265 or ray://host:10001 to send it a job.",
)
@click.option("--wait", is_flag=True, help="Elsewhere: show the log and end with the launch. Ctrl-C detaches.")
@data_option
@budget_options
@click.option("--as-job", is_flag=True, help="For job systems: exit with 0 where a retry could change nothing.")
@cluster_options
@kubeconfig_option
@json_option
def launch(
    space: str,
    overrides: tuple[str, ...],
    seeds: int | None,
    storage: str,
    name: str | None,
    gpus_per_run: float | None,
    calibration: Path | None,
    dry_run: str | None,
    where: str | None,
    address: str | None,
    wait: bool,
    data_folder: Path | None,
    as_job: bool,
    cluster: ClusterChoice,
    kubeconfig: Path | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Run what is missing of a search space, then draw its phase diagram.

    Resuming, retrying and growing a sweep are all "launch again". At the end of a budget (--max-...), and at the first
    Ctrl-C, nothing more is started and what runs is saved; the same command goes on from there.

    With --refine, when the grid is done, further cells go where it is in doubt on which side of the level they lie, and
    seeds where seeds are what is in doubt, until the boundary is known to --precision or --budget runs are used.

    With --on k8s, or an --address of http:// or ray://, the launch is submitted and goes on without this machine.

    \b
    Example:  bo-sweep launch digits-grid --seeds 5
              bo-sweep launch digits-grid --refine err_last=0.2 --budget 60
              bo-sweep launch imagenet-grid --on k8s --profile prod --wait
    """
    from orchestrator.commands import launch_as_ray_job, launch_elsewhere, launch_here
    from orchestrator.entry_point import LaunchRequest
    from orchestrator.ray_jobs.connection import takes_jobs

    with user_errors():
        overrides = with_gpus(overrides, gpus_per_run)
        parsed = load(space, overrides, seeds)
        request = LaunchRequest(space=parsed, sweep=name or parsed.name, **asked)
        as_given = launch_here.AsGiven(space, overrides, seeds, name, storage)
        _check(where, address, cluster, kubeconfig, wait=wait, server=dry_run == "server")
        if where == "k8s":
            launch_elsewhere.on_kubernetes(request, as_given, cluster, kubeconfig, dry_run, wait=wait, as_json=as_json)
        elif takes_jobs(address):
            data = str(data_folder) if data_folder and _on_command_line("data_folder") else None  # as nodes have it
            launch_as_ray_job.as_ray_job(
                request, as_given, f"{address}", data, dry_run=dry_run is not None, wait=wait, as_json=as_json
            )
        else:
            placement = launch_here.Placement(data_folder, calibration, address)
            launch_here.run(request, as_given, placement, dry_run=dry_run is not None, as_job=as_job, as_json=as_json)


def _check(
    where: str | None,
    address: str | None,
    cluster: ClusterChoice,
    kubeconfig: Path | None,
    *,
    wait: bool,
    server: bool,
) -> None:
    """Options that go together, and those that do not. Raises ValueError with all problems."""
    from orchestrator.ray_jobs.connection import takes_jobs

    problems = []
    if where == "k8s":
        elsewhere = {"storage": "results", "data_folder": "data", "calibration": ""}
        for parameter, key in elsewhere.items():
            if _on_command_line(parameter):
                instead = f": the cluster's profile says it (--cluster-set {key}.claim=...)" if key else ""
                problems.append(f"--{parameter.removesuffix('_folder')} does not go with --on k8s{instead}")
        if address:
            problems.append("--address is a Ray cluster that is there already; --on k8s makes one. Give one of the two")
    else:
        lonely = sorted({name for name, _ in cluster.given} | ({"--kubeconfig"} if kubeconfig else set()))
        if lonely:
            problems.append(f"{', '.join(lonely)}: only with --on k8s")
        if server:
            problems.append("--dry-run=server asks a Kubernetes cluster: only with --on k8s")
        if takes_jobs(address) and _on_command_line("calibration"):
            problems.append("--calibration is for the estimate of a launch here: the job takes that of the nodes")
        if wait and not takes_jobs(address):
            problems.append("--wait is for launches elsewhere (--on k8s, --address http://...); here it always waits")
    if problems:
        raise ValueError("\n".join(problems))


def _on_command_line(parameter: str) -> bool:
    """Whether it was given there, and not by this machine's environment."""
    return click.get_current_context().get_parameter_source(parameter) is ParameterSource.COMMANDLINE
