"""Why an attempt failed, in words: what the operator calls it, and what lies behind it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from orchestrator.console import duration
from orchestrator.k8s.watching.observed import Picture
from orchestrator.k8s.watching.trouble import Trouble

KILLERS = ("memory", "evicted", "lost", "crash")
"""What ends pods that did run; everything else keeps them from running."""
AGAIN = "launch again with the same command: it goes on from storage"
EXIT_CODES = {
    2: ("the launch refused its options or the space", "correct what it says, and launch again"),
    3: ("the launch was stopped before its end", AGAIN),
    4: ("the launch could not use its storage, its data or the Ray cluster", "mend what it says, and launch again"),
}
LOST_SUPERVISOR = ("actor died", "supervisor actor", "Ray job not found", "node died", "owner has died")


@dataclass(frozen=True)
class Ending:
    """Why an attempt failed: `headline` is a part of a sentence, the rest as in an Explanation."""

    headline: str
    cause: str = ""
    remedy: str = AGAIN
    details: tuple[str, ...] = field(default=())


def ending(picture: Picture, troubles: list[Trouble]) -> Ending:
    """Tell why the attempt failed.

    `troubles` are all that are known of it, of pods that are gone too, the most telling first.
    """
    reason, message = str(picture.status.get("reason") or ""), str(picture.status.get("message") or "").strip()
    killers = [trouble for trouble in troubles if trouble.kind in KILLERS]
    blockers = [trouble for trouble in troubles if trouble.kind not in KILLERS]
    if reason == "DeadlineExceeded":
        limit = picture.spec.get("activeDeadlineSeconds")
        headline = f"it ran longer than active_deadline{f' ({duration(limit)})' if limit else ''}, waiting included"
        never_ran = picture.status.get("jobStatus") in ("", None, "PENDING")
        remedy = f"{AGAIN}; raise active_deadline in the profile if it needs longer"
        return _because(headline, blockers if never_ran else [], remedy)
    if reason == "PreRunningDeadlineExceeded":
        limit = picture.spec.get("preRunningDeadlineSeconds")
        headline = f"training did not start within pre_running_deadline{f' ({duration(limit)})' if limit else ''}"
        remedy = "wait until nodes are free and launch again, or raise pre_running_deadline in the profile"
        return _because(headline, [*blockers, *killers], remedy)
    if reason == "AppFailed":
        return _app_failed(message, killers)
    if reason == "SubmissionFailed":
        remedy = "bo-sweep k8s logs SWEEP --node submitter; does the submitter reach the head (NetworkPolicy)?"
        of_submitter = [trouble for trouble in troubles if trouble.role == "submitter"]
        return _because("the launch could not be handed to Ray", [*killers, *of_submitter], remedy, message)
    if reason == "JobStatusCheckTimeoutExceeded":
        of_head = [trouble for trouble in killers if trouble.role == "head"]
        remedy = f"does a NetworkPolicy keep KubeRay's operator from the head's port 8265? Otherwise {AGAIN}"
        return _because("the head has not answered the operator for minutes", of_head, remedy, message)
    if picture.deployment == "ValidationFailed" or reason == "ValidationFailed":
        remedy = "is the operator older than 1.7? bo-sweep k8s doctor; then bo-sweep k8s delete SWEEP and launch again"
        return Ending("KubeRay refuses the RayJob", message, remedy)
    if reason == "JobDeploymentStatusTransitionGracePeriodExceeded":
        return _because("the submitter and Ray do not agree on whether the launch has ended", killers, AGAIN, message)
    return _because(reason or "the operator does not say why", killers, AGAIN, message)


def _because(headline: str, troubles: list[Trouble], remedy: str, message: str = "") -> Ending:
    """The first trouble as the cause, with its own remedy; else the operator's message and `remedy`."""
    if not troubles:
        return Ending(headline, message, remedy)
    unique = list(dict.fromkeys(troubles))
    cause, *details = (trouble.line[:1].upper() + trouble.line[1:] for trouble in unique)
    return Ending(headline, cause, unique[0].remedy, tuple(details))


def _app_failed(message: str, killers: list[Trouble]) -> Ending:
    found = re.search(r"exit code (-?\d+)", message)
    if found is None:
        remedy = f"bo-sweep k8s logs SWEEP shows its output; {AGAIN}"
        lost = any(words in message for words in LOST_SUPERVISOR)
        headline = "the head with the launch on it was lost" if lost else "Ray could not run the launch"
        return _because(headline, killers, remedy, _last_words(message))
    code = int(found[1])
    if code in EXIT_CODES:
        what, remedy = EXIT_CODES[code]
        return Ending(f"{what} (exit code {code})", _last_words(message), remedy)
    of_head = [trouble for trouble in killers if trouble.role == "head"]
    headline = (
        f"the launch was killed (exit code {code})" if code in (-9, 137) else f"the launch failed (exit code {code})"
    )
    return _because(headline, of_head, "bo-sweep k8s logs SWEEP shows its output", _last_words(message))


def _last_words(message: str) -> str:
    """Of a driver's log its error message, or its last line."""
    _, _, log = message.partition("last available logs")
    lines = [line.rstrip() for line in (log or message).splitlines() if line.strip()]
    starts = [number for number, line in enumerate(lines) if line.startswith("Error: ")]
    if starts:
        return " ".join(" ".join(lines[starts[-1] :]).removeprefix("Error: ").split())[:1000]
    return lines[-1].strip()[:400] if lines else ""
