"""Balance: near the end of a lane packs are cut, so that nobody idles beside a worker that has more than its share."""

from __future__ import annotations

import heapq
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.balance import cut, fair_share
from orchestrator.coordinator import Coordinator
from orchestrator.messages import Beat, Job, Orders, WorkerFacts
from search_spaces.catalog import load_space
from search_spaces.packs import Pack, group_packs
from search_spaces.runs import Run, expand

TEN_RATES = "noise.rates=[0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45]"
(WIDE,) = group_packs(expand(load_space("digits-grid", ["seeds=1", "widths=8", TEN_RATES])), "auto")
MANY = group_packs(expand(load_space("digits-grid", ["seeds=2", "widths=[2, 4, 8, 16]", TEN_RATES])), "auto")


def by_width(run: Run) -> float:
    """Stands for the seconds that a run takes."""
    return float(run.width)


class Crew:
    """Workers of one coordinator, on a clock that only the test moves.

    Each takes just the seconds that are expected of its runs.
    """

    def __init__(self, packs: list[Pack], *, planned: int, seconds: dict[str, float] | None = None) -> None:
        self.now = 0.0
        self.seconds = seconds or {}
        self.boss = Coordinator(packs, 1, self.work, planned=lambda lane: planned, now=lambda: self.now)
        self.until: dict[int, float] = {}
        self._began: dict[int, tuple[float, tuple[Run, ...]]] = {}

    def work(self, run: Run) -> float:
        return self.seconds.get(run.run_id, 1.0)

    def join(self, *slots: int) -> None:
        for slot in slots:
            self.boss.hello(slot, WorkerFacts("node", "host", 1))

    def pull(self, slot: int) -> Orders:
        for other, end in self.until.items():
            began = self._began[other][0]
            self.boss.beat(other, 1, Beat(share_done=(self.now - began) / (end - began)))
        orders = self.boss.pull(slot, 1)
        if orders.job:
            self._began[slot] = self.now, orders.job.pack.runs
            self.until[slot] = self.now + sum(map(self.work, orders.job.pack.runs))
        return orders

    def take(self, slot: int) -> tuple[Run, ...]:
        job = self.pull(slot).job
        assert job is not None
        return job.pack.runs

    def next_end(self) -> int:
        """Move the clock to the next worker that is through, and let it say so; returns its slot."""
        end, slot = min((end, slot) for slot, end in self.until.items())
        self.now = end
        del self.until[slot]
        self.boss.acknowledge(slot, 1, [(run.run_id, "done") for run in self._began[slot][1]])
        self.boss.finished(slot, 1)
        return slot


def test_a_space_of_one_pack_keeps_eight_gpus_busy() -> None:
    """Ten noise rates are one pack; the first worker is there long before the others, and leaves something for them."""
    crew = Crew([WIDE], planned=8)
    crew.join(0)
    handed_out = list(crew.take(0))
    assert len(handed_out) == 1
    crew.join(*range(1, 8))
    for slot in range(1, 8):
        handed_out += crew.take(slot)
    assert handed_out == list(WIDE.runs[:8])
    while crew.until:
        slot = crew.next_end()
        job = crew.pull(slot).job
        handed_out += job.pack.runs if job else ()
    assert handed_out == list(WIDE.runs)
    assert crew.now == 2
    assert crew.boss.state().is_over


def test_one_worker_gets_the_pack_as_it_is() -> None:
    crew = Crew([WIDE], planned=1)
    crew.join(0)
    assert crew.take(0) == WIDE.runs


def test_a_queue_that_is_long_enough_hands_out_whole_packs() -> None:
    crew = Crew(MANY, planned=8)
    crew.join(*range(8))
    assert [crew.take(slot) for slot in range(8)] == [pack.runs for pack in MANY]


def test_workers_that_are_busy_for_as_long_want_no_part_of_a_pack() -> None:
    """Seven have ten runs each, and the eighth is through with its own: what it leaves, they could not begin before."""
    crew = Crew([*MANY[:8], WIDE], planned=8, seconds={run.run_id: 0.5 for run in MANY[0].runs})
    crew.join(*range(8))
    for slot in range(8):
        crew.take(slot)
    assert crew.next_end() == 0
    assert len(crew.take(0)) == 6  # of the ten: it has them done at 11, and the others are done with theirs at 10
    assert crew.next_end() == 1
    assert len(crew.take(1)) == 1


def test_more_workers_than_were_planned_count_too() -> None:
    crew = Crew([WIDE], planned=2)
    crew.join(*range(5))
    assert [len(crew.take(slot)) for slot in range(5)] == [2] * 5


def test_workers_and_work_of_other_lanes_do_not_count() -> None:
    boss = Coordinator(
        [WIDE, *MANY[:2]], 1, lambda run: 1.0, lane_of=lambda run: run.width == 8, planned=lambda lane: (4, 2)[lane]
    )
    for slot, lane in enumerate([0, 0, 0, 0, 1, 1]):
        boss.hello(slot, WorkerFacts("node", "host", 1, lane=lane))
    sizes = [len(job.pack.runs) for slot in range(6) if (job := boss.pull(slot, 1).job)]
    assert sizes == [5, 5, 5, 5, 5, 5]


def test_both_parts_keep_the_attempt_and_what_the_ledger_holds_of_their_runs() -> None:
    held = {run.run_id: count for count, run in enumerate(WIDE.runs, 5)}
    boss = Coordinator([WIDE], 7, lambda run: 1.0, held, planned=lambda lane: 2)
    boss.hello(0, WorkerFacts("node", "host", 1))
    boss.hello(1, WorkerFacts("node", "host", 2))
    first, second = boss.pull(0, 1).job, boss.pull(1, 2).job
    for job, runs in ((first, WIDE.runs[:5]), (second, WIDE.runs[5:])):
        assert job == Job(Pack(runs), 7, may_resume=True, held={run.run_id: held[run.run_id] for run in runs})
    boss.lost(0)
    boss.nodes_gone(["node"])
    boss.hello(0, WorkerFacts("node", "host", 3))
    again = boss.pull(0, 3).job
    assert again
    assert (again.pack.runs, again.attempt) == (WIDE.runs[:5], 8)


def test_a_part_that_runs_out_of_memory_is_halved_and_no_run_is_lost() -> None:
    from tests.test_coordinator import OUT_OF_MEMORY

    crew = Crew([WIDE], planned=2)
    crew.join(0, 1)
    first, second = crew.take(0), crew.take(1)
    crew.boss.finished(0, 1, OUT_OF_MEMORY)
    halves = (crew.take(0), crew.take(0))
    assert sorted(len(half) for half in halves) == [2, 3]
    assert {*halves[0], *halves[1]} == set(first)
    assert set(first) | set(second) == set(WIDE.runs)


def test_gradient_flow_stays_whole() -> None:
    """All its label vectors share one decomposition, which each part would have to make again."""
    pack = group_packs(expand(load_space("gmm-grid", ["seeds=1"])), "auto")[0]
    assert len(pack.runs) > 1
    assert cut(pack, 0.0, lambda run: 1.0) == (pack, None)
    crew = Crew([pack], planned=8)
    crew.join(*range(8))
    assert crew.take(0) == pack.runs


@pytest.mark.parametrize(
    ("queued", "busy", "workers", "share"),
    [
        (10, [], 1, 10),
        (10, [], 8, 10 / 8),
        (10, [100], 8, 10 / 7),  # who is busy for longer needs nothing
        (10, [5] * 7, 8, 45 / 8),  # all would be done at 5.6
        (10, [1, 2, 3], 4, 4),
        (0.5, [1, 2, 3], 4, 0.5),
        (10, [-1e-12], 2, 5),  # a share done of just above 1
        (0, [3], 2, 0),
    ],
)
def test_fair_shares_by_hand(queued: float, busy: list[float], workers: int, share: float) -> None:
    assert fair_share(queued, busy, workers) == pytest.approx(share)


@given(
    st.floats(0, 1e6),
    st.lists(st.floats(0, 1e6), max_size=20),
    st.integers(1, 20),
)
def test_a_fair_share_levels_all_workers(queued: float, busy: list[float], idle: int) -> None:
    share = fair_share(queued, busy, len(busy) + idle)
    poured = sum(max(0.0, share - load) for load in [*busy, *[0.0] * idle])
    assert poured == pytest.approx(queued, abs=1e-6)
    assert share >= queued / (len(busy) + idle) * (1 - 1e-9)


@pytest.mark.parametrize(
    ("share", "first"), [(0, 1), (1.4, 1), (1.5, 2), (1.9, 2), (7, 7), (9.4, 9), (10, 10), (99, 10)]
)
def test_a_pack_is_cut_at_the_run_that_is_nearest(share: float, first: int) -> None:
    given_out, rest = cut(WIDE, share, lambda run: 1.0)
    assert given_out.runs == WIDE.runs[:first]
    assert (rest.runs if rest else ()) == WIDE.runs[first:]


def test_rounding_cuts_nothing_off() -> None:
    runs = WIDE.runs[:3]
    share = fair_share(3 * (0.1 + 0.1 + 0.1), [], 3)
    assert cut(Pack(runs), share, lambda run: 0.1) == (Pack(runs), None)


@given(st.integers(0, 2**32), st.integers(1, 12), st.sampled_from(["auto", "off", 2, 7]), st.booleans())
def test_every_run_once_and_nobody_idles_beside_more_than_its_share(
    seed: int, workers: int, packing: str | int, late: bool
) -> None:
    """Packs of all sizes and runs of all lengths; some workers may come late.

    A share is rounded to whole runs, by half a run at most, but for one run alone. So while a worker has nothing to do,
    no other has more left than a run and a half of the longest, and the last one ends not later than the longest run
    after the time at which all would, had work no grain.
    """
    chance = random.Random(seed)
    rates = f"noise.rates={[number / 20 for number in range(chance.randint(1, 12))]}"
    widths = f"widths={chance.sample(range(1, 20), chance.randint(1, 6))}"
    runs = expand(load_space("digits-grid", [rates, widths, f"seeds={chance.randint(1, 3)}"]))
    packs = group_packs(runs, packing)
    chance.shuffle(packs)
    seconds = {pack.runs[0].width: chance.choice([0.5, 1, 10, chance.random() * 100]) for pack in packs}
    crew = Crew(packs, planned=workers, seconds={run.run_id: seconds[run.width] for run in runs})
    longest, total = max(seconds.values()), sum(map(crew.work, runs))
    crew.join(*range(workers))
    coming = [(chance.random() * total / workers if late else 0.0, slot) for slot in range(workers)]
    heapq.heapify(coming)
    handed_out: list[str] = []
    idle_seconds, idle = 0.0, set[int]()
    while coming or crew.until:
        if coming and (not crew.until or coming[0][0] <= min(crew.until.values())):
            crew.now, slot = heapq.heappop(coming)
            idle_seconds += crew.now
        else:
            slot = crew.next_end()
        job = crew.pull(slot).job
        if job:
            assert not idle
            handed_out += [run.run_id for run in job.pack.runs]
        else:
            idle.add(slot)
            left = [end - crew.now for end in crew.until.values()]
            assert max(left, default=0.0) <= 1.5 * longest * (1 + 1e-6)
    assert sorted(handed_out) == sorted(run.run_id for run in runs)
    assert crew.now <= (total + idle_seconds) / workers + longest * (1 + 1e-6)
    assert crew.boss.state().is_over
