"""Checks of what bo-sweep writes to and talks to: storage, Weights & Biases, Kubernetes."""

from __future__ import annotations

import configparser
import importlib.util
import itertools
import netrc
import os
import secrets
import shutil
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.checks.finding import Finding, failed, ok, skipped, warning

FREE_BYTES = 1e9
WANDB_URL = "https://api.wandb.ai"
KUBERNETES_SECONDS = 3.0
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def check_storage(url: str) -> Finding:
    """A small file is written, listed, read back and deleted; nothing stays behind.

    Raises:
        StorageError: one of these cannot be done; the message says why and what to do.
    """
    from orchestrator.storage import open_storage

    storage = open_storage(url)
    storage.check_writable()
    root = storage.local_path()
    new = [folder for folder in (root, *root.parents) if not folder.exists()] if root else []
    name, content = f"doctor-{secrets.token_hex(8)}", secrets.token_bytes(1024)
    seconds = [time.perf_counter()]
    try:
        storage.write(name, content)
        seconds.append(time.perf_counter())
        listed = name in (file.path for file in storage.list())
        seconds.append(time.perf_counter())
        same = storage.read(name) == content
        seconds.append(time.perf_counter())
    finally:
        storage.delete(name)
        with suppress(OSError):  # others may have started to use them
            for folder in new:
                folder.rmdir()
    gone = not storage.exists(name)
    if not (listed and same and gone):
        done = f"listed: {listed}, read back the same: {same}, deleted: {gone}"
        return failed(
            f"{url} does not keep what is written to it ({done})",
            "use a file system or an object store that shows a file as soon as it is written, with --storage",
        )
    write, list_, read = (1000 * (end - start) for start, end in itertools.pairwise(seconds))
    found = f"{storage.location('')}: write {write:.0f} ms, list {list_:.0f} ms, read {read:.0f} ms"
    if root is None:
        return ok(found)
    free = shutil.disk_usage(next(folder for folder in (root, *root.parents) if folder.exists())).free
    found += f", {free / 1e9:.1f} GB free"
    if free < FREE_BYTES:
        return warning(found, "free space there, or choose another place with --storage")
    return ok(found)


def check_wandb() -> Finding:
    """There is a key for Weights & Biases, or it is switched off. Its server is not contacted."""
    mode = os.environ.get("WANDB_MODE", "")
    if mode in ("offline", "disabled"):
        return ok(f"WANDB_MODE={mode}: nothing is sent")
    host = urlsplit(_wandb_url()).netloc
    if os.environ.get("WANDB_API_KEY"):
        return ok(f"WANDB_API_KEY is set, for {host} (not tried)")
    file = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        key = netrc.netrc(file).authenticators(host) if file.exists() else None
    except netrc.NetrcParseError as error:
        return warning(f"{file} cannot be read ({error}): runs stay offline", f"correct {file}, or set WANDB_API_KEY")
    if key:
        return ok(f"{file} has a key for {host} (not tried)")
    return warning(f"not logged in to {host}: runs stay offline", "wandb login, or set WANDB_MODE=offline")


def _wandb_url() -> str:
    """The server that W&B is configured for: by $WANDB_BASE_URL, or by the user's settings file."""
    settings = configparser.ConfigParser(interpolation=None)
    folder = Path(os.environ.get("WANDB_CONFIG_DIR") or Path.home() / ".config" / "wandb")
    with suppress(configparser.Error):
        settings.read(folder / "settings")
    return str(os.environ.get("WANDB_BASE_URL") or settings.get("default", "base_url", fallback=WANDB_URL))


def check_kubernetes() -> Finding:
    """The Kubernetes API that kubectl would use answers."""
    files = [Path(name) for name in os.environ.get("KUBECONFIG", "").split(os.pathsep) if name]
    present = [file for file in files or [Path.home() / ".kube" / "config"] if file.exists()]
    inside = SERVICE_ACCOUNT.exists() and not present
    if not present and not inside:
        return skipped("no kubeconfig, and not in a cluster", "not needed unless --on k8s; then set KUBECONFIG")
    source = "the token of this pod" if inside else str(present[0])
    if importlib.util.find_spec("kubernetes") is None:
        return skipped(
            f"{source} is there, the kubernetes package is not", "not needed unless --on k8s; pip install kubernetes"
        )
    client, config = import_module("kubernetes.client"), import_module("kubernetes.config")
    settings = client.Configuration()
    settings.retries = False
    try:
        load = config.load_incluster_config if inside else config.load_kube_config
        load(client_configuration=settings)
        with client.ApiClient(settings) as api:
            version = client.VersionApi(api).get_code(_request_timeout=KUBERNETES_SECONDS)
    except Exception as error:  # it has a dozen kinds, of three packages
        return warning(
            f"with {source}: {type(error).__name__}: {error}".splitlines()[0],
            "kubectl version tells more; not needed unless --on k8s",
        )
    return ok(f"{settings.host} is Kubernetes {version.git_version}, by {source}")
