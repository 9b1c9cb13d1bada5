"""Checks of Ray: its version, what of it runs here already, and the cluster that is to be used."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

import psutil

from orchestrator.checks.finding import Finding, failed, ok, warning

TESTED = ">=2.55,<2.61"
LOOPBACK_SECONDS = 2.0
ANSWER_SECONDS = 30.0
"""A cluster that lets nobody in for so long will not."""
LOOK_SECONDS = 0.1
HEAD_PROCESS = "gcs_server"


def check_ray() -> Finding:
    """Ray imports, in a version that bo-sweep is tested with, and its processes could talk over loopback."""
    import ray
    from packaging.specifiers import SpecifierSet

    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=LOOPBACK_SECONDS).close()
    except OSError as error:
        return failed(
            f"no connection over 127.0.0.1 ({error}): Ray's processes could not talk to each other",
            "bring the loopback interface up (ip link set lo up), or allow it in the firewall",
        )
    if not SpecifierSet(TESTED).contains(ray.__version__, prereleases=True):
        return warning(f"Ray {ray.__version__}; tested are {TESTED}", "make install (it installs a tested version)")
    return ok(f"Ray {ray.__version__}, ports on loopback open")


def check_ray_here() -> Finding:
    """No Ray cluster was left on this machine: a launch would compete with it, or join it."""
    heads = [
        process for process in psutil.process_iter(["name", "create_time"]) if process.info["name"] == HEAD_PROCESS
    ]
    note = _address_file()
    if heads:
        ages = (f"process {head.pid}, {(time.time() - head.info['create_time']) / 60:.0f} min old" for head in heads)
        return warning(
            f"Ray runs here already ({'; '.join(ages)})",
            "if no launch and no cluster of yours is meant to run here: ray stop; to use it: --address auto",
        )
    if note.exists():
        return warning(
            f"{note} names a cluster at {note.read_text().strip()}, but none runs here: Ray would look for it",
            f"rm {note}",
        )
    return ok("no Ray cluster runs here; a launch starts its own")


def _address_file() -> Path:
    """Where `ray start` notes the address of its cluster."""
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    return Path(folder) / "ray" / "ray_current_cluster"


def check_ray_cluster(address: str) -> Finding:
    """The cluster at an address answers, lets us in, and has CPUs."""
    from orchestrator.executor import check_address

    try:
        check_address(address)
    except ConnectionError as error:
        return failed(
            str(error), f"check the address and the network; on the head node: ray status (address {address})"
        )
    code, printed, stderr = _probe(address)
    if code != 0:
        return _refused(address, stderr)
    cluster = json.loads(printed.splitlines()[-1])
    return ok(f"{address}: {cluster['nodes']} nodes, {cluster['cpus']:g} CPUs, {cluster['gpus']:g} GPUs")


def _probe(address: str) -> tuple[int | None, str, str]:
    """Exit code, stdout and stderr of a process that connects; no code where it was given up."""
    command = [sys.executable, "-P", str(Path(__file__).with_name("ray_probe.py")), address]
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as said:

        def text(file: IO[bytes]) -> str:
            return os.pread(file.fileno(), 2**20, 0).decode(errors="replace")  # leaves the writer its position

        with subprocess.Popen(command, stdout=printed, stderr=said) as process:
            end = time.monotonic() + ANSWER_SECONDS
            while process.poll() is None and time.monotonic() < end and not _tells_of_token(text(said)):
                time.sleep(LOOK_SECONDS)
            code = process.poll()
            process.kill()
        return code, text(printed), text(said)


def _tells_of_token(stderr: str) -> bool:
    """Ray says so at once, and then goes on trying."""
    return "Unauthenticated" in stderr or "AuthenticationError" in stderr


def _refused(address: str, stderr: str) -> Finding:
    """Why the probe did not get in, from what Ray wrote to stderr."""
    last = stderr.strip().splitlines()[-1] if stderr.strip() else "it wrote nothing"
    if _tells_of_token(stderr):
        mode = os.environ.get("RAY_AUTH_MODE", "not set")
        token = "set" if os.environ.get("RAY_AUTH_TOKEN") else "not set"
        return failed(
            f"the cluster at {address} does not accept our token (RAY_AUTH_MODE is {mode}, RAY_AUTH_TOKEN is {token})",
            "run ray get-auth-token on its head node; then here export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=..., or put "
            "the token into ~/.ray/auth_token",
        )
    if "ersion mismatch" in stderr:
        return failed(
            f"the cluster at {address} has another Ray or Python: {last}", "install the same versions here and there"
        )
    return failed(
        f"something listens at {address}, but no Ray cluster let us in within {ANSWER_SECONDS:g} s: {last}",
        "give the address that `ray start --head` prints (port 6379, not the dashboard's 8265)",
    )
