"""Checkpoints: a run that was paused, anywhere and anyhow, gives what it gives when it is left alone."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.catalog import load_space
from search_spaces.runs import Run, expand
from tests.poison import poison
from workers.checkpoint import (
    HEADER,
    SEAL_BYTES,
    VERSION,
    Checkpoint,
    CheckpointError,
    Engine,
    Spent,
    dump_checkpoint,
    group_by_progress,
    load_checkpoint,
)
from workers.data import ImageData
from workers.member import RunEnd
from workers.schema import TIMING_COLUMNS
from workers.stack import Stack
from workers.train import train_pack

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
SHORT = ("seeds=1", "widths=2", "noise.rates=[0, 0.2, 0.4]", "dataset.validation_samples=1000", "evaluation.points=4")
THREE_STEPS = ("samples=128", "recipe.batch_size=48", "recipe.epochs=3")  # an epoch; the last one is short
RECIPES = {
    "sgd": (
        *("recipe.optimizer=sgd", "recipe.momentum=0.9", "recipe.nesterov=true", "recipe.learning_rate=0.05"),
        *("recipe.schedule=cosine", "recipe.warmup_epochs=1", "recipe.weight_decay=0.01"),
        "recipe.decay_batch_norm=false",
    ),
    "adam": ("recipe.weight_decay=0.01",),
}
STEPS = 9
EVALUATED = (1, 2, 4, 9)
Rows = dict[str, list[dict[str, Any]]]


def runs_of(*overrides: str) -> list[Run]:
    return expand(load_space("digits-grid", (*SHORT, *THREE_STEPS, *overrides)))


class Pause:
    """Asks to pause after one step; `step` is the last one taken."""

    def __init__(self, *, at: int, step: int = 0) -> None:
        self.at, self.step = at, step

    def __call__(self) -> bool:
        self.step += 1
        return self.step == self.at


class History:
    """What came out of runs over all calls: rows without timing columns, all ends, last checkpoints."""

    def __init__(self) -> None:
        self.rows: Rows = {}
        self.timing: Rows = {}
        self.ends: dict[str, RunEnd] = {}
        self.saved: dict[str, bytes] = {}

    def train(self, runs: Sequence[Run], folder: Path, *, until: int = STEPS) -> None:
        """Go on with these runs, wherever they are, to step `until`."""
        loaded = {run.run_id: load_checkpoint(self.saved[run.run_id], run) for run in runs if run.run_id in self.saved}
        for part, resume in group_by_progress(runs, loaded):
            pause = Pause(at=until, step=next((checkpoint.step for checkpoint in resume.values()), 0))
            training = train_pack(part, folder, CPU, resume=resume, pause=pause)
            for progress in training:
                for row in progress.rows:
                    plain = {name: value for name, value in row.items() if name not in TIMING_COLUMNS}
                    self.rows.setdefault(row["run_id"], []).append(plain)
                    self.timing.setdefault(row["run_id"], []).append({name: row[name] for name in TIMING_COLUMNS})
                self.ends |= {end.run_id: end for end in progress.ended}
                if pause.step == until:
                    self.saved = {**self.saved, **progress.checkpoints()}
                    training.close()  # type: ignore[attr-defined]

    def left(self, runs: Iterable[Run]) -> list[Run]:
        return [run for run in runs if run.run_id not in self.ends]


def undisturbed(runs: Sequence[Run], folder: Path) -> History:
    history = History()
    history.train(runs, folder)
    return history


def same_ends(one: History, other: History) -> bool:
    without_time = [{key: replace(end, seconds=0) for key, end in history.ends.items()} for history in (one, other)]
    return without_time[0] == without_time[1]


@pytest.fixture(scope="module")
def plain(data_folder: Path) -> dict[str, History]:
    """Each recipe left alone."""
    torch.set_num_threads(1)
    return {name: undisturbed(runs_of(*recipe), data_folder) for name, recipe in RECIPES.items()}


# -- going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("stop", range(1, STEPS), ids=lambda step: f"step{step}")
def test_a_pack_that_was_paused_gives_the_same_rows_and_ends(
    recipe: str, stop: int, plain: dict[str, History], data_folder: Path
) -> None:
    runs = runs_of(*RECIPES[recipe])[1:]
    history = History()
    history.train(runs, data_folder, until=stop)
    made = sum(step <= stop for step in EVALUATED)
    assert history.ends == {}
    assert {len(rows) for rows in history.rows.values()} == {made}
    assert [load_checkpoint(history.saved[run.run_id], run).evaluations for run in runs] == [made, made]
    history.train(runs, data_folder)
    for run in runs:
        assert history.rows[run.run_id] == plain[recipe].rows[run.run_id]
        assert [row["step"] for row in history.rows[run.run_id]] == list(EVALUATED)
        assert history.ends[run.run_id].evaluations == len(EVALUATED)


@pytest.mark.parametrize("recipe", RECIPES)
def test_members_go_on_alone_and_a_pause_may_follow_a_pause(
    recipe: str, plain: dict[str, History], data_folder: Path
) -> None:
    runs = runs_of(*RECIPES[recipe])
    history = History()
    history.train(runs, data_folder, until=2)
    history.train(runs[:1], data_folder, until=5)
    history.train(runs[1:], data_folder, until=7)
    history.train(runs[:1], data_folder, until=7)
    history.train([runs[2]], data_folder)
    history.train(runs[:2], data_folder)
    assert history.rows == plain[recipe].rows
    assert same_ends(history, plain[recipe])


@settings(max_examples=12)
@given(stops=st.sets(st.integers(1, STEPS - 1)), apart=st.lists(st.booleans(), min_size=STEPS, max_size=STEPS))
def test_no_set_of_pauses_and_no_regrouping_changes_a_row(
    stops: set[int], apart: list[bool], plain: dict[str, History], data_folder: Path
) -> None:
    runs = runs_of(*RECIPES["sgd"])
    history = History()
    for stop in [*sorted(stops), STEPS]:
        for part in [runs[:1], runs[1:]] if apart[stop - 1] else [runs]:
            history.train(part, data_folder, until=stop)
    assert history.rows == plain["sgd"].rows
    assert same_ends(history, plain["sgd"])


def _train_on(saved: dict[str, bytes], recipe: tuple[str, ...], folder: Path) -> Rows:
    torch.set_num_threads(1)
    history = History()
    history.saved = saved
    history.train(runs_of(*recipe), folder)
    return history.rows


def test_another_process_goes_on_to_the_same_bits(plain: dict[str, History], data_folder: Path) -> None:
    runs = runs_of(*RECIPES["adam"])
    history = History()
    history.train(runs, data_folder, until=5)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        rows = pool.apply(_train_on, (history.saved, RECIPES["adam"], data_folder))
    assert {run: history.rows[run] + rows[run] for run in rows} == plain["adam"].rows


def test_a_checkpoint_outlives_the_training_that_it_starts(data_folder: Path, plain: dict[str, History]) -> None:
    (run,) = runs_of(*RECIPES["adam"], "noise.rates=0.2")
    history = History()
    history.train([run], data_folder, until=5)
    resume = {run.run_id: load_checkpoint(history.saved[run.run_id], run)}
    last = [list(train_pack([run], data_folder, CPU, resume=resume))[-1].rows[0] for _ in range(2)]
    plain_row = plain["adam"].rows[run.run_id][-1]
    assert [{name: row[name] for name in plain_row} for row in last] == [plain_row, plain_row]


def test_asking_to_pause_and_saving_do_not_disturb_a_training_that_goes_on(
    data_folder: Path, plain: dict[str, History]
) -> None:
    runs = runs_of(*RECIPES["sgd"])
    parts = []
    for progress in train_pack(runs, data_folder, CPU, pause=lambda: True):
        parts.append(progress)
        saved = progress.checkpoints()
        steps = {load_checkpoint(saved[run.run_id], run).step for run in runs if run.run_id in saved}
        assert steps == ({len(parts)} if len(parts) < STEPS else set())
    assert [len(part.rows) for part in parts] == [3 * (step in EVALUATED) for step in range(1, STEPS + 1)]
    assert [part.share_done for part in parts] == [step / STEPS for step in range(1, STEPS + 1)]
    assert [row["test_loss"] for part in parts for row in part.rows[:1]] == [
        row["test_loss"] for row in plain["sgd"].rows[runs[0].run_id]
    ]


def test_time_goes_on_where_it_was(data_folder: Path) -> None:
    (run,) = runs_of("noise.rates=0")
    history = History()
    history.train([run], data_folder, until=5)
    before = load_checkpoint(history.saved[run.run_id], run)
    long = replace(before, spent=Spent(wall=1000.0, training=500.0, share=100.0))
    history.saved[run.run_id] = dump_checkpoint(long)
    history.train([run], data_folder)
    assert 0 < before.spent.training < before.spent.wall < 100
    assert before.spent.share == before.spent.wall
    assert 1000 < history.timing[run.run_id][-1]["wall_seconds"] < 1100
    assert 100 < history.ends[run.run_id].seconds < 200
    assert history.timing[run.run_id][-1]["images_per_second"] == pytest.approx(3 * 128 / 500, rel=0.1)


# -- who is still there -----------------------------------------------------------------------------------------------


def test_a_diverged_member_is_not_saved_and_counts_its_evaluations(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch, plain: dict[str, History]
) -> None:
    runs = runs_of(*RECIPES["sgd"])
    poison(monkeypatch, lambda run, step: run.noise.rate == 0.2 and step == 2)
    history = History()
    history.train(runs, data_folder, until=3)
    assert set(history.saved) == {run.run_id for run in runs}  # broken already, but nobody has looked
    history.train(runs, data_folder, until=4)
    assert [load_checkpoint(history.saved[run.run_id], run).step for run in runs] == [4, 3, 4]
    assert list(history.ends) == [runs[1].run_id]
    assert history.ends[runs[1].run_id].status == "diverged"
    assert history.ends[runs[1].run_id].evaluations == 3 == len(history.rows[runs[1].run_id])
    history.train(history.left(runs), data_folder)
    assert {history.ends[run.run_id].evaluations for run in (runs[0], runs[2])} == {4}
    for run in (runs[0], runs[2]):
        assert history.rows[run.run_id] == plain["sgd"].rows[run.run_id]


def test_a_pack_that_diverges_as_a_whole_leaves_nothing_to_save(data_folder: Path) -> None:
    runs = runs_of(*RECIPES["sgd"], "recipe.learning_rate=1e30")
    *_, last = train_pack(runs, data_folder, CPU)
    assert last.checkpoints() == {}
    assert {end.status for end in last.ended} == {"diverged"}
    assert {end.evaluations for end in last.ended} == {last.rows[0]["evaluation"] + 1}
    assert last.share_done < 1


def test_a_flow_pack_is_solved_in_one_go(data_folder: Path) -> None:
    run = expand(load_space("gmm-grid", ("seeds=1", "ratios=0.5", "noise.rates=0.2")))
    (progress,) = train_pack(run, data_folder, CPU, pause=lambda: True)
    assert progress.checkpoints() == {}
    assert [end.evaluations for end in progress.ended] == [len(progress.rows)]


def test_saving_late_is_refused(data_folder: Path) -> None:
    training = train_pack(runs_of("noise.rates=0"), data_folder, CPU, pause=lambda: True)
    first = next(training)
    next(training)
    with pytest.raises(AssertionError, match="gone on"):
        first.checkpoints()


def test_leaving_early_ends_every_thread(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(threading.enumerate())
    runs = runs_of("recipe.batch_size=4")
    training = train_pack(runs, data_folder, CPU, pause=lambda: True)
    for _ in range(2):
        next(training)
    assert set(threading.enumerate()) - before, "the test is blind: training should have a thread that decodes"
    training.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) <= before

    monkeypatch.setattr(Stack, "accumulate", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError) as kept:
        next(train_pack(runs, data_folder, CPU))
    assert kept.traceback, "whoever keeps the error keeps the frames of the loop"
    assert set(threading.enumerate()) <= before


def test_the_rest_of_an_epoch_has_the_batches_of_the_whole_epoch(data_folder: Path) -> None:
    data = ImageData(runs_of()[0], data_folder, CPU)
    whole = list(data.epoch(1))
    assert [len(batch.index) for batch in whole] == [48, 48, 32]
    for skipped in range(4):
        rest = list(data.epoch(1, skip_steps=skipped))
        assert len(rest) == 3 - skipped
        for batch, expected in zip(rest, whole[skipped:], strict=True):
            assert torch.equal(batch.index, expected.index)
            assert torch.equal(batch.inputs, expected.inputs)


# -- grouping ---------------------------------------------------------------------------------------------------------


def checkpoint_at(step: int, run: Run, engine: Engine = "sequential") -> Checkpoint:
    model = {"a": torch.ones(2)}
    return Checkpoint(run.run_id, step, 48 * step, 1, 0.5, 2, [], Spent(1, 2, 3), model, {}, {}, engine)


def test_runs_are_grouped_by_step_and_engine_in_their_order() -> None:
    runs = runs_of("noise.rates=[0, 0.1, 0.2, 0.3, 0.4, 0.5]")
    checkpoints = {run.run_id: checkpoint_at(step, run) for run, step in zip(runs[1:], (7, 3, 7, 3, 3), strict=True)}
    checkpoints[runs[5].run_id] = checkpoint_at(3, runs[5], "fused")
    parts = group_by_progress(runs, checkpoints)
    assert [part for part, _ in parts] == [(runs[0],), (runs[1], runs[3]), (runs[2], runs[4]), (runs[5],)]
    assert [list(found) for _, found in parts] == [
        [run.run_id for run in part if part[0] != runs[0]] for part, _ in parts
    ]
    assert group_by_progress(runs, {}) == [(tuple(runs), {})]
    assert group_by_progress(runs[:1], checkpoints) == [((runs[0],), {})]
    assert group_by_progress([], checkpoints) == []


@pytest.mark.parametrize("steps", [(4, 5, 5), (4, 4, None)])
def test_runs_at_different_steps_are_refused(steps: tuple[int | None, ...], data_folder: Path) -> None:
    runs = runs_of()
    resume = {run.run_id: checkpoint_at(step, run) for run, step in zip(runs, steps, strict=True) if step}
    expected = "sequential 4, sequential 5" if None not in steps else "sequential 4, 0"
    with pytest.raises(ValueError, match=expected):
        next(train_pack(runs, data_folder, CPU, resume=resume))


# -- bytes ------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_as_it_was() -> None:
    run = runs_of()[0]
    written = checkpoint_at(5, run)
    read = load_checkpoint(dump_checkpoint(written), run)
    assert vars(read) | {"model": None} == vars(written) | {"model": None}
    assert torch.equal(read.model["a"], written.model["a"])


@given(st.data())
def test_no_damage_goes_unnoticed(data: st.DataObject) -> None:
    run = runs_of()[0]
    content = bytearray(dump_checkpoint(checkpoint_at(5, run)))
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[position] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[position:]
    with pytest.raises(CheckpointError, match=f"{run.run_id}.*start the run anew"):
        load_checkpoint(bytes(content), run)


def sealed(content: bytes) -> bytes:
    return content + xxhash.xxh3_128_digest(content)


def test_other_versions_other_runs_and_other_things_are_refused() -> None:
    run, other = runs_of()[:2]
    content = dump_checkpoint(checkpoint_at(5, run))
    with pytest.raises(CheckpointError, match=f"{other.run_id}.*checkpoint of run {run.run_id}"):
        load_checkpoint(content, other)
    newer = sealed(content.replace(HEADER % VERSION, HEADER % (VERSION + 1))[:-SEAL_BYTES])
    with pytest.raises(CheckpointError, match=rf"version {VERSION + 1}, only {VERSION} is read"):
        load_checkpoint(newer, run)
    with pytest.raises(CheckpointError, match="cannot read"):
        load_checkpoint(sealed(HEADER % VERSION + b"no archive of torch"), run)
    for foreign in (b"", b"PK\x03\x04", b"bo-sweep checkpoint " + b"9" * 5000 + b"\n"):
        with pytest.raises(CheckpointError, match="no checkpoint"):
            load_checkpoint(foreign, run)
