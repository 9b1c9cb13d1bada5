"""The benchmarks: their arithmetic by hand, the registry, and a command line that runs. No figure is tested."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.measuring import machine
from benchmarks.measuring.figures import Figure, Goal, cost_per_run, efficiency, pair_up, spread
from benchmarks.measuring.launched import account
from benchmarks.measuring.loop import share_out
from benchmarks.measuring.probe import TrialTimes
from benchmarks.measuring.registry import load_subject, subject_names
from benchmarks.measuring.rounds import HUNDRED, TWENTY_FOUR
from benchmarks.measuring.table import document, figure_cells
from benchmarks.overhead import FOUR, TWELVE
from orchestrator.estimate import guess_seconds
from search_spaces.catalog import load_space
from search_spaces.packs import group_packs
from search_spaces.runs import expand

ROOT = Path(__file__).resolve().parent.parent


def test_a_spread_is_number_smallest_median_and_largest() -> None:
    assert vars(spread([3.0, 1.0, 2.0])) == {"n": 3, "minimum": 1.0, "median": 2.0, "maximum": 3.0}
    assert spread([4.0, 1.0]).median == 2.5


def test_efficiency_and_cost_per_run_by_hand() -> None:
    """A loop of 90 s, and a launch of 50 s on two slots: a tenth is lost, 0.1 s for each of 100 runs."""
    assert efficiency(90.0, 2 * 50.0) == pytest.approx(0.9)
    assert cost_per_run(90.0, 2 * 50.0, 100) == pytest.approx(0.1)
    assert pair_up([1.0, 9.0], [2.0, 3.0]) == (0.5, 3.0)


def test_every_slot_second_of_a_launch_is_accounted_for() -> None:
    """Two workers, up after 5 and 6 s; the first does two trials, the second one; both are done at 20, all at 22."""
    trials = [
        TrialTimes(process=1, entered=104.0, ready=105.0, left=110.0, training=4.5, training_cpu=4.5),
        TrialTimes(process=2, entered=105.5, ready=106.0, left=117.0, training=10.0, training_cpu=10.0),
        TrialTimes(process=1, entered=110.25, ready=110.5, left=120.0, training=9.0, training_cpu=9.0),
    ]
    seconds = account(started=100.0, returned=122.0, slots=2, trials=trials)
    assert seconds.total == 44.0
    assert seconds.start_up == 5.0 + 6.0
    assert seconds.training == seconds.training_cpu == 23.5
    assert seconds.committing == 0.5 + 1.0 + 0.5
    assert seconds.between == 0.5
    assert seconds.tail == 3.0
    assert seconds.winding_up == 2 * 2.0
    assert seconds.once_up == 33.0


def test_a_slot_whose_worker_never_came_counts_as_idle() -> None:
    trial = TrialTimes(process=1, entered=4.0, ready=5.0, left=10.0, training=5.0, training_cpu=5.0)
    seconds = account(started=0.0, returned=10.0, slots=2, trials=[trial])
    assert (seconds.once_up, seconds.training, seconds.tail) == (10.0, 5.0, 5.0)


def test_the_fair_loops_share_the_packs_and_each_pack_is_in_one() -> None:
    packs = group_packs(expand(load_space("digits-grid")), "auto")
    shares = share_out(packs, 2)
    assert sorted(pack.pack_id for share in shares for pack in share) == sorted(pack.pack_id for pack in packs)
    lengths = [sum(guess_seconds(run, gpus=0) for pack in share for run in pack.runs) for share in shares]
    assert max(lengths) < 1.1 * min(lengths)
    assert share_out(packs[:1], 2) == [packs[:1], []]


def test_every_round_takes_all_steps_and_starts_with_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(machine, "PATIENCE_SECONDS", 0.0)
    taken: list[str] = []
    steps = {name: functools.partial(taken.append, name) for name in ("loop", "launch", "plain")}
    for number in range(3):
        machine.in_turn(steps, number)
    assert taken == ["loop", "launch", "plain", "launch", "plain", "loop", "plain", "loop", "launch"]


@pytest.mark.parametrize(("overrides", "runs"), [(HUNDRED, 100), (TWENTY_FOUR, 24), (TWELVE, 12), (FOUR, 4)])
def test_spaces_have_the_number_of_runs_that_their_figures_name(overrides: tuple[str, ...], runs: int) -> None:
    assert len(expand(load_space("digits-grid", overrides))) == runs


def test_goals_bind_the_median_from_below_or_from_above() -> None:
    least = Figure("efficiency", (0.89, 0.91, 0.92), goal=Goal(0.9, is_least=True))
    most = Figure("start", (0.1, 0.4), "s", Goal(0.3, is_least=False))
    assert figure_cells(least) == ["efficiency", "3", "0.89", "0.91", "0.92", ">= 0.9", "met"]
    assert figure_cells(most) == ["start", "2", "0.1 s", "0.25 s", "0.4 s", "<= 0.3 s", "met"]
    assert figure_cells(Figure("start", (0.4,), "s", Goal(0.3, is_least=False)))[-1] == "missed"
    entry = json.loads(json.dumps(document({}, {"A subject": [least]}, quick=False)))["figures"][0]
    assert (entry["n"], entry["median"], entry["met"], entry["values"]) == (3, 0.91, True, [0.89, 0.91, 0.92])


def test_every_module_beside_main_is_a_subject_with_a_title_and_a_measure() -> None:
    assert {"cli", "orchestration", "overhead"} <= set(subject_names())
    for name in subject_names():
        subject = load_subject(name)
        assert subject.title
        assert callable(subject.measure)


def test_the_command_line_lists_its_options_and_refuses_unknown_subjects() -> None:
    answer = benchmarks("--help")
    assert answer.returncode == 0
    for option in ("--quick", "--json"):
        assert option in answer.stdout
    unknown = benchmarks("nothing")
    assert unknown.returncode == 2
    assert "orchestration" in unknown.stderr


def test_what_the_plain_script_imports_leaves_ffcv_alone() -> None:
    code = (
        "import sys, benchmarks.measuring.plain_tune, search_spaces.schedule\n"
        "import workers.metrics, workers.noise, workers.resnet, workers.subsets\n"
        "assert not {'ffcv', 'workers.quiet_ffcv'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
