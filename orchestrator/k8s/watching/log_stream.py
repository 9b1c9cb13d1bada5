"""The log of one container as the API gives it: opened, read line by line, and never a line twice or left out.

The API's connections break: load balancers end idle ones, nodes are upgraded. A log is then opened again from the
second of the last line. The server counts in whole seconds here, so it sends some lines again; the stamps of lines, to
the nanosecond, tell which.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

from orchestrator.k8s.client.api import Api, ClusterError, NotFoundError, RejectedError
from orchestrator.k8s.client.errors import refusal
from orchestrator.k8s.watching.observed import Manifest
from orchestrator.k8s.watching.patience import Patience, is_passing

CONNECT_SECONDS, SILENT_SECONDS = 10.0, 60.0
"""A connection that is silent for so long is opened anew: it may be dead."""
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
            return line  # of the node itself, as "unable to retrieve container logs"
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
    container: str | None = None,
    follow: bool = True,
    tail: int | None = None,
    tell: Callable[[str], None] = lambda words: None,
    patience: Patience | None = None,
) -> Iterator[str]:
    """Lines of a pod's first (or named) container, from its start or the last `tail`; each once, in order.

    With `follow` it goes on, over broken connections and restarts of the container, until the container has ended or
    the pod is gone. `tell` gets words for the user when it takes time.

    Raises:
        ClusterError: logs may not be read, or the cluster did not answer for as long as `patience` says.
    """
    patience = patience or Patience()
    position, restarts, waited, pause = Position(tail is not None), _restarts(api, pod), 0.0, patience.first_seconds
    while True:
        query = {"follow": "true" if follow else "false", "timestamps": "true"}
        query |= {"container": container} if container else {}
        query |= (
            {"sinceTime": position.since} if position.since else {"tailLines": str(tail)} if tail is not None else {}
        )
        try:
            response = open_log(api, pod, query)
        except NotFoundError:
            return
        except ClusterError as error:
            starting = isinstance(error, RejectedError) and "waiting to start" in str(error)
            if (not follow and starting) or not (starting or is_passing(error)) or waited > patience.total_seconds:
                raise
            if pause == patience.first_seconds:
                tell(f"{pod} has not started yet" if starting else f"{error}; trying again")
            patience.sleep(pause)
            waited, pause = waited + (0.0 if starting else pause), min(2 * pause, patience.longest_seconds)
            continue
        before = deepcopy(position)
        position.reopened()
        whole, rest = yield from _read(response, position)
        ended, now_restarts = _state(api, pod)
        if whole and (ended or not follow) and rest and (text := position.take(rest)) is not None:
            yield text
        if follow and now_restarts > restarts:
            restarts = now_restarts
            yield from _last_of_previous(api, pod, query, before, position)
        if whole and (ended or not follow):
            return
        waited, pause = 0.0, patience.first_seconds
        patience.sleep(pause)


def open_log(api: Api, pod: str, query: dict[str, str]) -> Any:
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
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=SILENT_SECONDS),
        )
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise ClusterError(f"{api.host}: cannot {asked}: {error}") from error
    if response.status != 200:
        body = response.data.decode(errors="replace")
        raise refusal(response.status, body, asked=asked, host=api.host, namespace=api.namespace)
    return response


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
    response = open_log(api, pod, {key: value for key, value in query.items() if key != "tailLines"} | near)
    return line in response.data.decode(errors="replace").split("\n")


def _in_seconds(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _state(api: Api, pod: str) -> tuple[bool, int]:
    """Whether the pod has ended (or is gone, or cannot be looked at), and how often its first container restarted."""
    try:
        found = api.get("Pod", pod)
    except ClusterError:
        return False, 0
    if found is None:
        return True, 0
    return (found.get("status") or {}).get("phase") in ("Succeeded", "Failed"), _restarts_of(found)


def _restarts(api: Api, pod: str) -> int:
    return _state(api, pod)[1]


def _restarts_of(pod: Manifest) -> int:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return max((int(status.get("restartCount") or 0) for status in statuses), default=0)
