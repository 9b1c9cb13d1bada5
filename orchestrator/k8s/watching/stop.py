"""Ending a launch: Ray is asked to stop it, so that it saves and leaves; else its RayJob is deleted."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.k8s.client.api import Api, ClusterError, ForbiddenError
from orchestrator.k8s.names import of_sweep
from orchestrator.k8s.watching.observed import ENDED, Manifest, Picture
from orchestrator.k8s.watching.picture import look
from orchestrator.k8s.watching.troubles import is_ready
from orchestrator.k8s.watching.tunnel import forwarded

DASHBOARD_PORT = 8265
ANSWER_SECONDS = 30.0
TOKEN_KEY = "auth_token"
LONGEST_SECRET_NAME = 50


@dataclass(frozen=True)
class Stopped:
    """What became of a wish to stop.

    Attributes:
        name: of the RayJob.
        way: "asked" of Ray, which lets the launch save and leave; "deleted", with what ran since the last checkpoint;
            "ended" already before.
        why: why Ray was not asked, where it was not.
    """

    name: str
    way: Literal["asked", "deleted", "ended"]
    why: str = ""


def stop(api: Api, sweep: str, name: str | None = None) -> Stopped:
    """Stop a sweep's launch, as gently as can be.

    Raises:
        ValueError: no such sweep.
        ClusterError: it can neither be asked to stop nor deleted.
    """
    picture = look(api, sweep, name)
    if _is_over(picture):
        return Stopped(picture.name, "ended")
    try:
        ask_ray_to_stop(api, picture)
    except ConnectionError as error:
        api.delete("RayJob", picture.name, uid=picture.job["metadata"]["uid"] if picture.job else None)
        return Stopped(picture.name, "deleted", str(error))
    return Stopped(picture.name, "asked")


def _is_over(picture: Picture) -> bool:
    """Whether Ray has nothing to stop, and will not have: after a failed attempt the operator makes the next one."""
    job = picture.status.get("jobStatus")
    last_failed = picture.deployment == "Running" and job == "FAILED" and picture.attempt >= picture.attempts
    return picture.deployment in ENDED or job in ("SUCCEEDED", "STOPPED") or last_failed


def ask_ray_to_stop(api: Api, picture: Picture) -> None:
    """Send the launch a SIGTERM through Ray's job API. Raises ClusterError where that cannot be done, and why."""
    job = picture.status.get("jobId")
    if picture.status.get("jobStatus") == "FAILED":
        raise ClusterError("an attempt had failed and the next one was to come")
    if picture.deployment != "Running" or picture.status.get("jobStatus") != "RUNNING" or not job:
        raise ClusterError("the launch does not run yet")
    head = next((pod["metadata"]["name"] for pod in picture.of_type("head") if is_ready(pod)), None)
    if head is None:
        raise ClusterError("the head is not ready")
    headers = _token_header(api, picture)
    with forwarded(api, head, DASHBOARD_PORT) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
        try:
            connection.request("POST", f"/api/jobs/{job}/stop", headers=headers)
            answer = connection.getresponse()
            body = answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise ClusterError(f"Ray on the head does not answer ({error or type(error).__name__})") from error
        finally:
            connection.close()
    if answer.status != 200 or not _was_stopped(body):
        raise ClusterError(f"Ray on the head answers {answer.status}: {body.strip()[-300:]}")


def delete(api: Api, sweep: str) -> list[str]:
    """Delete a sweep's RayJobs and config maps, and with them its pods; results stay. Returns what was deleted.

    Raises:
        ValueError: no such sweep.
        ClusterError: they may not be deleted.
    """
    gone: dict[str, str] = {}
    for job in api.list("RayJob", labels=of_sweep(sweep)):
        name, uid = job["metadata"]["name"], job["metadata"]["uid"]
        if api.delete("RayJob", name, uid=uid):
            gone[uid] = f"RayJob {name}"
    deleted = list(gone.values())
    for config in left_over(api, sweep, gone):
        name, uid = config["metadata"]["name"], config["metadata"]["uid"]
        deleted += [f"ConfigMap {name}"] if api.delete("ConfigMap", name, uid=uid) else []
    if not deleted:
        look(api, sweep)  # tells that there is none, and which there are
    return deleted


def left_over(api: Api, sweep: str, gone: Collection[str] = ()) -> list[Manifest]:
    """Config maps of a sweep whose RayJob, of the same name, is not there or has one of the UIDs that are `gone`."""

    def is_left(metadata: Manifest) -> bool:
        job = api.get("RayJob", metadata["name"])
        return job is None or job["metadata"]["uid"] in gone

    return [config for config in api.list("ConfigMap", labels=of_sweep(sweep)) if is_left(config["metadata"])]


def token_secret(picture: Picture) -> str | None:
    """Name of the secret that holds the token of a launch's Ray cluster; None where it needs none."""
    options: Manifest = (picture.spec.get("rayClusterSpec") or {}).get("authOptions") or {}
    if options.get("mode") != "token":
        return None
    # The operator shortens long names from their start.
    name: str = options.get("secretName") or str(picture.status.get("rayClusterName") or "")[-LONGEST_SECRET_NAME:]
    return name if name[:1].isalpha() else f"r{name[1:]}"


def _token_header(api: Api, picture: Picture) -> dict[str, str]:
    name = token_secret(picture)
    if name is None:
        return {}
    try:
        secret: Any = api.get("Secret", name)
    except ForbiddenError as error:
        raise ClusterError(f"you may not read the secret {name!r} with Ray's token") from error
    token = ((secret or {}).get("data") or {}).get(TOKEN_KEY)
    if not token:
        raise ClusterError(f"the secret {name!r} with Ray's token is not there")
    return {"Authorization": f"Bearer {base64.b64decode(token).decode()}"}


def _was_stopped(body: str) -> bool:
    try:
        return bool(json.loads(body).get("stopped"))
    except (ValueError, AttributeError):
        return False
