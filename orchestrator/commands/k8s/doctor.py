"""`bo-sweep k8s doctor`: is everything in the cluster that a sweep needs?"""

from __future__ import annotations

import click

from orchestrator.commands.doctor import all_well
from orchestrator.commands.k8s.options import ConnectionChoice, connection_options
from orchestrator.commands.options import INFRASTRUCTURE, json_option, user_errors


@click.command()
@connection_options
@json_option
def doctor(cluster: ConnectionChoice, as_json: bool) -> None:
    """Check a cluster: API, KubeRay, rights, quotas, nodes, claims, queue, secrets; and say what to do.

    What a sweep would ask for is taken from the profile. Exits with 4 if anything failed.

    \b
    Example:  bo-sweep k8s doctor --profile gpu-cluster
    """
    from orchestrator.commands.k8s.again import k8s_again, there_again
    from orchestrator.console import LOG, print_next
    from orchestrator.k8s.doctor.cluster_doctor import examine_cluster

    with user_errors(), LOG.status("checking") as line:
        checks = examine_cluster(cluster.connection(), cluster.load(), lambda name: line.update(f"checking {name}"))
    if not all_well(checks, as_json):
        print_next(k8s_again("doctor", "", cluster))
        raise SystemExit(INFRASTRUCTURE)
    print_next(there_again(cluster, "launch", "digits-grid", "--on", "k8s"))
