"""What the coordinator, its workers and the launch tell each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.failures import Failure
from search_spaces.packs import Pack
from search_spaces.runs import Run


@dataclass(frozen=True)
class Job:
    """A pack in one attempt.

    Attributes:
        may_resume: whether checkpoints of its runs may lie in storage.
        held: evaluations of its runs that the ledger had when the launch began; a checkpoint that claims more is of
            no use, since rows from before it are gone.
    """

    pack: Pack
    attempt: int
    may_resume: bool = False
    held: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Orders:
    """The answer to a worker: a job, or to wait, or (neither) to end."""

    job: Job | None = None
    wait_seconds: float = 0.0


@dataclass(frozen=True)
class WorkerFacts:
    """Where a worker is.

    Attributes:
        process: its process id; of the first one, where several train together.
        stderr: the file on its node that its last words are in.
        lane: of the packs that it takes.
        gpus: that it holds, over all its processes.
        peers: nodes of its other processes.
    """

    node_id: str
    host: str
    process: int
    stderr: str = ""
    lane: int = 0
    gpus: float = 0.0
    peers: tuple[str, ...] = ()


@dataclass
class Beat:
    """What a worker tells every second."""

    share_done: float = 0.0
    images_per_second: float = 0.0
    gpu_use: float | None = None


@dataclass
class Tally:
    """What a launch has achieved so far; `work` is in estimated seconds. Only what is durable is counted."""

    done: int = 0
    diverged: int = 0
    failed: int = 0
    work: float = 0.0


@dataclass(frozen=True)
class Running:
    """A pack in training, for showing."""

    run_ids: tuple[str, ...]
    host: str
    share_done: float
    images_per_second: float
    gpu_use: float | None


@dataclass(frozen=True)
class GivenUp:
    """A run that is not tried again; its end is for the launch to write, as that `attempt`."""

    run: Run
    failure: Failure
    attempt: int
    died_with: WorkerFacts | None


@dataclass(frozen=True)
class State:
    """What the launch sees of its workers every second."""

    tally: Tally
    running: tuple[Running, ...]
    waiting_runs: int
    workers: int
    gpu_seconds: float
    given_up: tuple[GivenUp, ...]
    deaths: tuple[WorkerFacts, ...]
    is_over: bool
    trouble: str | None
