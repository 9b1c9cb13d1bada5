"""The output of a launch, over its retries: what the submitter of each attempt prints, as one stream."""

from __future__ import annotations

import queue
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator

from orchestrator.k8s.client.api import Api, ClusterError, RejectedError
from orchestrator.k8s.watching.log_stream import container_of, log_text, pod_lines
from orchestrator.k8s.watching.observed import ENDED, Manifest, Picture, deployment_of
from orchestrator.k8s.watching.patience import Patience, patiently
from orchestrator.k8s.watching.picture import submitters_of

PROGRESS_LINES = 50
PROGRESS = re.compile(r"\b\d+/\d+ runs\b|^Stopped before the end")
PROGRESS_SECONDS = 5.0
"""How long a status waits for the node of the submitter, which may be the one that is lost."""
FIRST = "Waiting for the launch to be handed to Ray (bo-sweep k8s status tells how far it is)."
NEXT = "Waiting for the next attempt."
GONE = "There is no output any more: it went with the submitter's pod. Results stay where they are."


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
    name, seen, told, looked = job["metadata"]["name"], set[str](), "", False
    outputs: dict[str, Output] = {}
    while True:
        # Read before its pods are: one that has ended then has no pod to come.
        current = patiently(lambda: api.get("RayJob", name), tell, patience, again=True)
        pods = patiently(lambda: submitters_of(api, name), tell, patience, again=looked)
        looked = True
        new = [pod for pod in pods if pod["metadata"]["name"] not in seen]
        for pod in new if seen else new[-1:]:
            output = outputs.setdefault(_submission(pod), Output(whole=tail is None))
            of_pod = None if seen else tail
            lines = pod_lines(api, pod["metadata"]["name"], follow=follow, tail=of_pod, tell=tell, patience=patience)
            try:
                yield from output.new(lines)
            except RejectedError as error:  # its container never started, as of a pod that was evicted before
                tell(str(error))
        seen |= {pod["metadata"]["name"] for pod in pods}
        has_ended = current is None or deployment_of(current) in ENDED
        if not seen and (has_ended or not follow):
            tell(GONE if has_ended else "There is no output yet: no submitter has started.")
        if has_ended or not follow:
            return
        # A submitter that has ended is followed by the end of the launch, or by another attempt.
        waits = FIRST if not seen else NEXT if current and deployment_of(current) != "Running" else told
        if not new and waits != told:
            tell(waits)
        told = "" if new else waits
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
    """Lines of several pods: one after another, or with `follow` as they come; each begins with its pod's name.

    A pod whose log cannot be read does not keep those of others back.

    Raises:
        ClusterError: that of no pod can be read.
    """
    failures: list[Exception] = []
    for pod, line in _followed(api, pods, tail, tell) if follow else _in_turn(api, pods, tail):
        if isinstance(line, Exception):
            failures.append(line)
            if len(failures) < len(pods):
                tell(f"{pod}: {line}")
        else:
            yield f"{pod} | {line}"
    if failures and len(failures) == len(pods):
        raise failures[-1]


def _in_turn(api: Api, pods: list[str], tail: int | None) -> Iterator[tuple[str, str | Exception]]:
    for pod in pods:
        try:
            yield from ((pod, line) for line in pod_lines(api, pod, follow=False, tail=tail))
        except ClusterError as error:
            yield pod, error


def _followed(
    api: Api, pods: list[str], tail: int | None, tell: Callable[[str], None]
) -> Iterator[tuple[str, str | Exception]]:
    lines: queue.Queue[tuple[str, str | Exception | None]] = queue.Queue(maxsize=1000)

    def read(pod: str) -> None:
        try:
            for line in pod_lines(api, pod, tail=tail, tell=tell):
                lines.put((pod, line))
        except Exception as error:  # told by the reader of the queue
            lines.put((pod, error))
        lines.put((pod, None))

    for pod in pods:
        threading.Thread(target=read, args=(pod,), daemon=True).start()
    open_pods = len(pods)
    while open_pods:
        pod, line = lines.get()
        if line is None:
            open_pods -= 1
        else:
            yield pod, line


def last_progress(api: Api, picture: Picture) -> str:
    """The last line of a launch's output that tells how far it is or has come ("12/63 runs ..."), or ''."""
    if not picture.submitters:
        return ""
    submitter = picture.submitters[-1]
    query = {"tailLines": str(PROGRESS_LINES)}
    query |= {"container": name} if (name := container_of(submitter)) else {}
    try:
        lines = log_text(api, submitter["metadata"]["name"], query, PROGRESS_SECONDS).splitlines()
    except ClusterError:
        return ""
    return next((line.strip() for line in reversed(lines) if PROGRESS.search(line)), "")


def _submission(pod: Manifest) -> str:
    """The id under which a submitter hands the launch to Ray: one for each attempt."""
    environment: dict[str, str] = {
        variable["name"]: variable.get("value", "")
        for container in (pod.get("spec") or {}).get("containers") or []
        for variable in container.get("env") or []
    }
    return environment.get("RAY_JOB_SUBMISSION_ID") or str(pod["metadata"]["name"])
