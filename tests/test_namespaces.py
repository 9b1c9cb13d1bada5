"""A Ray cluster of separate nodes, each with an address of its own: one goes and one comes while a sweep runs."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import polars as pl
import psutil
import pytest

from orchestrator.ledger import Ledger
from tests.launches import LONGER, assert_verified, command, end_of, has_saved, running
from tests.waiting import wait_for

pytestmark = pytest.mark.ray

PORT = 6399
RAY = str(Path(sys.executable).with_name("ray"))


def run(*words: str, **options: object) -> str:
    """Run a command that must succeed; gives its output."""
    return subprocess.run(words, check=True, capture_output=True, text=True, **options).stdout  # type: ignore[call-overload,no-any-return]


def why_not() -> str:
    """Why there can be no namespaces here; empty where there can."""
    if os.geteuid():
        return "needs root"
    if not shutil.which("ip"):
        return "needs ip (Debian: iproute2)"
    probe = subprocess.run(["ip", "netns", "add", "bo-sweep-probe"], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "delete", "bo-sweep-probe"], capture_output=True)
    return probe.stderr.strip()


class Network:
    """Hosts on one bridge: network namespaces named after a prefix, with addresses 10.77.x.1, 10.77.x.2, ..."""

    def __init__(self) -> None:
        self.prefix = f"bo{secrets.token_hex(2)}"
        self.subnet = f"10.77.{secrets.randbelow(200) + 20}"
        self.environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        run("ip", "link", "add", self.prefix, "type", "bridge")
        run("ip", "link", "set", self.prefix, "up")
        self.hosts: list[str] = []

    def add_host(self, *start: str) -> str:
        """A new host that runs `ray start` with these options; gives its name."""
        number = len(self.hosts) + 1
        host, cable = f"{self.prefix}-{number}", f"{self.prefix}v{number}"
        run("ip", "netns", "add", host)
        self.hosts.append(host)
        run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", host)
        run("ip", "link", "set", cable, "master", self.prefix, "up")
        run("ip", "-n", host, "addr", "add", f"{self.subnet}.{number}/24", "dev", "eth0")
        run("ip", "-n", host, "link", "set", "eth0", "up")
        run("ip", "-n", host, "link", "set", "lo", "up")
        node = [f"--node-ip-address={self.subnet}.{number}", "--num-cpus=1", "--object-store-memory=80000000"]
        run(*self.on(host, RAY, "start", *node, "--disable-usage-stats", *start), env=self.environment)
        return host

    @property
    def address(self) -> str:
        return f"{self.subnet}.1:{PORT}"

    def on(self, host: str, *words: str) -> list[str]:
        return ["ip", "netns", "exec", host, *words]

    def kill(self, host: str) -> None:
        """All processes of a host at once, as when its power goes."""
        for process in run("ip", "netns", "pids", host).split():
            with suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)

    def close(self) -> None:
        for host in self.hosts:
            self.kill(host)
            subprocess.run(["ip", "netns", "delete", host], check=False)
        subprocess.run(["ip", "link", "delete", self.prefix], check=False)


@pytest.fixture
def network() -> Iterator[Network]:
    reason = why_not()
    if reason:
        pytest.skip(f"no network namespaces: {reason}")
    network = Network()
    try:
        yield network
    finally:
        network.close()


@pytest.mark.chaos
def test_a_host_goes_and_another_one_comes_while_a_sweep_runs(
    network: Network, tmp_path: Path, data_folder: Path
) -> None:
    head = network.add_host("--head", f"--port={PORT}", "--include-dashboard=false")
    lost = network.add_host(f"--address={network.address}")
    arguments = ("launch", "digits-grid", "--storage", tmp_path, "--data", data_folder, *LONGER)
    launched = network.on(head, *command(*arguments, "--address", network.address))
    with running(launched, network.environment) as process:
        wait_for(lambda: has_saved(process, tmp_path))
        came = network.add_host(f"--address={network.address}")
        wait_for(lambda: uses_ray_worker(network, came))
        network.kill(lost)
        errors = end_of(process)
    assert process.returncode == 0, errors
    assert_verified(tmp_path)
    ledger = Ledger(tmp_path / "digits-grid")
    assert ledger.ends()["status"].to_list() == ["done"] * 8
    workers = ledger.logs().filter(pl.col("event") == "started")["worker"].n_unique()
    assert workers >= 2


def uses_ray_worker(network: Network, host: str) -> bool:
    """Whether a worker of the sweep has come up on a host."""
    names = []
    for process in run("ip", "netns", "pids", host).split():
        with suppress(psutil.NoSuchProcess):
            names.append(" ".join(psutil.Process(int(process)).cmdline()))
    return any("ImplicitFunc" in name for name in names)
