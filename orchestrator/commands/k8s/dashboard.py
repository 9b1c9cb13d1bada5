"""`bo-sweep k8s dashboard`: Ray's dashboard of a launch, on this machine."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from orchestrator.commands.k8s.options import ConnectionChoice, connection_options
from orchestrator.commands.options import user_errors

if TYPE_CHECKING:
    from orchestrator.k8s.client.api import Api

REMEMBER_SECONDS = 5.0
"""How long the head that was found is taken to be the right one."""
LOOK_SECONDS = 10.0


@click.command()
@click.argument("sweep")
@click.option("--port", type=click.IntRange(0, 65535), default=8265, show_default=True, help="Local port; 0 for any.")
@click.option("--open/--no-open", "open_browser", default=False, help="Open it in the browser.")
@connection_options
def dashboard(sweep: str, port: int, open_browser: bool, cluster: ConnectionChoice) -> None:
    """Show Ray's dashboard of a launch on Kubernetes at a port of this machine, until Ctrl-C.

    It finds the head again where a retry has made another.

    \b
    Example:  bo-sweep k8s dashboard imagenet-grid --open
    """
    from orchestrator.commands.k8s.again import k8s_again
    from orchestrator.console import LOG, RESULTS, print_next
    from orchestrator.k8s.client.api import connect
    from orchestrator.k8s.watching.picture import look
    from orchestrator.k8s.watching.stop import DASHBOARD_PORT, TOKEN_KEY, token_secret
    from orchestrator.k8s.watching.tunnel import Tunnel, open_websocket

    def tell(words: str) -> None:
        LOG.print(words, markup=False)

    with user_errors():
        api = connect(cluster.connection())
        find = _head_finder(api, sweep)
        open_websocket(api, find(), DASHBOARD_PORT).close()  # tells at once what would fail at every connection
        secret = token_secret(look(api, sweep))
        with Tunnel(api, find, DASHBOARD_PORT, port, _once(tell)) as tunnel:
            address = f"http://127.0.0.1:{tunnel.local_port}"
            RESULTS.print(address)
            if secret:
                read = f"-o jsonpath='{{.data.{TOKEN_KEY}}}' | base64 -d"
                where = f"{_kubectl_options(cluster)} -n {api.namespace}"
                tell(f"It asks for a token:  kubectl get secret {secret}{where} {read}")
            tell("Ctrl-C ends it; the launch goes on.")
            if open_browser:
                click.launch(address)
            try:
                _until_it_ends(api, sweep, tell)
            except KeyboardInterrupt:
                tell("")
    print_next(k8s_again("status", sweep, cluster))


def _kubectl_options(cluster: ConnectionChoice) -> str:
    profile = cluster.load()
    options = {"--kubeconfig": cluster.kubeconfig, "--context": profile.context if profile else cluster.context}
    return "".join(f" {name} {shlex.quote(str(value))}" for name, value in options.items() if value is not None)


def _head_finder(api: Api, sweep: str) -> Callable[[], str]:
    """A function that names the head pod of the present attempt, and raises ClusterError while there is none.

    Browsers open several connections at once: they share what one of them has found.
    """
    from orchestrator.k8s.client.api import ClusterError
    from orchestrator.k8s.watching.causes import explain
    from orchestrator.k8s.watching.picture import job_of, look

    found: tuple[str, float] = ("", -REMEMBER_SECONDS)
    searching = threading.Lock()

    def find() -> str:
        nonlocal found
        with searching:
            if time.monotonic() - found[1] < REMEMBER_SECONDS:
                return found[0]
            head = _ready_head(api, job_of(api, sweep))
            if head is None:
                told = explain(look(api, sweep))
                why = f" {told.cause}." if told.cause else ""
                raise ClusterError(f"sweep {sweep!r} has no head that is ready. {told.headline}{why}")
            found = (head, time.monotonic())
            return head

    return find


def _ready_head(api: Api, job: dict[str, Any]) -> str | None:
    """Name of the head pod of a RayJob's present (or last) attempt, if it is ready."""
    from orchestrator.k8s.names import RAY_NODE_TYPE, of_ray_cluster
    from orchestrator.k8s.watching.troubles import is_ready

    ray_cluster = (job.get("status") or {}).get("rayClusterName")
    if not ray_cluster:
        return None
    pods = api.list("Pod", labels=f"{of_ray_cluster(ray_cluster)},{RAY_NODE_TYPE}=head")
    return next((pod["metadata"]["name"] for pod in reversed(pods) if is_ready(pod)), None)


def _once(tell: Callable[[str], None]) -> Callable[[str], None]:
    """Tells a thing only when it differs from the one before: browsers try over and over."""
    told = ""

    def tell_new(words: str) -> None:
        nonlocal told
        if words != told:
            told = words
            tell(words)

    return tell_new


def _until_it_ends(api: Api, sweep: str, tell: Callable[[str], None]) -> None:
    from orchestrator.k8s.watching.observed import ENDED, deployment_of
    from orchestrator.k8s.watching.patience import Patience, patiently
    from orchestrator.k8s.watching.picture import sweeps_in

    while True:
        job = patiently(lambda: sweeps_in(api).get(sweep), tell, Patience(), again=True)
        # Until it is cleaned up, the dashboard tells of a launch that has ended too.
        if job is None or (deployment_of(job) in ENDED and _ready_head(api, job) is None):
            tell("The launch has ended, and its dashboard with it.")
            return
        time.sleep(LOOK_SECONDS)
