"""The coordinator: every run ends once, whatever becomes of workers; and who is blamed for what."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.coordinator import (
    BACK_OFF_SECONDS,
    MAX_BARREN,
    MAX_CRASHES,
    SILENT_SECONDS,
    Coordinator,
)
from orchestrator.failures import Failure
from orchestrator.messages import Beat, WorkerFacts
from search_spaces.catalog import load_space
from search_spaces.packs import Pack, group_packs
from search_spaces.runs import Run, expand

RUNS = expand(load_space("digits-grid", ["seeds=2", "widths=[2,4]", "noise.rates=[0,0.2,0.4]"]))
PACKS = group_packs(RUNS, "auto")
ERROR = Failure("error", "ValueError at noise.py:given_labels", "ValueError: no")
OUT_OF_MEMORY = Failure("out of memory", "OutOfMemoryError at conv.py:forward", "CUDA out of memory")
HICCUP = Failure("transient", "OSError at loader.py:read", "OSError: stale file handle")


class Clock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def coordinator(clock: Clock, packs: list[Pack] = PACKS) -> Coordinator:
    return Coordinator(packs, 1_000_000, lambda run: 1.0, now=clock)


def join(boss: Coordinator, slot: int, process: int = 1, node: str = "node") -> None:
    boss.hello(slot, WorkerFacts(f"{node}", "host", process))


def take(boss: Coordinator, slot: int, process: int = 1) -> tuple[Run, ...]:
    job = boss.pull(slot, process).job
    assert job is not None
    return job.pack.runs


def end(boss: Coordinator, slot: int, runs: tuple[Run, ...], process: int = 1) -> None:
    boss.acknowledge(slot, process, [(run.run_id, "done") for run in runs])
    boss.finished(slot, process)


def test_every_pack_is_handed_out_once_and_then_it_is_over(clock: Clock) -> None:
    boss = coordinator(clock)
    join(boss, 0)
    join(boss, 1)
    seen: list[Run] = []
    while not boss.state().is_over:
        for slot in (0, 1):
            orders = boss.pull(slot, 1)
            if orders.job:
                assert orders.job.attempt == 1_000_000
                assert not orders.job.may_resume
                seen += orders.job.pack.runs
                end(boss, slot, orders.job.pack.runs)
    assert sorted(run.run_id for run in seen) == sorted(run.run_id for run in RUNS)
    assert boss.pull(0, 1).job is None
    assert boss.pull(0, 1).wait_seconds == 0
    assert boss.state().tally.done == len(RUNS)
    assert boss.state().tally.work == len(RUNS)


def test_an_idle_worker_waits_while_another_one_may_still_fail(clock: Clock) -> None:
    boss = coordinator(clock, [Pack((RUNS[0],))])
    join(boss, 0)
    join(boss, 1)
    runs = take(boss, 0)
    assert boss.pull(1, 1).wait_seconds > 0
    end(boss, 0, runs)
    assert boss.pull(1, 1).wait_seconds == 0


def test_ends_count_only_when_they_are_durable(clock: Clock) -> None:
    boss = coordinator(clock, PACKS[:2])
    join(boss, 0)
    first = take(boss, 0)
    boss.finished(0, 1)
    second = take(boss, 0)
    assert boss.state().tally.done == 0
    boss.lost(0)  # neither pack was acknowledged: both come back, and only the one in training is suspected
    join(boss, 0, 2)
    job = boss.pull(0, 2).job
    assert job is not None
    assert job.pack.runs == first
    assert job.may_resume
    assert job.attempt > 1_000_000
    assert boss.state().waiting_runs == len(second)


def test_runs_that_ended_before_a_death_are_not_trained_again(clock: Clock) -> None:
    boss = coordinator(clock, PACKS[:1])
    join(boss, 0)
    runs = take(boss, 0)
    boss.acknowledge(0, 1, [(runs[0].run_id, "diverged")])
    boss.lost(0)
    clock.seconds += BACK_OFF_SECONDS[0]
    join(boss, 0, 2)
    again = take(boss, 0, 2) + take(boss, 0, 2)
    assert {run.run_id for run in again} == {run.run_id for run in runs[1:]}
    assert boss.state().tally.diverged == 1


def test_a_death_halves_the_pack_after_a_pause_and_a_lone_run_is_given_up_in_the_end(clock: Clock) -> None:
    boss = coordinator(clock, [Pack(tuple(RUNS[:2]))])
    culprit, innocent = RUNS[:2]
    deaths = 0
    process = 0
    while not boss.state().is_over:
        process += 1
        join(boss, 0, process)
        clock.seconds += BACK_OFF_SECONDS[1]
        job = boss.pull(0, process).job
        if job is None:
            (given_up,) = boss.state().given_up
            assert given_up.run == culprit
            assert given_up.died_with is not None
            boss.confirm_given_up([culprit.run_id])
        elif culprit in job.pack.runs:
            boss.lost(0)
            deaths += 1
        else:
            end(boss, 0, job.pack.runs, process)
    assert deaths == MAX_CRASHES
    assert (boss.state().tally.done, boss.state().tally.failed) == (1, 1)
    assert innocent is not culprit


def test_preemption_is_free_however_often_it_happens(clock: Clock) -> None:
    boss = coordinator(clock, PACKS[:1])
    for number in range(5 * MAX_CRASHES):
        join(boss, 0, number, node=f"spot-{number}")
        assert take(boss, 0, number) == PACKS[0].runs  # whole: it was not its fault
        boss.lost(0)
        boss.worker_failed("gone")
        boss.nodes_gone([f"spot-{number}"])
        clock.seconds += BACK_OFF_SECONDS[1]
    assert boss.state().trouble is None


def test_out_of_memory_halves_and_an_error_isolates(clock: Clock) -> None:
    boss = coordinator(clock, PACKS[:1])
    join(boss, 0)
    runs = take(boss, 0)
    boss.finished(0, 1, OUT_OF_MEMORY)
    half = take(boss, 0)
    assert half == runs[:2]
    boss.finished(0, 1, ERROR)
    assert take(boss, 0) == half[:1]
    boss.finished(0, 1)
    assert take(boss, 0) == half[1:]
    boss.finished(0, 1)
    assert take(boss, 0) == runs[2:]


def test_a_cause_that_may_pass_is_tried_again_with_back_off_but_not_for_ever(clock: Clock) -> None:
    boss = coordinator(clock, [Pack(tuple(RUNS[:1]))])
    join(boss, 0)
    for pause in (2, 4, 8):
        take(boss, 0)
        boss.finished(0, 1, HICCUP)
        clock.seconds += pause - 1
        assert boss.pull(0, 1).wait_seconds > 0
        clock.seconds += 1
    (given_up,) = boss.state().given_up
    assert given_up.failure == HICCUP
    assert given_up.died_with is None


def test_a_silent_worker_is_fenced(clock: Clock) -> None:
    boss = coordinator(clock, PACKS[:1])
    join(boss, 0, 1)
    runs = take(boss, 0)
    clock.seconds += SILENT_SECONDS + 1
    boss.state()
    clock.seconds += BACK_OFF_SECONDS[0]
    join(boss, 1, 2)
    assert take(boss, 1, 2) == runs[:2]
    assert boss.beat(0, 1, Beat()), "told to stop"
    boss.acknowledge(0, 1, [(run.run_id, "done") for run in runs])
    assert boss.state().tally.done == 0
    assert boss.pull(0, 1).job is None


def by_width(run: Run) -> int:
    return (2, 4).index(run.width)


def test_workers_take_packs_of_their_lane_and_leave_when_it_is_done(clock: Clock) -> None:
    boss = Coordinator(PACKS, 1_000_000, lambda run: 1.0, lane_of=by_width, now=clock)
    for lane in (0, 1):
        boss.hello(lane, WorkerFacts("node", "host", 1, lane=lane, gpus=1 + lane))
    for _ in range(2):
        runs = take(boss, 1)
        assert {run.width for run in runs} == {4}
        end(boss, 1, runs)
    clock.seconds += 10
    assert boss.pull(1, 1).wait_seconds == 0, "its GPUs are for workers of the other lane"
    boss.goodbye(1, 1)
    runs = take(boss, 0)
    assert {run.width for run in runs} == {2}
    boss.lost(0)
    assert not boss.state().is_over
    boss.hello(0, WorkerFacts("node", "host", 2, lane=0, gpus=1))
    clock.seconds += 2 * BACK_OFF_SECONDS[0]
    while job := boss.pull(0, 2).job:
        assert {run.width for run in job.pack.runs} == {2}
        end(boss, 0, job.pack.runs, process=2)
    assert boss.state().is_over
    assert boss.state().gpu_seconds == 10 * 2 + 10 * 1 + 2 * BACK_OFF_SECONDS[0]


def test_any_process_of_a_group_may_tell_of_a_failure_and_only_the_first_word_counts(clock: Clock) -> None:
    (run, *_) = RUNS
    boss = coordinator(clock, [Pack((run,))])
    join(boss, 0)
    take(boss, 0)
    boss.finished(0, 1, OUT_OF_MEMORY)  # the second process, which has no way to write an end
    boss.finished(0, 1, ERROR)  # the first process, which broke down with it
    (given_up,) = boss.state().given_up
    assert (given_up.run, given_up.failure) == (run, OUT_OF_MEMORY)
    boss.confirm_given_up([run.run_id])
    boss.goodbye(0, 1)
    assert boss.state().is_over
    assert boss.state().tally.failed == 1


def test_a_group_that_lost_one_of_its_nodes_is_forgiven(clock: Clock) -> None:
    boss = coordinator(clock, [Pack((RUNS[0],))])
    for _ in range(2 * MAX_CRASHES):
        boss.hello(0, WorkerFacts("here", "host", 1, peers=("there", "elsewhere")))
        take(boss, 0)
        boss.lost(0)
        boss.nodes_gone(["there"])
        assert boss.state().given_up == ()


def test_a_drained_coordinator_hands_out_nothing_and_is_over_when_all_is_saved(clock: Clock) -> None:
    boss = coordinator(clock)
    join(boss, 0)
    take(boss, 0)
    assert not boss.beat(0, 1, Beat())
    boss.drain()
    assert boss.beat(0, 1, Beat())
    assert not boss.state().is_over
    boss.paused(0, 1)
    assert boss.pull(0, 1).job is None
    assert boss.state().is_over


def test_workers_that_die_in_a_row_without_result_stop_the_launch(clock: Clock) -> None:
    boss = coordinator(clock)
    for number in range(MAX_BARREN):
        join(boss, 0, number)
        boss.lost(0)
        boss.worker_failed("host, process 1")
    assert "in a row" in (boss.state().trouble or "")
    assert boss.state().is_over


@given(st.integers(0, 2**32), st.integers(1, 4))
def test_whatever_happens_every_run_ends_exactly_once(seed: int, slots: int) -> None:
    """Deaths, lost nodes, failures of all kinds and late acknowledgements in any order: none lost, none twice."""
    chance = random.Random(seed)
    clock = Clock()
    boss = coordinator(clock)
    process = dict.fromkeys(range(slots), 0)
    waiting: dict[int, list[Run]] = {slot: [] for slot in range(slots)}
    ended: list[str] = []
    attempts: dict[str, int] = {}
    for slot in range(slots):
        join(boss, slot, 0, f"{slot}-0")

    def acknowledge(slot: int) -> None:
        boss.acknowledge(slot, process[slot], [(run.run_id, "done") for run in waiting[slot]])
        ended.extend(run.run_id for run in waiting[slot])
        waiting[slot] = []

    for _ in range(10_000):
        state = boss.state()
        if state.is_over:
            break
        clock.seconds += chance.choice([0, 0.1, 5])
        ended += [each.run.run_id for each in state.given_up]
        boss.confirm_given_up([each.run.run_id for each in state.given_up])
        slot = chance.randrange(slots)
        orders = boss.pull(slot, process[slot])
        if orders.job is None:
            acknowledge(slot)
            continue
        for run in orders.job.pack.runs:
            assert run.run_id not in ended
            assert orders.job.attempt > attempts.get(run.run_id, 0), "a later try has a later attempt"
            attempts[run.run_id] = orders.job.attempt
        fate = chance.choice(["done", "done", "done", "dies", "node goes", "error", "memory", "hiccup"])
        if fate == "done":
            waiting[slot] += orders.job.pack.runs
            boss.finished(slot, process[slot])
            if chance.random() < 0.5:
                acknowledge(slot)
        elif fate in ("dies", "node goes"):
            boss.lost(slot)
            if fate == "node goes":
                boss.nodes_gone([f"{slot}-{process[slot]}"])
            waiting[slot] = []
            process[slot] += 1
            join(boss, slot, process[slot], f"{slot}-{process[slot]}")
        else:
            acknowledge(slot)
            if fate == "error" and len(orders.job.pack.runs) == 1:
                waiting[slot] += orders.job.pack.runs  # the worker writes the failed end itself
                boss.finished(slot, process[slot])
            else:
                failure = {"error": ERROR, "memory": OUT_OF_MEMORY, "hiccup": HICCUP}[fate]
                boss.finished(slot, process[slot], failure)
    else:
        pytest.fail("it never ended")
    assert sorted(ended) == sorted(run.run_id for run in RUNS)
