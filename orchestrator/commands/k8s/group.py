"""`bo-sweep k8s`: sweeps on Kubernetes."""

from __future__ import annotations

import click

from orchestrator.commands.k8s.dashboard import dashboard
from orchestrator.commands.k8s.doctor import doctor
from orchestrator.commands.k8s.logs import logs
from orchestrator.commands.k8s.render import render
from orchestrator.commands.k8s.status import status
from orchestrator.commands.k8s.stop import delete, stop


@click.group()
def k8s() -> None:
    """Run sweeps on Kubernetes: render what is submitted, watch it, stop it.

    \b
    Example:  bo-sweep k8s render digits-grid --profile dev
    """


for command in (render, status, logs, dashboard, stop, delete, doctor):
    k8s.add_command(command)
