"""Requests to the API server of one cluster: sent, tried again where trouble may pass, and refusals put into words."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import urlsplit

from orchestrator.k8s.client.connect import NO_EXCEPTIONS, credentials_of
from orchestrator.k8s.client.errors import ClusterError, is_schema_error, refusal, status_of
from orchestrator.k8s.client.resources import ResourceType
from orchestrator.k8s.client.retrying import TRANSIENT_CODES, Retries

TIMEOUT_SECONDS = (10.0, 30.0)
"""To connect, and to be answered."""
NETWORK_REMEDY = "Is the cluster up, and the VPN on? Check with `kubectl version`"

Query = list[tuple[str, str]]


class Transport:
    """Sends requests through the official client, which knows addresses, certificates and credentials."""

    def __init__(self, client: Any, namespace: str, retries: Retries) -> None:
        from kubernetes.dynamic import DynamicClient

        self._host: str = client.configuration.host
        self._namespace = namespace
        self._retries = retries
        self._client = client
        self._dynamic = DynamicClient(client, discoverer=_NoDiscovery)  # type: ignore[no-untyped-call]

    def json(self, method: str, path: str, query: Query | None = None, *, asked: str, **how: Any) -> dict[str, Any]:
        """The JSON object of an answer; see `send`."""
        response = self.send(method, path, query, asked=asked, **how, whole=True)
        try:
            parsed: dict[str, Any] = json.loads(response.data or b"{}")
        except ValueError as error:
            raise ClusterError(
                f"{self._host}: cannot {asked}: the answer is no JSON. Is this the address of an API server?"
            ) from error
        return parsed

    def send(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        *,
        asked: str,
        resource: ResourceType | None = None,
        body: dict[str, Any] | None = None,
        content_type: str | None = None,
        repeatable: bool = True,
        timeout: tuple[float, float] = TIMEOUT_SECONDS,
        whole: bool = False,
        sent: list[int] | None = None,
    ) -> Any:
        """The server's response, its body read if `whole`.

        `asked` says in messages what was tried, as in "apply RayJob digits-grid-0a1b2c3d". A request that is not
        `repeatable` is sent again only where the server cannot have carried it out. `sent` gets an item for each time
        that it went out.

        Raises:
            ClusterError: (one of its kinds) refused, or no answer after all tries.
        """
        import urllib3
        from kubernetes.client.exceptions import ApiException

        started, waited, tried, renewed = time.monotonic(), 0.0, 0, False
        while True:
            tried += 1
            credentials = credentials_of(self._client)
            if sent is not None:
                sent.append(tried)
            at_least: float | None = None
            try:
                response = self._dynamic.request(
                    method,
                    path,
                    body=body,
                    query_params=list(query or []),
                    header_params={"Accept": "application/json"},
                    content_type=content_type,
                    _request_timeout=timeout,
                    serialize=False,
                )
                if whole:
                    _ = response.data  # a connection may also break in the midst of the answer
                return response
            except ApiException as error:
                if error.status == 401 and not renewed and self._renewed(credentials, asked):
                    renewed = True
                    if sent:
                        sent.pop()  # it was certainly not carried out
                    continue
                failure, again, at_least = self._refused(error, asked, resource)
                again = again and (repeatable or error.status == 429)
                cause: Exception = error
            except (urllib3.exceptions.HTTPError, OSError) as error:
                failure = ClusterError(f"{self._host}: cannot {asked}: {self._network_reason(error)}. {NETWORK_REMEDY}")
                again = repeatable or isinstance(error, urllib3.exceptions.NewConnectionError)
                cause = error
            spent = max(waited, time.monotonic() - started)
            pause = self._retries.wait(tried, spent, at_least) if again else None
            if pause is None:
                raise failure from cause
            waited += pause

    def _renewed(self, refused: tuple[Any, ...], asked: str) -> bool:
        """Whether there are other credentials than those that the server has refused. Raises ClusterError (401)."""
        renew = getattr(self._client, "renew_credentials", None)
        try:
            return bool(renew and renew(refused))
        except (ClusterError, ValueError) as error:
            told = f"{self._host}: cannot {asked}: the credentials are not accepted (401) any more"
            raise ClusterError(f"{told}, and there are no others: {error}", code=401, reason="Unauthorized") from error

    def _network_reason(self, error: Exception) -> str:
        import urllib3

        reason, proxy = _last_words(error), self._client.configuration.proxy
        if not isinstance(error, urllib3.exceptions.ProxyError) or not proxy:
            return reason
        parts = urlsplit(proxy)  # without the password that may be in it
        named = self._client.configuration.no_proxy == NO_EXCEPTIONS
        of = "proxy-url of the kubeconfig" if named else "which NO_PROXY avoids"
        return f"{reason} (through the proxy {parts.scheme}://{parts.hostname}:{parts.port}, {of})"

    def _refused(
        self, error: Any, asked: str, resource: ResourceType | None
    ) -> tuple[ClusterError, bool, float | None]:
        """The error for an answer, whether it may pass, and the seconds that the server asks to wait."""
        if not error.status:  # the client's way to tell of certificates
            reason = str(error.reason).replace("\n", ": ")
            return (
                ClusterError(
                    f"{self._host}: cannot {asked}: its certificate is not accepted ({reason}). If this is the right "
                    "server, certificate-authority-data in the kubeconfig is not of this cluster: fetch it anew"
                ),
                False,
                None,
            )
        body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body or "")
        failure = refusal(
            error.status,
            body,
            asked=asked,
            host=self._host,
            namespace=self._namespace,
            group=resource.group if resource else "",
        )
        passing = error.status in TRANSIENT_CODES and not is_schema_error(str(status_of(body).get("message", "")))
        asks = str((error.headers or {}).get("Retry-After") or "")
        return failure, passing, float(asks) if asks.isdigit() else None


class _NoDiscovery:
    """In place of the client's discovery, which asks the server for all that it has and keeps a file of it."""

    def __init__(self, client: Any, cache_file: Any) -> None:
        pass


def _last_words(error: Exception) -> str:
    """The last words of a chain like "HTTPConnection(host=..., port=...): Failed to ...: [Errno 111] ..."."""
    if len(error.args) == 2 and isinstance(error.args[1], Exception):
        return _last_words(error.args[1])
    text = str(error) or type(error).__name__
    return text.rpartition("): ")[2] if "): " in text else text
