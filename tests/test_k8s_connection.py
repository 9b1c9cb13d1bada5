"""Whom the client of a cluster reaches: kubeconfig, credentials, certificates, proxies, and what it tells."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from orchestrator.k8s.client.api import ClusterError, Connection, connect
from orchestrator.k8s.client.retrying import Retries
from tests.kubernetes_api import FakeCluster
from tests.kubernetes_api.certificates import make_certificate
from tests.kubernetes_api.server import TOKEN


def test_the_namespace_is_what_the_user_said_else_that_of_the_context(cluster: FakeCluster, tmp_path: Path) -> None:
    path = cluster.kubeconfig(tmp_path / "kubeconfig", namespace="team")
    assert connect(Connection(path)).namespace == "team"
    assert connect(Connection(path, namespace="other")).namespace == "other"
    assert connect(Connection(cluster.kubeconfig(tmp_path / "plain"))).namespace == "default"
    assert connect(Connection(path)).version() == "v1.34.2"


def test_several_files_in_kubeconfig_are_joined_as_kubectl_joins_them(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = yaml.safe_load(cluster.kubeconfig(tmp_path / "whole").read_text())
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text(yaml.safe_dump({**whole, "users": [], "clusters": []}))
    second.write_text(
        yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **{k: whole[k] for k in ("users", "clusters")}})
    )
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join([str(tmp_path / "none"), str(first), str(second)]))
    assert connect(Connection()).host == cluster.address


def test_in_a_pod_the_service_account_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, certificate = make_certificate(tmp_path)
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "namespace").write_text("team\n")
    monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr("kubernetes.config.SERVICE_TOKEN_FILENAME", str(tmp_path / "token"), raising=False)
    monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_CERT_FILENAME", str(certificate))
    monkeypatch.setattr("orchestrator.k8s.client.connect.SERVICE_ACCOUNT_FOLDER", tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with FakeCluster(tls=context) as cluster:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(cluster.port))
        assert connect(Connection()).namespace == "team"
        with pytest.raises(ValueError, match="no contexts"):
            connect(Connection(context="fake"))


def test_without_kubeconfig_it_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ClusterError, match=r"no kubeconfig: looked for .*/\.kube/config\. Set KUBECONFIG or give"):
        connect(Connection())
    with pytest.raises(ClusterError, match=r"looked for .*mine"):
        connect(Connection(tmp_path / "mine"))


def test_a_wrong_context_is_the_users_mistake_and_the_right_ones_are_named(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    path = cluster.kubeconfig(tmp_path / "kubeconfig")
    with pytest.raises(ValueError, match=r"context 'prod' is not in the kubeconfig .*; there are: fake"):
        connect(Connection(path, context="prod"))
    document = yaml.safe_load(path.read_text())
    del document["current-context"]
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ValueError, match="no current context; give --context, one of: fake"):
        connect(Connection(path))
    assert connect(Connection(path, context="fake")).version()


@pytest.mark.parametrize("content", ["", "a: [", "[]", "contexts: [{name: fake}]\ncurrent-context: fake\n"])
def test_a_damaged_kubeconfig_is_told_as_such(content: str, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(content)
    with pytest.raises(ClusterError, match=r"kubeconfig .* cannot be used"):
        connect(Connection(path))


def test_a_failing_plugin_for_credentials_is_told_with_its_own_words(
    cluster: FakeCluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = cluster.kubeconfig(tmp_path / "kubeconfig")
    document = yaml.safe_load(path.read_text())
    plugin = {"command": "sh", "args": ["-c", "echo token expired, run login >&2; exit 1"]}
    document["users"][0]["user"] = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", **plugin}}
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ClusterError, match=r"no credentials .* token expired, run login"):
        connect(Connection(path))
    assert capfd.readouterr() == ("", "")
    assert cluster.requests == []


def test_on_a_terminal_a_failing_plugin_speaks_for_itself(
    cluster: FakeCluster, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cluster.kubeconfig(tmp_path / "kubeconfig")
    document = yaml.safe_load(path.read_text())
    plugin = {"command": "sh", "args": ["-c", "echo run login >&2; exit 1"]}
    document["users"][0]["user"] = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", **plugin}}
    path.write_text(yaml.safe_dump(document))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        with pytest.raises(
            ClusterError, match=r"no credentials .*: the plugin for credentials has failed; what it said"
        ):
            connect(Connection(path))
    assert capfd.readouterr().err == "run login\n"


def test_rejected_credentials_are_told_without_being_shown(cluster: FakeCluster, tmp_path: Path) -> None:
    path = cluster.kubeconfig(tmp_path / "kubeconfig", token="of-yesterday")
    with pytest.raises(ClusterError, match=r"not accepted \(401\).*log in to the cluster again") as told:
        connect(Connection(path))
    assert "of-yesterday" not in str(told.value)
    assert len(cluster.requests) == 1  # not tried again


def test_a_plugin_that_does_not_tell_when_its_token_expires_is_asked_again(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    path, answer = cluster.kubeconfig(tmp_path / "kubeconfig"), tmp_path / "answer"
    version = "client.authentication.k8s.io/v1"

    def gives(token: str) -> None:
        credential = {"apiVersion": version, "kind": "ExecCredential", "status": {"token": token}}
        answer.write_text(json.dumps(credential))

    document = yaml.safe_load(path.read_text())
    document["users"][0]["user"] = {"exec": {"apiVersion": version, "command": "cat", "args": [str(answer)]}}
    path.write_text(yaml.safe_dump(document))
    gives(TOKEN)
    api = connect(Connection(path))
    cluster.tokens = {"of-today"}
    gives("of-today")
    assert api.list("ConfigMap") == []
    cluster.requests.clear()
    assert api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "grid"}})
    assert len(cluster.requests) == 1
    cluster.tokens = {"of-tomorrow"}
    cluster.requests.clear()
    with pytest.raises(ClusterError, match=r"not accepted \(401\)"):
        api.list("ConfigMap")
    assert len(cluster.requests) == 1
    answer.unlink()
    with pytest.raises(ClusterError, match=r"not accepted \(401\) any more, and there are no others: .*answer") as told:
        api.list("ConfigMap")
    assert told.value.code == 401
    assert "of-today" not in str(told.value)


def test_a_server_that_is_not_to_be_verified_is_not_warned_of(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    context, _ = make_certificate(tmp_path)
    with FakeCluster(tls=context) as cluster:
        unverified: dict[str, Any] = {"insecure-skip-tls-verify": True}
        path = cluster.kubeconfig(tmp_path / "kubeconfig", **unverified)
        assert connect(Connection(path)).list("ConfigMap") == []
    assert [str(warning.message) for warning in recwarn] == []


def test_a_proxy_that_is_not_there_is_named_without_its_password(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cluster.kubeconfig(tmp_path / "kubeconfig")
    monkeypatch.setenv("HTTP_PROXY", "http://alice:hidden@127.0.0.1:9")
    with pytest.raises(ClusterError, match=r"through the proxy http://127\.0\.0\.1:9, which NO_PROXY avoids") as told:
        connect(Connection(path), Retries(tries=1))
    assert "hidden" not in str(told.value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
    assert connect(Connection(path)).version()


def test_a_server_that_is_not_there_is_told_soon(cluster: FakeCluster, tmp_path: Path) -> None:
    path, slept = cluster.kubeconfig(tmp_path / "kubeconfig"), list[float]()
    cluster.stop()
    with pytest.raises(ClusterError, match=r"127\.0\.0\.1:\d+: cannot reach the cluster: .*refused.*VPN"):
        connect(Connection(path), Retries(tries=3, sleep=slept.append))
    assert len(slept) == 2
    assert sum(slept) < 3


def test_the_wrong_certificate_is_told_as_such(tmp_path: Path) -> None:
    context, _ = make_certificate(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    _, foreign = make_certificate(other)
    with FakeCluster(tls=context) as cluster:
        path = cluster.kubeconfig(tmp_path / "kubeconfig", **{"certificate-authority": str(foreign)})
        with pytest.raises(ClusterError, match=r"certificate is not accepted .*certificate-authority-data"):
            connect(Connection(path))


def test_another_server_than_an_api_server_is_told_as_such(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def login_page(*_: Any) -> web.Response:
        return web.Response(text="<html>Please log in</html>", content_type="text/html")

    monkeypatch.setattr("tests.kubernetes_api.handlers.Routes.version", login_page)
    with FakeCluster() as other, pytest.raises(ClusterError, match=r"no JSON\. Is this the address of an API server\?"):
        connect(Connection(other.kubeconfig(tmp_path / "kubeconfig")))
