"""The benchmarks: their arithmetic by hand, the registry, and a command line that runs. No figure is tested."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from benchmarks import writing
from benchmarks.bounded_head import FIVE_HUNDRED, TEN_THOUSAND, Sampler, Weights, count_files
from benchmarks.measuring import machine, probe, stub
from benchmarks.measuring.figures import Figure, Goal, cost_per_run, efficiency, pair_up, spread
from benchmarks.measuring.launched import account
from benchmarks.measuring.loop import share_out
from benchmarks.measuring.probe import PackTimes
from benchmarks.measuring.registry import load_subject, subject_names
from benchmarks.measuring.rounds import HUNDRED, TWENTY_FOUR
from benchmarks.measuring.table import document, figure_cells
from benchmarks.overhead import FOUR, TWELVE
from orchestrator.estimate import guess_seconds
from orchestrator.ledger import Ledger
from orchestrator.storage import open_storage
from search_spaces.catalog import load_space
from search_spaces.packs import group_packs
from search_spaces.runs import expand
from workers import train
from workers.placement import Placement
from workers.schema import ROWS
from workers.train import Progress

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
    """Two workers, up after 5 and 6 s; the first does two packs, the second one; both are done at 20, all at 22."""
    packs = [
        PackTimes(process=1, ready=105.0, left=110.0, training=4.5, training_cpu=4.5),
        PackTimes(process=2, ready=106.0, left=117.0, training=10.0, training_cpu=10.0),
        PackTimes(process=1, ready=110.5, left=120.0, training=9.0, training_cpu=9.0),
    ]
    seconds = account(started=100.0, returned=122.0, slots=2, packs=packs)
    assert seconds.total == 44.0
    assert seconds.start_up == 5.0 + 6.0
    assert seconds.training == seconds.training_cpu == 23.5
    assert seconds.committing == 0.5 + 1.0 + 0.5
    assert seconds.between == 0.5
    assert seconds.tail == 3.0
    assert seconds.winding_up == 2 * 2.0
    assert seconds.once_up == 33.0


def test_a_slot_whose_worker_never_came_counts_as_idle() -> None:
    pack = PackTimes(process=1, ready=5.0, left=10.0, training=5.0, training_cpu=5.0)
    seconds = account(started=0.0, returned=10.0, slots=2, packs=[pack])
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


@pytest.mark.parametrize(
    ("overrides", "runs"),
    [(HUNDRED, 100), (TWENTY_FOUR, 24), (TWELVE, 12), (FOUR, 4), (TEN_THOUSAND, 10_000), (FIVE_HUNDRED, 500)],
)
def test_spaces_have_the_number_of_runs_that_their_figures_name(overrides: tuple[str, ...], runs: int) -> None:
    space = load_space("digits-grid", overrides)
    assert len(expand(space)) == runs
    if "packing=off" in overrides:
        assert len(group_packs(expand(space), space.packing)) == runs


def test_the_probe_passes_everything_on_and_writes_down_each_pack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = group_packs(expand(load_space("digits-grid")), "auto")[0]
    monkeypatch.setattr(train, "train_pack", stub.train_pack)
    for _ in range(2):
        (progress,) = probe.train_pack(
            pack.runs, tmp_path / "data", torch.device("cpu"), pause=train.never, placement=Placement()
        )
        assert [end.run_id for end in progress.ended] == [run.run_id for run in pack.runs]
    first, second = probe.read_times(tmp_path / "data")
    assert first.ready + first.training <= first.left <= second.ready


def test_the_stub_gives_rows_that_the_ledger_takes_and_ends_that_claim_them(tmp_path: Path) -> None:
    runs = expand(load_space("digits-grid"))[:2]
    (progress,) = stub.train_pack(runs, tmp_path / "data", torch.device("cpu"))
    assert isinstance(progress, Progress)
    rows = [row | {"attempt": 1} for row in progress.rows]
    table = pa.Table.from_pylist(rows, schema=ROWS)
    assert sum(column.null_count for column in table.columns) == 0
    assert table.num_rows == sum(end.evaluations for end in progress.ended) == 2 * stub.EVALUATIONS
    assert len(table["val_error"].unique()) == table.num_rows


def test_memory_is_weighed_against_packs_over_their_last_half() -> None:
    """2 MB for each of the last 500 packs' hundreds, after a start that does not count."""
    weights = Weights(packs=(0.0, 400.0, 500.0, 600.0, 1000.0), megabytes=(0.0, 90.0, 100.0, 102.0, 110.0))
    assert weights.slope() == pytest.approx(20.0)


def test_packs_are_interpolated_at_the_moments_that_memory_was_taken() -> None:
    sampler = Sampler(
        times=[0.0, 1.0, 2.0, 9.0],
        driver=[1.0, 2.0, 3.0, 4.0],
        coordinator=[float("nan"), float("nan"), 7.0, 8.0],
        counted=[(1.0, 0.0), (3.0, 10.0)],
    )
    assert sampler.weights(sampler.driver) == ((0.0, 5.0), (2.0, 3.0))
    assert sampler.weights(sampler.coordinator) == ((5.0,), (7.0,))


def test_files_of_a_sweep_are_counted_in_all_of_its_folders(tmp_path: Path) -> None:
    for path in ("sweep.json", "rows/a", "rows/b", "ends/c"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    assert count_files(open_storage(tmp_path)) == 4


@pytest.mark.parametrize("way", writing.WAYS)
def test_every_way_of_writing_leaves_every_row(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "FLUSH_RUNS", 2)
    assert writing.write_runs(way, 3, 2, tmp_path / "written") > 0
    runs = 4 if way == "sink" else 3  # some go ahead
    if way == "sink":
        assert Ledger(tmp_path / "written").ends()["status"].to_list() == ["done"] * runs
    if way == "write-ahead log":
        assert len((tmp_path / "written" / "rows.jsonl").read_text().splitlines()) == 3 * runs
    else:
        assert Ledger(tmp_path / "written").snapshot().recent.height == 3 * runs


def test_goals_bind_the_median_from_below_or_from_above() -> None:
    least = Figure("efficiency", (0.89, 0.91, 0.92), goal=Goal(0.9, is_least=True))
    most = Figure("start", (0.1, 0.4), "s", Goal(0.3, is_least=False))
    assert figure_cells(least) == ["efficiency", "3", "0.89", "0.91", "0.92", ">= 0.9", "met"]
    assert figure_cells(most) == ["start", "2", "0.1 s", "0.25 s", "0.4 s", "<= 0.3 s", "met"]
    assert figure_cells(Figure("start", (0.4,), "s", Goal(0.3, is_least=False)))[-1] == "missed"
    entry = json.loads(json.dumps(document({}, {"A subject": [least]}, quick=False)))["figures"][0]
    assert (entry["n"], entry["median"], entry["met"], entry["values"]) == (3, 0.91, True, [0.89, 0.91, 0.92])


def test_every_module_beside_main_is_a_subject_with_a_title_and_a_measure() -> None:
    assert {"bounded_head", "cli", "orchestration", "overhead", "writing"} <= set(subject_names())
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
