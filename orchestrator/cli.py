"""The command line: parse, call the library, print. Nothing heavy is imported before a command needs it.

Exit codes: 0 done, 1 some runs failed, 2 usage, 3 stopped and resumable, 4 infrastructure.
"""

from __future__ import annotations

from typing import Any

import click

from orchestrator.commands.bench_worker import bench_worker
from orchestrator.commands.compare import compare
from orchestrator.commands.completion import completion
from orchestrator.commands.doctor import doctor
from orchestrator.commands.fetch import fetch
from orchestrator.commands.jobs import jobs
from orchestrator.commands.k8s.group import k8s
from orchestrator.commands.launch import launch
from orchestrator.commands.ledger import compact, verify
from orchestrator.commands.options import STOPPED
from orchestrator.commands.phase import phase
from orchestrator.commands.plan import plan
from orchestrator.commands.prepare import prepare
from orchestrator.commands.report import report
from orchestrator.commands.reproduce import reproduce
from orchestrator.commands.slices import slices
from orchestrator.commands.spaces import spaces
from orchestrator.commands.status import logs, status
from orchestrator.commands.wandb import wandb


class Interruptible(click.Group):
    """Ends with 3 at Ctrl-C where a command does not itself say what that stops; click would end with 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort):
            click.echo("\nStopped.", err=True)
            raise SystemExit(STOPPED) from None


@click.group(cls=Interruptible, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bo-sweep", prog_name="bo-sweep")
def main() -> None:
    """Sweep label noise against parameters per sample, and draw where overfitting stays benign.

    \b
    Start with:  bo-sweep launch digits-grid
    """


for command in (
    spaces,
    plan,
    launch,
    status,
    logs,
    phase,
    slices,
    compare,
    report,
    verify,
    compact,
    reproduce,
    fetch,
    k8s,
    jobs,
    wandb,
    doctor,
    completion,
):
    main.add_command(command)
main.add_command(bench_worker)
main.add_command(prepare)


if __name__ == "__main__":
    main()
