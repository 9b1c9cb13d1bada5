"""The connection to a Ray cluster's dashboard, with its job API."""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from typing import Any
from urllib.parse import urlsplit

from orchestrator.ray_jobs.trouble import RayJobError, told
from orchestrator.ray_jobs.wheel import DISTRIBUTION

ANSWER_SECONDS = (5.0, 60.0)
"""To connect, and between two pieces of an answer."""
QUICK_SECONDS = 20.0
"""What fails later than this has waited for an answer in vain, and would again."""
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Ray's own tools read their address from these, even where they are given another."""
TALKATIVE = (
    "ray.client_builder",
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""Loggers of Ray's client that tell of every step."""
AUTHORITY_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""A file of certificates, for requests; given to Ray's client, it counts for the websockets of logs too."""
HEADERS_VARIABLE = "RAY_JOB_HEADERS"
"""Headers as JSON that a proxy before the dashboard asks for, as Ray's own tools take them."""
EXTRA = "pip install 'bo-sweep[cluster]'"


class RayCluster:
    """A connected cluster.

    Attributes:
        address: as it was given.
        jobs: the JobSubmissionClient.
        ray_version: of the cluster.
    """

    def __init__(self, address: str, jobs: Any) -> None:
        self.address, self.jobs = address, jobs
        self.ray_version: str = getattr(jobs, "_server_ray_version", None) or "?"

    def ask(self, call: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the job API's client.

        Raises:
            UnknownJobError: there is no such job.
            RayJobError: anything else.
        """
        with told(self.address):
            return getattr(self.jobs, call)(*arguments, **options)


def takes_jobs(address: str | None) -> bool:
    """Whether an address is that of a dashboard or a Ray Client server, to which a sweep can be sent as a job."""
    return bool(address) and str(address).startswith(("http://", "https://", "ray://"))


def connect(address: str) -> RayCluster:
    """Connect to `http://head:8265`, `https://...` or `ray://head:10001`; the latter is asked for its dashboard.

    The token comes from where Ray takes it: RAY_AUTH_MODE=token with RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or
    ~/.ray/auth_token; headers for a proxy from RAY_JOB_HEADERS, certificates from REQUESTS_CA_BUNDLE.

    Raises:
        ValueError: an address of another kind, or Ray's job API is not installed here; RAY_JOB_HEADERS is no JSON.
        RayJobError: nothing answers, or no dashboard; no token or a wrong one; a Ray that is too old.
    """
    _check_address(address)
    client = partial(_client_class(), verify=_authority(), headers=_headers())
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    if address.startswith("ray://"):
        from orchestrator.executor import check_address

        check_address(address)
    with _only_this_address(address), told(address), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray Client; what they warn of is raised as well
        cluster = RayCluster(address, _reached(client, address))
    _check_version(cluster)
    return cluster


def _check_address(address: str) -> None:
    """Raise ValueError for what cannot be one, or holds a password: addresses are shown in commands and logs."""
    try:
        parts = urlsplit(address)
        fits = takes_jobs(address) and bool(parts.hostname) and "" not in f"{parts.hostname}".rstrip(".").split(".")
        fits = fits and not (parts.query or parts.fragment)  # as a browser shows it: http://head:8265/#/overview
        with_password = parts.password is not None
        _ = parts.port
    except ValueError:
        fits, with_password = False, False
    if with_password:
        raise ValueError(
            "--address must not hold a password: it is shown in commands and logs. Put it into "
            f'{HEADERS_VARIABLE}, as JSON: {{"Authorization": "Basic ..."}}'
        )
    if not fits:
        raise ValueError(
            f"--address {address!r} is not where jobs are sent: give that of the dashboard, http://head:8265, or of "
            "Ray Client, ray://head:10001"
        )


def _reached(client: Any, address: str) -> Any:
    """The client. Ray Client's server starts a process for each guest, and may trip over it when busy: once more."""
    began = time.monotonic()
    try:
        return client(address)
    except Exception:  # Ray raises many kinds, down to plain Exception
        if not address.startswith("ray://") or time.monotonic() - began > QUICK_SECONDS:
            raise
        return client(address)


def _client_class() -> Any:
    try:
        import aiohttp  # noqa: F401
        import requests  # noqa: F401
        import wheel.wheelfile  # type: ignore[import-untyped]  # noqa: F401
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise ValueError(f"Ray's job API is not installed here ({error.name} is missing): {EXTRA}") from error

    class Client(JobSubmissionClient):  # type: ignore[misc]
        """Which does not wait for ever where nobody answers, and does not follow to where it is sent on: a POST would
        arrive there as a GET, and submit nothing."""

        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            answer = super()._do_request(
                method, endpoint, **{"timeout": ANSWER_SECONDS, "allow_redirects": False, **options}
            )
            if answer.is_redirect:
                raise RayJobError(_sent_on(self._address, endpoint, answer.headers["Location"]))
            return answer

    return Client


def _sent_on(address: str, endpoint: str, target: str) -> str:
    place = target.partition("?")[0]  # behind which there may be a secret
    if place.startswith(("http://", "https://")) and place.endswith(endpoint):
        return f"{address} sends on to another address: give --address {place.removesuffix(endpoint)}"
    return (
        f"{address} sends on to {place}, which is no dashboard: what a proxy before it asks for goes into "
        f'{HEADERS_VARIABLE}, as JSON: {{"X-Name": "value"}}; or forward port 8265 of the head to here'
    )


def _authority() -> str | bool:
    """What to check certificates by: the user's own file, or what comes with Python. Raises RayJobError."""
    for name in AUTHORITY_VARIABLES:
        path = os.environ.get(name)
        if path and not os.path.exists(path):
            raise RayJobError(f"{name} names {path}, which does not exist: correct it, or unset it")
        if path:
            return path
    return True


def _headers() -> dict[str, str] | None:
    """Raises ValueError, which does not show them: there may be a secret among them."""
    text = os.environ.get(HEADERS_VARIABLE)
    if not text:
        return None
    try:
        return {str(name): str(value) for name, value in json.loads(text).items()}
    except (ValueError, AttributeError):
        raise ValueError(f'{HEADERS_VARIABLE} is no JSON object of headers, as in {{"X-Name": "value"}}') from None


@contextmanager
def _only_this_address(address: str) -> Iterator[None]:
    """Ray prefers its variables to the address that it is given; here the user's word counts."""
    before = {name: os.environ.pop(name, None) for name in ADDRESS_VARIABLES}
    try:
        yield
    finally:
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _check_version(cluster: RayCluster) -> None:
    """The driver runs with the cluster's Ray: it has to be one that bo-sweep works with."""
    from packaging.requirements import Requirement
    from packaging.version import InvalidVersion

    needed = next(
        each
        for text in metadata.requires(DISTRIBUTION) or ()
        if (each := Requirement(text)).name == "ray" and not each.marker
    )
    try:
        fits = needed.specifier.contains(cluster.ray_version, prereleases=True)
    except InvalidVersion:
        return
    if not fits:
        raise RayJobError(
            f"the cluster at {cluster.address} runs Ray {cluster.ray_version}; bo-sweep needs ray{needed.specifier}. "
            "Update Ray on its nodes"
        )
