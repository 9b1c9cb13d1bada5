"""`bo-sweep k8s logs`: what a launch prints."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from orchestrator.commands.k8s.options import ConnectionChoice, connection_options
from orchestrator.commands.options import user_errors

if TYPE_CHECKING:
    from orchestrator.k8s.client.api import Api


@click.command()
@click.argument("sweep")
@click.option(
    "--follow/--no-follow",
    default=True,
    help="Go on until the launch (or, with --node, the pod) has ended; over retries too.",
)
@click.option(
    "--node",
    type=click.Choice(["submitter", "head", "worker"]),
    default="submitter",
    show_default=True,
    help="Whose log: the submitter prints the output of the launch.",
)
@click.option("--pod", metavar="NAME", help="Only of this pod.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Begin with the last N lines.")
@connection_options
def logs(sweep: str, follow: bool, node: str, pod: str | None, tail: int | None, cluster: ConnectionChoice) -> None:
    """Print what a launch on Kubernetes prints, each line once, over broken connections and retries.

    Ctrl-C leaves; the launch goes on.

    \b
    Example:  bo-sweep k8s logs imagenet-grid --tail 100
    """
    from orchestrator.commands.k8s.again import k8s_again
    from orchestrator.console import LOG, print_next
    from orchestrator.k8s.client.api import connect

    with user_errors():
        api = connect(cluster.connection())
        try:
            for line in _lines(api, sweep, follow, node, pod, tail):
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()
        except KeyboardInterrupt:
            LOG.print("\nLeft; the launch goes on.")
        except BrokenPipeError:
            sys.stderr.close()  # the reader has gone, as `| head` does; Python would complain at its end
            return
    print_next(k8s_again("status", sweep, cluster))


def _lines(api: Api, sweep: str, follow: bool, node: str, pod: str | None, tail: int | None) -> Iterator[str]:
    from orchestrator.console import LOG
    from orchestrator.k8s.watching.follow import launch_lines, merged_lines
    from orchestrator.k8s.watching.log_stream import pod_lines
    from orchestrator.k8s.watching.picture import job_of, look

    def tell(words: str) -> None:
        LOG.print(words, markup=False)

    if pod is None and node == "submitter":
        return launch_lines(api, job_of(api, sweep), follow=follow, tail=tail, tell=tell)
    picture = look(api, sweep)
    there = {each["metadata"]["name"]: each for each in (*picture.pods, *picture.submitters)}
    if pod is not None and pod not in there:
        raise ValueError(f"no pod {pod!r} of sweep {sweep!r}; there are: {', '.join(there) or 'none'}")
    names = [pod] if pod is not None else [each["metadata"]["name"] for each in picture.of_type(node)]
    if not names:
        raise ValueError(f"sweep {sweep!r} has no {node} at present; there are: {', '.join(there) or 'no pods'}")
    if len(names) == 1:
        return pod_lines(api, names[0], follow=follow, tail=tail, tell=tell)
    return merged_lines(api, names, follow=follow, tail=tail, tell=tell)
