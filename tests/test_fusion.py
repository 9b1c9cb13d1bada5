"""Choosing the engine: by a measurement that is kept, the same for all packs of a sweep, and never one that loses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.catalog import load_space
from search_spaces.runs import Run, expand
from workers import fusion
from workers.checkpoint import Engine
from workers.fusion import FILE_NAME, StepSeconds, choose, conditions, fastest, measure_steps
from workers.placement import Placement
from workers.stack import stack_sizes
from workers.train import train_pack

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
NARROW = StepSeconds({1: 3.0, 4: 3.5, 8: 5.0}, 8)
WIDE = StepSeconds({1: 10.0, 2: 20.5, 4: 45.0}, 32)
FREE = Placement(engine=None, usual_pack=5)


def run_of(*overrides: str) -> Run:
    small = ("widths=8", "seeds=1", "noise.rates=0.2", "samples=96", "recipe.batch_size=32", "recipe.epochs=1")
    return expand(load_space("digits-grid", (*small, "evaluation.points=2", *overrides)))[0]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    """Stands in for the measurement."""
    stand_in = mock.Mock(return_value=NARROW)
    monkeypatch.setattr(fusion, "measure_steps", stand_in)
    return stand_in


def test_narrow_networks_are_fused_and_wide_ones_are_not() -> None:
    assert fastest(NARROW, 8, lambda members: max(4, members)) == 8
    assert fastest(NARROW, 1, lambda members: max(4, members)) == 1
    assert fastest(WIDE, 8, lambda members: members) == 1
    assert fastest(WIDE, 8, lambda members: members, least=2) == 2


def test_a_gain_within_the_noise_of_a_measurement_is_none() -> None:
    assert fastest(StepSeconds({1: 1.0, 2: 1.94}, 2), 2, lambda members: members) == 1
    assert fastest(StepSeconds({1: 1.0, 2: 1.9}, 2), 2, lambda members: members) == 2


@given(
    st.dictionaries(st.sampled_from([2, 4, 8, 16]), st.floats(0.5, 30), min_size=1),
    st.integers(1, 30),
)
def test_what_is_chosen_is_never_expected_to_be_slower_than_one_after_another(
    by_models: Mapping[int, float], members: int
) -> None:
    seconds = StepSeconds({1: 1.0, **by_models}, 16)
    most = fastest(seconds, members, lambda count: max(2, count))
    if most > 1:
        assert sum(seconds.of(max(2, size)) for size in stack_sizes(members, most)) <= members


def test_times_between_measured_sizes_are_interpolated_and_beyond_them_proportional() -> None:
    assert [NARROW.of(models) for models in (1, 4, 6, 8, 16)] == [3.0, 3.5, 4.25, 5.0, 10.0]


def test_a_measurement_is_made_once_and_kept_with_its_conditions(tmp_path: Path, measured: mock.Mock) -> None:
    run = run_of()
    for _ in range(2):
        assert choose(run, 5, CPU, FREE, tmp_path) == ("fused", 5)
    assert measured.call_count == 1
    (key,) = json.loads((tmp_path / FILE_NAME).read_text())
    assert key == conditions(run, CPU)
    for part in ("tiny-resnet width 8", "1x8x8 to 10", "batch 32", "fp32 adam", "threads 1", torch.__version__):
        assert part in key
    choose(run_of("widths=4"), 5, CPU, FREE, tmp_path)
    choose(run, 9, CPU, FREE, tmp_path)  # larger than what was looked at
    assert measured.call_count == 3
    assert len(json.loads((tmp_path / FILE_NAME).read_text())) == 2


def test_all_packs_of_a_sweep_have_one_engine(tmp_path: Path, measured: mock.Mock) -> None:
    """A run that is left alone, by a crash or by the end of the queue, gives what it gives among others."""
    assert [choose(run_of(), members, CPU, FREE, tmp_path)[0] for members in (1, 2, 5)] == ["fused"] * 3
    measured.return_value = WIDE
    assert [choose(run_of("widths=32"), members, CPU, FREE, tmp_path)[0] for members in (1, 5)] == ["sequential"] * 2


def test_runs_that_are_not_packed_are_not_measured(tmp_path: Path, measured: mock.Mock) -> None:
    assert choose(run_of(), 1, CPU, Placement(engine=None, usual_pack=1), tmp_path) == ("sequential", 1)
    assert choose(run_of(), 5, CPU, FREE, tmp_path, "sequential") == ("sequential", 1)
    assert not measured.called


def test_an_engine_that_is_asked_for_is_taken_at_its_best_size(tmp_path: Path, measured: mock.Mock) -> None:
    measured.return_value = WIDE
    assert choose(run_of(), 5, CPU, FREE, tmp_path, "fused") == ("fused", 2)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', '{"a": {"seconds": {"x": 1}, "searched": 2}}'])
def test_a_damaged_file_of_measurements_is_replaced(content: str, tmp_path: Path, measured: mock.Mock) -> None:
    (tmp_path / FILE_NAME).write_text(content)
    assert choose(run_of(), 5, CPU, FREE, tmp_path) == ("fused", 5)
    assert list(json.loads((tmp_path / FILE_NAME).read_text())) == [conditions(run_of(), CPU)]


def test_a_folder_that_cannot_be_written_costs_a_measurement_a_process(tmp_path: Path, measured: mock.Mock) -> None:
    folder = tmp_path / "file" / "folder"
    folder.parent.write_text("no folder can be made here")
    assert choose(run_of(), 5, CPU, FREE, folder) == ("fused", 5)
    assert measured.call_count == 1


def test_of_two_workers_that_measure_at_once_both_go_by_the_first(tmp_path: Path, measured: mock.Mock) -> None:
    def slow(run: Run, device: torch.device, most: int, *, graphs: bool) -> StepSeconds:
        fusion._keep(tmp_path / FILE_NAME, conditions(run, device), WIDE)
        return NARROW

    measured.side_effect = slow
    assert choose(run_of(), 5, CPU, FREE, tmp_path) == ("sequential", 1)


def test_packs_beyond_the_largest_size_are_not_measured_again_and_again(tmp_path: Path, measured: mock.Mock) -> None:
    measured.return_value = StepSeconds({1: 3.0, 8: 5.0, 16: 9.0, 32: 17.0}, 32)
    assert {choose(run_of(), 100, CPU, FREE, tmp_path)[1] for _ in range(3)} <= set(range(2, 33))
    assert measured.call_count == 1


def test_workers_that_measure_side_by_side_lose_nothing_of_each_other(tmp_path: Path) -> None:
    keys = [f"kind {number}" for number in range(24)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda key: fusion._keep(tmp_path / FILE_NAME, key, NARROW), keys))
    assert sorted(json.loads((tmp_path / FILE_NAME).read_text())) == sorted(keys)


def test_measuring_takes_steps_of_each_size(tmp_path: Path) -> None:
    found = measure_steps(run_of(), CPU, 2)
    assert found.searched >= 2
    assert {1, 2} <= found.by_models.keys()
    assert all(seconds > 0 for seconds in found.by_models.values())


@pytest.mark.parametrize("engine", ["sequential", "fused"])
def test_training_goes_by_the_choice(engine: Engine, data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusion, "measure_steps", lambda *_, **__: NARROW if engine == "fused" else WIDE)
    monkeypatch.setattr(fusion, "FILE_NAME", f"{engine}.json")
    progress = list(train_pack([run_of()], data_folder, CPU, placement=FREE))
    assert [end.engine for part in progress for end in part.ended] == [engine]
