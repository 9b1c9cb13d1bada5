"""The log of one container as the API gives it: opened, read line by line, and never a line twice or left out.

The API's connections break: load balancers end idle ones, nodes are upgraded. A log is then opened again from the
second of the last line. The server counts in whole seconds here, so it sends some lines again; the stamps of lines, to
the nanosecond, tell which.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal
from urllib.parse import quote, urlencode

from orchestrator.k8s.client.api import Api, ClusterError, NotFoundError, RejectedError
from orchestrator.k8s.client.errors import refusal
from orchestrator.k8s.watching.observed import Manifest
from orchestrator.k8s.watching.patience import Patience, is_passing, patiently

CONNECT_SECONDS, SILENT_SECONDS = 10.0, 60.0
"""A connection that is silent for so long is opened anew: it may be dead."""
RAY_CONTAINERS = ("ray-head", "ray-worker", "ray-job-submitter")
OVERLAP = timedelta(seconds=2)
"""Lines of stdout and stderr may stand in a log a little out of order."""


class Position:
    """Which lines of a log have been shown.

    Args:
        of_last: only the last lines were asked for: what is older than the first of them is not shown later either.
    """

    def __init__(self, of_last: bool = False) -> None:
        self._of_last = of_last
        self._earliest: datetime | None = None
        self._latest: datetime | None = None
        self._recent: deque[tuple[datetime, str]] = deque()
        self._again: Counter[str] = Counter()
        self._of_node: set[str] = set()
        self.first_new: tuple[datetime, str] | None = None
        """The first line that was shown since the log was opened, with its stamp."""

    @property
    def since(self) -> str | None:
        """From when on to ask, in whole seconds; None from the start."""
        return _in_seconds(self._latest - OVERLAP) if self._latest else None

    def reopened(self) -> None:
        """From here on lines may come that were shown already."""
        self._again = Counter(line for _, line in self._recent)
        self.first_new = None

    def take(self, line: str) -> str | None:
        """The text of a stamped line, or None where it was shown already."""
        stamp, _, text = line.partition(" ")
        try:
            when = datetime.fromisoformat(stamp).astimezone(UTC)
        except ValueError:
            # Of the node itself, as "unable to retrieve container logs": it says so each time that it is asked.
            is_new = line not in self._of_node
            self._of_node.add(line)
            return line if is_new else None
        if self._again[line]:
            self._again[line] -= 1
            return None
        self._earliest = self._earliest or when
        if self._of_last and when < self._earliest:
            return None
        self.first_new = self.first_new or (when, line)
        self._latest = max(self._latest or when, when)
        self._recent.append((when, line))
        start = (self._latest - OVERLAP).replace(microsecond=0)
        while self._recent and self._recent[0][0] < start:
            self._recent.popleft()
        return text


def pod_lines(
    api: Api,
    pod: str,
    *,
    follow: bool = True,
    tail: int | None = None,
    tell: Callable[[str], None] = lambda words: None,
    patience: Patience | None = None,
) -> Iterator[str]:
    """Lines of a pod's container that sweeps are about, from its start or the last `tail`; each once, in order.

    With `follow` it goes on, over broken connections and restarts of the container, until the container has ended or
    the pod is gone. `tell` gets words for the user when it takes time.

    Raises:
        ClusterError: logs (or, to follow, pods) may not be read, or the cluster did not answer for as long as
            `patience` says.
    """
    patience = patience or Patience()
    position, pause, state = Position(tail is not None), patience.first_seconds, _state(api, pod, must=follow)
    restarts, again = state.restarts, False
    while True:
        query = {"follow": "true" if follow else "false", "timestamps": "true"}
        query |= {"container": state.container} if state.container else {}
        query |= (
            {"sinceTime": position.since} if position.since else {"tailLines": str(tail)} if tail is not None else {}
        )
        if follow:
            response = _opened(api, pod, query, tell, patience, again=again)
        else:
            response = _open_now(api, pod, query, tell, patience)
        if response is None:
            return
        again = True
        before = deepcopy(position)
        position.reopened()
        whole, rest = yield from _read(response, position)
        if follow:
            state = patiently(partial(_state, api, pod, container=state.container), tell, patience, again=True)
        is_over = state.has_ended or not follow
        if whole and is_over and rest and (text := position.take(rest)) is not None:
            yield text
        if follow and state.restarts is not None:
            if restarts is not None and state.restarts > restarts:
                yield from _last_of_previous(api, pod, query, before, position)
            restarts = state.restarts
        if whole and is_over:
            return
        # The log of a container that waits to be started again ends at once: it is not opened all the time.
        pause = patience.first_seconds if position.first_new else min(2 * pause, patience.poll_seconds)
        patience.sleep(pause)


def _opened(
    api: Api, pod: str, query: dict[str, str], tell: Callable[[str], None], patience: Patience, *, again: bool
) -> Any:
    """The response that streams a log, waited for; None where the pod is gone. Raises ClusterError and its kinds."""
    waited, pause, told = 0.0, patience.first_seconds, False
    while True:
        try:
            return open_log(api, pod, query)
        except ClusterError as error:
            obstacle = _obstacle(api, pod, error)
            if obstacle == "gone":
                return None
            limits = {"passing": patience.total_seconds, "ended": patience.first_seconds}
            limit = limits.get(obstacle, patience.seconds_for(error, again=again))
            if obstacle != "starting" and waited >= limit:
                raise
            if not told:
                tell(f"{pod} has not started yet" if obstacle == "starting" else f"{error}; trying again")
        told = True
        patience.sleep(pause)
        waited += pause if obstacle != "starting" else 0.0
        pause = min(2 * pause, patience.longest_seconds)


def _open_now(api: Api, pod: str, query: dict[str, str], tell: Callable[[str], None], patience: Patience) -> Any:
    """As `_opened`, but without waiting for a container to start."""
    try:
        return patiently(lambda: open_log(api, pod, query), tell, patience)
    except ClusterError as error:
        obstacle = _obstacle(api, pod, error)
        if obstacle == "gone":
            return None
        if obstacle == "starting":
            raise ClusterError(f"{pod} has no log yet: its container is waiting to start", code=400) from error
        raise


def open_log(api: Api, pod: str, query: dict[str, str], silent_seconds: float = SILENT_SECONDS) -> Any:
    """The response that streams a log. Raises ClusterError and its kinds."""
    import urllib3

    path = f"/api/v1/namespaces/{quote(api.namespace)}/pods/{quote(pod)}/log"
    asked = f"read the log of {pod}"
    try:
        # The generated method of the client has no sinceTime; its pool has the certificates and proxies.
        response = api.client.rest_client.pool_manager.request(
            "GET",
            f"{api.host}{path}?{urlencode(query)}",
            headers=authorization(api),
            preload_content=False,
            retries=False,
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=silent_seconds),
        )
        body = response.data.decode(errors="replace") if response.status != 200 else ""
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise ClusterError(f"{api.host}: cannot {asked}: {error}") from error
    if response.status == 204:
        raise RejectedError(f"{api.host}: cannot {asked}: it is waiting to start, on no node yet", code=204)
    if response.status != 200:
        raise refusal(response.status, body, asked=asked, host=api.host, namespace=api.namespace)
    return response


def log_text(api: Api, pod: str, query: dict[str, str], silent_seconds: float = SILENT_SECONDS) -> str:
    """A log, or the part of it that `query` asks for, as a whole. Raises ClusterError and its kinds."""
    import urllib3

    try:
        text: str = open_log(api, pod, query, silent_seconds).data.decode(errors="replace")
    except (urllib3.exceptions.HTTPError, OSError) as error:
        if isinstance(error, ClusterError):
            raise
        raise ClusterError(f"{api.host}: cannot read the log of {pod}: {error}") from error
    return text


def authorization(api: Api) -> dict[str, str]:
    """The header with the user's token, renewed where it has to be; empty where certificates speak for the user."""
    setting = api.client.configuration.auth_settings().get("BearerToken")
    return {"authorization": setting["value"]} if setting and setting.get("value") else {}


def _read(response: Any, position: Position) -> Generator[str, None, tuple[bool, str]]:
    """Yield new lines; return whether the log ended well, and what came after the last end of line."""
    import urllib3

    rest = b""
    try:
        for chunk in response.stream(amt=2**16, decode_content=False):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if (text := position.take(line.decode(errors="replace"))) is not None:
                    yield text
    except (urllib3.exceptions.HTTPError, OSError):
        return False, ""  # cut, perhaps within a line: it comes again
    finally:
        response.close()
    return True, rest.decode(errors="replace")


def _last_of_previous(api: Api, pod: str, query: dict[str, str], before: Position, position: Position) -> Iterator[str]:
    """What the container before a restart said that was not shown.

    The log that was read last may be of either container: a pod's status tells of a restart later than its log does.
    So where that log's lines are not in the one of the container before, it goes on from what was shown `before`.
    """
    query = query | {"follow": "false", "previous": "true"}
    try:
        if position.first_new and not _holds(api, pod, query, *position.first_new):
            position = before
        if position.since:
            query = {key: value for key, value in query.items() if key != "tailLines"} | {"sinceTime": position.since}
        response = open_log(api, pod, query)
    except ClusterError:
        return  # the node has removed it
    position.reopened()
    yield from _read(response, position)


def _holds(api: Api, pod: str, query: dict[str, str], when: datetime, line: str) -> bool:
    """Whether a stamped line is in the log that a query asks for."""
    near = {"sinceTime": _in_seconds(when), "limitBytes": str(2**20)}
    text = log_text(api, pod, {key: value for key, value in query.items() if key != "tailLines"} | near)
    return line in text.split("\n")


def _in_seconds(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class _PodState:
    """What matters of a pod to one who reads its log.

    Attributes:
        container: whose log it is; None where the pod could not be looked at.
        restarts: how often this container was started again; None where it is not known.
        is_pending: not running yet.
        has_ended: or is gone.
    """

    container: str | None = None
    restarts: int | None = None
    is_pending: bool = False
    has_ended: bool = False


def _state(api: Api, pod: str, *, container: str | None = None, must: bool = True) -> _PodState:
    """Look at a pod; a look that may succeed later tells nothing. Raises ClusterError where it `must` be allowed."""
    try:
        found = api.get("Pod", pod)
    except ClusterError as error:
        if must and not is_passing(error):
            raise
        return _PodState(container)
    if found is None:
        return _PodState(container, has_ended=True)
    status = found.get("status") or {}
    name = container or container_of(found)
    counts = [each.get("restartCount") for each in status.get("containerStatuses") or [] if each.get("name") == name]
    phase = status.get("phase") or "Pending"
    return _PodState(name, int(counts[0] or 0) if counts else 0, phase == "Pending", phase in ("Succeeded", "Failed"))


def container_of(pod: Manifest) -> str | None:
    """The container with Ray in it. Clusters add others, as of a service mesh, before it or behind it."""
    names = [container["name"] for container in (pod.get("spec") or {}).get("containers") or []]
    return next((name for name in names if name in RAY_CONTAINERS), names[0] if names else None)


def _obstacle(api: Api, pod: str, error: ClusterError) -> Literal["gone", "starting", "ended", "passing", "refused"]:
    """What keeps a log from being opened; of a pod that has "ended", that it had not started a moment ago."""
    if isinstance(error, NotFoundError):
        state = _state(api, pod)
        # Of a pod that is there: its node has not heard of it yet, or does not let the server through.
        return "gone" if state.has_ended else "starting" if state.is_pending else "passing"
    if isinstance(error, RejectedError) and "waiting to start" in str(error):
        return "ended" if _state(api, pod).has_ended else "starting"
    return "passing" if is_passing(error) else "refused"
