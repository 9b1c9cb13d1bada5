"""From what the user said to a client of the right cluster: by kubeconfig and context, or by the pod's own account."""

from __future__ import annotations

import logging
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from orchestrator.k8s.client.errors import ClusterError

_RENEWING = threading.Lock()
NO_EXCEPTIONS = " "
"""In place of $NO_PROXY, which holds for the proxies of the environment, not for the one that a kubeconfig names. Of an
empty one the client of websockets would read the environment again."""
SERVICE_ACCOUNT_FOLDER = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True)
class Connection:
    """What the user said about the cluster; the rest is as kubectl has it.

    Attributes:
        kubeconfig: None for the files in $KUBECONFIG, else ~/.kube/config, else the pod's service account.
        context: of the kubeconfig; None for the current one.
        namespace: None for that of the context, else "default".
    """

    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None


class ContextError(ValueError):
    """No such context; the message names those there are."""


def client_for(connection: Connection) -> tuple[Any, str]:
    """The official client, and the namespace. Nothing is sent yet, but a plugin for credentials may run.

    Raises:
        ValueError: no such context.
        ClusterError: no kubeconfig, one that cannot be used, no credentials.
    """
    try:
        from kubernetes.client import ApiClient, Configuration
    except ImportError as error:
        raise ClusterError("the client for Kubernetes is missing: pip install 'bo-sweep[kubernetes]'") from error

    configuration = type.__call__(Configuration)  # not a copy of a default that someone may have set
    namespace = _load(configuration, connection)
    configuration.retries = False  # Api knows which requests may be sent twice
    if not configuration.verify_ssl:
        _hush(configuration.host)
    try:
        client: Any = ApiClient(configuration=configuration)
    except (ImportError, ValueError) as error:
        why = "a SOCKS proxy needs `pip install pysocks`" if isinstance(error, ImportError) else error
        raise ClusterError(
            f"{configuration.host}: its proxy (proxy-url of the kubeconfig, or HTTPS_PROXY) cannot be used: {why}"
        ) from error
    client.renew_credentials = partial(_renew, client, connection)
    return client, connection.namespace or namespace or "default"


def credentials_of(client: Any) -> tuple[Any, ...]:
    """What tells whether a client has got other credentials; not for eyes."""
    configuration = client.configuration
    return dict(configuration.api_key), configuration.cert_file, configuration.key_file


def _renew(client: Any, connection: Connection, refused: tuple[Any, ...]) -> bool:
    """Load credentials anew after the server has refused those; whether there are others now.

    Most plugins tell when what they give expires. Those that do not are asked again, as kubectl asks them, and files
    with tokens are read again. Raises as `client_for`.
    """
    from kubernetes.client.rest import RESTClientObject

    with _RENEWING:
        if credentials_of(client) == refused:  # else another thread was here before
            _load(client.configuration, connection)
            client.rest_client = RESTClientObject(client.configuration)  # which has read the certificates
        return credentials_of(client) != refused


def _load(configuration: Any, connection: Connection) -> str | None:
    """Fill the configuration; returns the namespace of the context."""
    from kubernetes.config import ConfigException
    from yaml import YAMLError

    paths = _paths(connection.kubeconfig)
    try:
        with _logged_errors() as errors:
            if any(path.exists() for path in paths):
                namespace = _from_files(configuration, paths, connection.context)
            else:
                namespace = _from_pod(configuration, paths, connection)
    except (ClusterError, ContextError):
        raise
    except (ConfigException, OSError, YAMLError, AttributeError, LookupError, TypeError, ValueError) as error:
        # Whatever else a file that someone wrote by hand makes the client stumble over.
        raise ClusterError(
            f"the kubeconfig {_told(paths)} cannot be used: {error}. Check it with `kubectl config view`"
        ) from error
    if errors:  # the client only logs them, and would go on without credentials
        told = "; ".join(errors)
        if "'NoneType' object has no attribute 'strip'" in told:  # on a terminal the client does not keep its words
            told = "the plugin for credentials has failed; what it said stands above"
        raise ClusterError(f"no credentials from the kubeconfig {_told(paths)}: {told}")
    return namespace


def _hush(host: str) -> None:
    """Who wrote insecure-skip-tls-verify is not to be warned with each request, as kubectl does not either."""
    name = re.escape(urlsplit(host).hostname or "")
    warnings.filterwarnings("ignore", message=f"Unverified HTTPS request is being made to host '{name}'")


def _paths(given: Path | None) -> list[Path]:
    if given is not None:
        return [given.expanduser()]
    named = [part for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return [Path(part).expanduser() for part in named] or [Path.home() / ".kube" / "config"]


def _told(paths: list[Path]) -> str:
    return os.pathsep.join(map(str, paths))


def _from_files(configuration: Any, paths: list[Path], context: str | None) -> str | None:
    """Fill the configuration; returns the context's namespace."""
    from kubernetes.config import load_kube_config
    from kubernetes.config.kube_config import KubeConfigMerger

    merger = KubeConfigMerger(_told(paths))  # type: ignore[no-untyped-call]
    contexts = {each["name"]: each.value.get("context") or {} for each in merger.config.value.get("contexts") or []}
    # As kubectl, the first file that has one; the client would take that of the last, and so perhaps another cluster.
    current = (each.get("current-context") for each in merger.config_files.values())
    name = context or next(filter(None, current), "")
    if name not in contexts:
        known = ", ".join(sorted(contexts)) or "none"
        if context is None and not name:
            raise ContextError(f"the kubeconfig {_told(paths)} has no current context; give --context, one of: {known}")
        raise ContextError(f"context {name!r} is not in the kubeconfig {_told(paths)}; there are: {known}")
    load_kube_config(_told(paths), context=name, client_configuration=configuration)  # type: ignore[no-untyped-call]
    clusters = {each["name"]: each.value["cluster"] for each in merger.config.value["clusters"]}
    if clusters[contexts[name]["cluster"]].get("proxy-url"):
        configuration.no_proxy = NO_EXCEPTIONS
    return contexts[name].get("namespace")


def _from_pod(configuration: Any, paths: list[Path], connection: Connection) -> str | None:
    from kubernetes.config import load_incluster_config

    if connection.kubeconfig is not None or not os.environ.get("KUBERNETES_SERVICE_HOST"):
        raise ClusterError(
            f"no kubeconfig: looked for {_told(paths)}. Set KUBECONFIG or give --kubeconfig, "
            "and check with `kubectl config get-contexts`"
        )
    if connection.context is not None:
        raise ContextError(f"context {connection.context!r}: in a pod without a kubeconfig there are no contexts")
    load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    own = SERVICE_ACCOUNT_FOLDER / "namespace"
    return own.read_text(encoding="utf-8").strip() if own.exists() else None


@contextmanager
def _logged_errors() -> Iterator[list[str]]:
    """Errors that the client logs on the root logger while the block runs; they go nowhere else."""
    errors: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR:
                errors.append(record.getMessage())

    root = logging.getLogger()
    before, root.handlers = root.handlers, [Collector()]
    try:
        yield errors
    finally:
        root.handlers = before
