"""What a kubeconfig means, where the official client takes it for something else than kubectl does."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.k8s.client.api import Api, ClusterError, Connection, connect
from orchestrator.k8s.client.connect import client_for
from orchestrator.k8s.client.retrying import Retries
from orchestrator.k8s.watching.tunnel import open_websocket
from tests.kubernetes_api import FakeCluster


@pytest.mark.parametrize("before", [{}, {"current-context": ""}])
def test_of_several_files_the_first_with_a_current_context_says_which(
    before: dict[str, str], cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty, last = tmp_path / "empty", tmp_path / "last"
    empty.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **before}))
    text = cluster.kubeconfig(tmp_path / "first").read_text()
    last.write_text(text.replace("fake", "other").replace(str(cluster.port), "9"))
    files = [empty, tmp_path / "first", last, empty]
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(map(str, files)))
    assert connect(Connection()).host == cluster.address


def test_no_proxy_is_not_about_the_proxy_of_the_kubeconfig(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    proxy: dict[str, Any] = {"proxy-url": "http://127.0.0.1:9"}
    path = cluster.kubeconfig(tmp_path / "kubeconfig", **proxy)
    with pytest.raises(ClusterError, match=r"through the proxy http://127\.0\.0\.1:9, proxy-url of the kubeconfig"):
        connect(Connection(path), Retries(tries=1))
    with pytest.raises(ClusterError, match="refused"):
        open_websocket(Api(client_for(Connection(path))[0], "default"), "head", 8265)


@pytest.mark.filterwarnings("ignore:SOCKS support")
@pytest.mark.parametrize("proxy", ["alice:hidden@proxy.example.org:3128", "socks5://alice:hidden@127.0.0.1:9"])
def test_a_proxy_that_cannot_be_used_is_told_as_such(
    proxy: str, cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "socks", None)
    named: dict[str, Any] = {"proxy-url": proxy}
    with pytest.raises(ClusterError, match=r"proxy-url .* cannot be used: (.*scheme|.* needs `pip install)") as told:
        connect(Connection(cluster.kubeconfig(tmp_path / "kubeconfig", **named)))
    assert "hidden" not in str(told.value)
