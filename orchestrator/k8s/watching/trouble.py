"""One thing that is wrong with a launch, and in what order such things are told."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = (
    "refused",  # by the operator: nothing was even tried
    "quota",
    "security",  # Pod Security, or another check of the cluster, refuses the pods
    "missing",  # what pods refer to (service account, priority class) is not there
    "image",
    "config",  # a secret or a config map is not there
    "claim",
    "mount",
    "start",  # the container's command cannot be started
    "memory",
    "evicted",
    "lost",
    "crash",
    "taint",
    "selector",
    "capacity",
    "node",
    "queue",
    "scaling",
    "network",
    "unready",
)
"""In order of precedence. First what never mends itself, earliest in a pod's life first; then what kills pods that did
run; then what waiting may mend; last what is usually a consequence of the others, on another pod."""
ROLES = ("", "head", "worker", "submitter")


@dataclass(frozen=True)
class Trouble:
    """Something wrong: `text` in plain words, `remedy` names what to change or run.

    Attributes:
        kind: one of KINDS.
        role: of the pod, "" where it is not about one.
        pods: how many pods have it.
    """

    kind: str
    role: str
    text: str
    remedy: str
    pods: int = 1

    def __post_init__(self) -> None:
        assert self.kind in KINDS, self.kind
        assert self.role in ROLES, self.role

    @property
    def precedence(self) -> tuple[int, int]:
        """Smaller is told first: by kind, then the head before workers before the submitter."""
        return KINDS.index(self.kind), ROLES.index(self.role)

    @property
    def line(self) -> str:
        """The text, with the number of pods where it is more than one."""
        return self.text if self.pods == 1 else f"{self.text} ({self.pods} pods)"
