"""The output of a launch, over its retries: what the submitter of each attempt prints, as one stream."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator

from orchestrator.k8s.client.api import Api, ClusterError
from orchestrator.k8s.watching.log_stream import open_log, pod_lines
from orchestrator.k8s.watching.observed import ENDED, Manifest, Picture, deployment_of
from orchestrator.k8s.watching.patience import Patience, patiently
from orchestrator.k8s.watching.picture import submitters_of

PROGRESS_LINES = 50


def launch_lines(
    api: Api,
    job: Manifest,
    *,
    follow: bool = True,
    tail: int | None = None,
    tell: Callable[[str], None] = lambda words: None,
    patience: Patience | None = None,
) -> Iterator[str]:
    """Lines that a launch prints, each once; with `follow` until its RayJob has ended, over all attempts to come.

    A submitter that takes over from another one of the same attempt prints all output again: that is left out.

    Raises:
        ClusterError: logs may not be read, or the cluster did not answer for long.
    """
    patience = patience or Patience()
    name, seen, told = job["metadata"]["name"], set[str](), False
    outputs: dict[str, Output] = {}
    while True:
        # Read before its pods are: one that has ended then has no pod to come.
        current = patiently(lambda: api.get("RayJob", name), tell, patience)
        pods = patiently(lambda: submitters_of(api, name), tell, patience)
        new = [pod for pod in pods if pod["metadata"]["name"] not in seen]
        for pod in new if seen else new[-1:]:
            output = outputs.setdefault(_submission(pod), Output(whole=tail is None))
            of_pod = None if seen else tail
            lines = pod_lines(api, pod["metadata"]["name"], follow=follow, tail=of_pod, tell=tell, patience=patience)
            yield from output.new(lines)
        seen |= {pod["metadata"]["name"] for pod in pods}
        if not follow and not pods:
            tell("There is no output yet: no submitter has started.")
        if not follow or current is None or deployment_of(current) in ENDED:
            return
        if not new and not told:
            tell("Waiting for the launch to be handed to Ray." if not seen else "Waiting for the next attempt.")
        told = not new
        patience.sleep(patience.poll_seconds)


class Output:
    """What the submitters of one attempt have printed: each prints all that the launch has said, from the start."""

    def __init__(self, *, whole: bool) -> None:
        """`whole` says that the first is read from its start, and not only its last lines."""
        self._whole = whole
        self._printed: Counter[int] = Counter()

    def new(self, lines: Iterator[str]) -> Iterator[str]:
        """Those of a submitter's lines that no submitter before it has printed."""
        again = self._printed.copy()
        skipping = bool(again) and not self._whole
        for line in lines:
            mark = hash(line)
            if again[mark]:
                again[mark] -= 1
                skipping = False
            elif not skipping:
                self._printed[mark] += 1
                yield line


def merged_lines(
    api: Api,
    pods: list[str],
    *,
    follow: bool,
    tail: int | None = None,
    tell: Callable[[str], None] = lambda words: None,
) -> Iterator[str]:
    """Lines of several pods: one after another, or with `follow` as they come; each begins with its pod's name."""
    if not follow:
        for pod in pods:
            yield from (f"{pod} | {line}" for line in pod_lines(api, pod, follow=False, tail=tail))
        return
    lines: queue.Queue[str | Exception | None] = queue.Queue(maxsize=1000)

    def read(pod: str) -> None:
        try:
            for line in pod_lines(api, pod, tail=tail, tell=tell):
                lines.put(f"{pod} | {line}")
        except Exception as error:  # told by the reader of the queue
            lines.put(error)
        lines.put(None)

    for pod in pods:
        threading.Thread(target=read, args=(pod,), daemon=True).start()
    open_pods = len(pods)
    while open_pods:
        line = lines.get()
        if isinstance(line, Exception):
            raise line
        if line is None:
            open_pods -= 1
        else:
            yield line


def last_progress(api: Api, picture: Picture) -> str:
    """The last line of a launch's output that tells how far it is ("12/63 runs ..."), or ''."""
    if not picture.submitters:
        return ""
    query = {"tailLines": str(PROGRESS_LINES)}
    try:
        response = open_log(api, picture.submitters[-1]["metadata"]["name"], query)
        lines: list[str] = response.data.decode(errors="replace").splitlines()
    except (ClusterError, OSError):
        return ""
    return next((line.strip() for line in reversed(lines) if " runs" in line and "/" in line), "")


def _submission(pod: Manifest) -> str:
    """The id under which a submitter hands the launch to Ray: one for each attempt."""
    environment: dict[str, str] = {
        variable["name"]: variable.get("value", "")
        for container in (pod.get("spec") or {}).get("containers") or []
        for variable in container.get("env") or []
    }
    return environment.get("RAY_JOB_SUBMISSION_ID") or str(pod["metadata"]["name"])
