"""The coordinator: hands packs to workers, and decides what becomes of those that do not come back.

One object, run as an actor beside the launch; workers pull. It knows nothing of Ray or of storage, holds no rows, and
its memory does not grow with what is done: a pack that ended is forgotten.

- A worker that dies costs nothing where its node went too (preemption). Otherwise its pack is handed out again after
  a pause, cut in half in case memory was the reason; a lone run whose workers died MAX_CRASHES times is given up.
- A pack that raised is cut: in half where memory ran out, into lone runs otherwise. A lone run that raises is given up
  by its worker at once, unless the cause may pass.
- Packs and workers come in lanes, one for each shape of worker (see search_spaces/shapes.py): a worker gets packs of
  its lane, and ends when there are none left, which makes room for workers of other shapes.
- Near the end of a lane a worker gets only a share of a pack, so that the others have something too; the rest stays at
  the front (see balance.py).
- A worker that was not heard of for SILENT_SECONDS counts as dead. Should it live, what it still writes is of an
  earlier attempt than that of the worker that has the pack now.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.balance import cut, fair_share
from orchestrator.failures import Failure, death
from orchestrator.messages import Beat, GivenUp, Job, Orders, Running, State, Tally, WorkerFacts
from search_spaces.packs import Pack
from search_spaces.runs import Run

MAX_CRASHES = 3
BACK_OFF_SECONDS = (2.0, 60.0)
SILENT_SECONDS = 90.0
MAX_BARREN = 8
"""Workers that may die, or fail to start, in a row without any run that ends in between."""


@dataclass
class _Worker:
    facts: WorkerFacts
    since: float
    heard: float
    current: Job | None = None
    work: float = 0.0
    """Of the current job."""
    unacknowledged: dict[str, Job] = field(default_factory=dict)
    """Jobs with runs whose ends are not durable yet, by pack id."""
    left: dict[str, set[str]] = field(default_factory=dict)
    """Their runs that have not ended, by pack id."""
    beat: Beat = field(default_factory=Beat)

    @property
    def work_left(self) -> float:
        return self.work * (1 - self.beat.share_done) if self.current else 0.0


@dataclass(order=True)
class _Suspended:
    release: float
    number: int
    job: Job = field(compare=False)
    failure: Failure = field(compare=False)
    facts: WorkerFacts | None = field(compare=False)


class Coordinator:
    """See the module's text.

    Args:
        jobs: in the order wanted; all of one launch.
        first_attempt: number of the first attempt of this launch; later ones are handed out with the numbers after it.
        work: expected seconds of a run, for the tally and for the balance.
        resumable: runs that have a checkpoint, with their evaluations in the ledger.
        lane_of: the lane of a run; those of a pack share it.
        planned: workers that a lane is to have; where more have come, these count.
        now: a monotonic clock.
    """

    def __init__(
        self,
        packs: Sequence[Pack],
        first_attempt: int,
        work: Callable[[Run], float],
        resumable: Mapping[str, int] | None = None,
        lane_of: Callable[[Run], int] = lambda run: 0,
        planned: Callable[[int], int] = lambda lane: 1,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        resumable = resumable or {}

        def held(pack: Pack) -> dict[str, int]:
            return {run.run_id: resumable[run.run_id] for run in pack.runs if run.run_id in resumable}

        self._work, self._lane_of, self._planned, self._now = work, lane_of, planned, now
        self._queues: defaultdict[int, deque[Job]] = defaultdict(deque)
        self._queued_work: defaultdict[int, float] = defaultdict(float)
        for pack in packs:
            self._put(Job(pack, first_attempt, bool(held(pack)), held(pack)))
        self._attempts = itertools.count(first_attempt + 1)
        self._workers: dict[int, _Worker] = {}
        self._suspended: list[_Suspended] = []
        self._numbers = itertools.count()
        self._crashes: dict[str, int] = {}
        self._given_up: dict[str, GivenUp] = {}
        self._deaths: list[WorkerFacts] = []
        self._tally = Tally()
        self._gpu_seconds = 0.0
        self._draining = False
        self._barren = 0
        self._trouble: str | None = None

    # -- what workers call --------------------------------------------------------------------------------------------

    def hello(self, slot: int, facts: WorkerFacts) -> None:
        """A worker process takes over a slot; whatever its predecessor held comes back."""
        self._lose(slot)
        self._workers[slot] = _Worker(facts, self._now(), self._now())

    def pull(self, slot: int, process: int) -> Orders:
        """Ask for the next job; a worker pulls when it has none."""
        worker = self._heard(slot, process)
        if worker is None:
            return Orders()
        self._release()
        if self._draining or self._trouble:
            return Orders()
        if self._queues[worker.facts.lane]:
            job = self._take(worker)
            worker.work = self._work_of(job.pack)
            worker.current = worker.unacknowledged[job.pack.pack_id] = job
            worker.left[job.pack.pack_id] = {run.run_id for run in job.pack.runs}
            worker.beat = Beat()
            return Orders(job)
        if self._nothing_left(besides=slot, lane=worker.facts.lane):
            return Orders()
        return Orders(wait_seconds=0.2)

    def beat(self, slot: int, process: int, beat: Beat) -> bool:
        """Tell that a worker lives; returns whether it must stop: save what it has, and pull."""
        worker = self._heard(slot, process)
        if worker is None:
            return True
        worker.beat = beat
        return self._draining or self._trouble is not None

    def acknowledge(self, slot: int, process: int, ended: Sequence[tuple[str, str]]) -> None:
        """Runs (ids and statuses) whose ends are durable now."""
        worker = self._heard(slot, process)
        if worker is None:
            return  # another worker has these runs; they will end once more, in a later attempt
        self._barren = 0
        for run_id, status in ended:
            for pack_id, left in worker.left.items():
                if run_id in left:
                    left.discard(run_id)
                    run = next(run for run in worker.unacknowledged[pack_id].pack.runs if run.run_id == run_id)
                    self._count(run, status)
                    break
        for pack_id in [pack_id for pack_id, left in worker.left.items() if not left]:
            del worker.left[pack_id], worker.unacknowledged[pack_id]

    def finished(self, slot: int, process: int, failure: Failure | None = None) -> None:
        """The worker's job is through: each of its runs has ended or, where there is a `failure`, some have not.

        Ends of its runs may still wait to become durable, but not where it failed. Where several processes train
        together, any of them may tell of a failure, as `process` of the first one.
        """
        worker = self._heard(slot, process)
        if worker and worker.current:
            job, worker.current = worker.current, None
            if failure:
                self._cut(worker, job, failure)

    def paused(self, slot: int, process: int) -> None:
        """The worker's job was saved and stopped on demand; the next launch goes on with it."""
        worker = self._heard(slot, process)
        if worker and worker.current:
            job, worker.current = worker.current, None
            worker.unacknowledged.pop(job.pack.pack_id, None)
            worker.left.pop(job.pack.pack_id, None)

    def goodbye(self, slot: int, process: int) -> None:
        """A worker ends; everything that it did is durable."""
        worker = self._heard(slot, process)
        if worker:
            self._lose(slot, is_death=False)

    def report_trouble(self, message: str) -> None:
        """Something that no worker can get over, such as a full disk: everything stops."""
        self._trouble = self._trouble or message

    # -- what the launch calls ----------------------------------------------------------------------------------------

    def lost(self, slot: int, process: int | None = None) -> None:
        """A slot's worker is gone, as far as Tune knows."""
        worker = self._workers.get(slot)
        if worker and process in (None, worker.facts.process):
            self._lose(slot)

    def worker_failed(self, message: str) -> None:
        """A worker process died or never started; too many of these in a row stop the launch."""
        self._barren += 1
        if self._barren >= MAX_BARREN:
            self.report_trouble(f"{self._barren} workers in a row died without finishing a run. The last: {message}")

    def nodes_gone(self, node_ids: Sequence[str]) -> None:
        """Packs that were lost with their node go back to the front of the queue, as if nothing had happened."""
        gone = set(node_ids)
        self._barren = 0
        forgiven = [each for each in self._suspended if each.facts and gone & {each.facts.node_id, *each.facts.peers}]
        if not forgiven:
            return
        self._suspended = [each for each in self._suspended if each not in forgiven]
        heapq.heapify(self._suspended)
        for each in forgiven:
            self._again(each.job.pack, front=True)

    def drain(self) -> None:
        """Hand out nothing more, and let workers save what they have."""
        self._draining = True

    def confirm_given_up(self, run_ids: Sequence[str]) -> None:
        """The ends of these given-up runs are durable."""
        for given_up in [self._given_up.pop(run_id) for run_id in run_ids if run_id in self._given_up]:
            self._count(given_up.run, "failed")
            self._barren = 0

    def state(self) -> State:
        """What there is to show and to do; deaths are told once."""
        now = self._now()
        for slot in [slot for slot, worker in self._workers.items() if now - worker.heard > SILENT_SECONDS]:
            self._lose(slot)
        self._release()
        deaths, self._deaths = tuple(self._deaths), []
        running = tuple(
            Running(
                tuple(sorted(worker.left.get(worker.current.pack.pack_id, ()))),
                worker.facts.host,
                worker.beat.share_done,
                worker.beat.images_per_second,
                worker.beat.gpu_use,
            )
            for worker in self._workers.values()
            if worker.current
        )
        work = sum(worker.beat.share_done * worker.work for worker in self._workers.values() if worker.current)
        tally = Tally(self._tally.done, self._tally.diverged, self._tally.failed, self._tally.work + work)
        waiting = sum(len(job.pack.runs) for queue in self._queues.values() for job in queue)
        waiting += sum(len(each.job.pack.runs) for each in self._suspended)
        return State(
            tally=tally,
            running=running,
            waiting_runs=waiting,
            workers=len(self._workers),
            gpu_seconds=self._gpu_seconds
            + sum((now - worker.since) * worker.facts.gpus for worker in self._workers.values()),
            given_up=tuple(self._given_up.values()),
            deaths=deaths,
            is_over=self._is_over(),
            trouble=self._trouble,
        )

    # -- inside ------------------------------------------------------------------------------------------------------

    def _put(self, job: Job, *, front: bool = False) -> None:
        """Queue a job in its lane."""
        lane = self._lane_of(job.pack.runs[0])
        queue = self._queues[lane]
        queue.appendleft(job) if front else queue.append(job)
        self._queued_work[lane] += self._work_of(job.pack)

    def _take(self, worker: _Worker) -> Job:
        """The next job for a worker whose lane has one, cut where other workers of the lane would go without.

        Both parts are of one attempt: no run is in both, and none of them has been handed out in it.
        """
        lane = worker.facts.lane
        queued = self._queued_work[lane]
        job = self._queues[lane].popleft()
        self._queued_work[lane] = queued - self._work_of(job.pack) if self._queues[lane] else 0.0
        here = [each for each in self._workers.values() if each.facts.lane == lane]
        busy = [each.work_left for each in here if each.current and each is not worker]
        share = fair_share(queued, busy, max(self._planned(lane), len(here)))
        given, rest = cut(job.pack, share, self._work)
        if rest:
            self._put(_part(job, rest), front=True)
        return _part(job, given) if rest else job

    def _work_of(self, pack: Pack) -> float:
        return sum(map(self._work, pack.runs))

    def _heard(self, slot: int, process: int) -> _Worker | None:
        """The worker in that slot, if the call is of the process that holds it now."""
        worker = self._workers.get(slot)
        if worker is None or worker.facts.process != process:
            return None
        worker.heard = self._now()
        return worker

    def _count(self, run: Run, status: str) -> None:
        self._crashes.pop(run.run_id, None)
        self._tally.done += status == "done"
        self._tally.diverged += status == "diverged"
        self._tally.failed += status == "failed"
        self._tally.work += self._work(run)

    def _lose(self, slot: int, *, is_death: bool = True) -> None:
        """Take a slot's worker out, and its jobs back. The one in training is suspended: it may be what killed it."""
        worker = self._workers.pop(slot, None)
        if worker is None:
            return
        self._gpu_seconds += (self._now() - worker.since) * worker.facts.gpus
        if is_death:
            self._deaths.append(worker.facts)
        for pack_id, job in worker.unacknowledged.items():
            left = tuple(run for run in job.pack.runs if run.run_id in worker.left[pack_id])
            remaining = Job(Pack(left), job.attempt, may_resume=True)
            if job is worker.current:
                self._suspend(remaining, death(""), worker.facts)
            elif left:
                self._again(remaining.pack, front=True)

    def _cut(self, worker: _Worker, job: Job, failure: Failure) -> None:
        """A job came back unfinished from a worker that lives."""
        del worker.unacknowledged[job.pack.pack_id]
        left = worker.left.pop(job.pack.pack_id)
        runs = tuple(run for run in job.pack.runs if run.run_id in left)
        if failure.kind == "transient":
            self._suspend(Job(Pack(runs), job.attempt, may_resume=True), failure, None)
        elif len(runs) == 1:
            self._give_up(runs[0], failure, None)
        elif failure.kind == "out of memory":
            self._halve(runs)
        else:
            for run in reversed(runs):
                self._again(Pack((run,)), front=True)

    def _halve(self, runs: tuple[Run, ...]) -> None:
        middle = (len(runs) + 1) // 2
        for part in (runs[middle:], runs[:middle]):
            if part:
                self._again(Pack(part), front=True)

    def _suspend(self, job: Job, failure: Failure, facts: WorkerFacts | None) -> None:
        if not job.pack.runs:
            return
        least, most = BACK_OFF_SECONDS
        crashes = max(self._crashes.get(run.run_id, 0) for run in job.pack.runs)
        release = self._now() + min(most, least * 2**crashes)
        heapq.heappush(self._suspended, _Suspended(release, next(self._numbers), job, failure, facts))

    def _release(self) -> None:
        """Count the crashes whose pause is over, and give their packs another try or up."""
        while self._suspended and self._suspended[0].release <= self._now():
            each = heapq.heappop(self._suspended)
            runs = each.job.pack.runs
            for run in runs:
                self._crashes[run.run_id] = self._crashes.get(run.run_id, 0) + 1
            if len(runs) > 1:
                self._halve(runs)
            elif self._crashes[runs[0].run_id] < MAX_CRASHES:
                self._again(each.job.pack, front=True)
            else:
                self._give_up(runs[0], each.failure, each.facts)

    def _give_up(self, run: Run, failure: Failure, died_with: WorkerFacts | None) -> None:
        self._given_up[run.run_id] = GivenUp(run, failure, next(self._attempts), died_with)

    def _again(self, pack: Pack, *, front: bool) -> None:
        """Hand a pack out once more, as a new attempt."""
        self._put(Job(pack, next(self._attempts), may_resume=True), front=front)

    def _nothing_left(self, besides: int | None = None, lane: int | None = None) -> bool:
        """Whether nothing is to come any more, in one lane or in all."""
        lanes = self._queues if lane is None else [lane]
        queued = any(self._queues[each] for each in lanes)
        suspended = any(self._lane_of(each.job.pack.runs[0]) in lanes for each in self._suspended)
        busy = any(
            worker.unacknowledged
            for slot, worker in self._workers.items()
            if slot != besides and worker.facts.lane in lanes
        )
        return not (queued or suspended or self._given_up or busy)

    def _is_over(self) -> bool:
        if self._draining or self._trouble:
            return not any(worker.current or worker.unacknowledged for worker in self._workers.values())
        return self._nothing_left()


def _part(job: Job, pack: Pack) -> Job:
    """Some of a job's runs, as if they had been a job all along."""
    held = {run.run_id: job.held[run.run_id] for run in pack.runs if run.run_id in job.held}
    return replace(job, pack=pack, held=held)
