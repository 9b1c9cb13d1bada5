"""The plan: what a launch would do, and what it refuses before anything is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from orchestrator import slots
from orchestrator.lanes import ResourceError
from orchestrator.launch_plan import LaunchOptions, plan_launch
from orchestrator.ledger import Ledger, Manifest
from orchestrator.plan import Plan, PlanError
from orchestrator.slots import Hardware, count_slots, process_bytes
from orchestrator.storage import StorageError, open_storage
from search_spaces.catalog import builtin_names, load_space
from search_spaces.runs import expand
from search_spaces.shapes import Shape
from tests.test_ledger import settle

LAPTOP = Hardware(cpus=2, gpus=0, memory_bytes_per_cpu=8e9)
BOX = Hardware(cpus=96, gpus=8, memory_bytes_per_cpu=8e9)


def plan(tmp_path: Path, *overrides: str, hardware: Hardware = LAPTOP, retry_failed: bool = False) -> Plan:
    options = LaunchOptions(open_storage(tmp_path), "sweep", tmp_path, retry_failed=retry_failed)
    return plan_launch(load_space("digits-grid", overrides), options, hardware)


def ledger_of(tmp_path: Path, *overrides: str) -> Ledger:
    ledger = Ledger(tmp_path / "sweep")
    ledger.write_manifest(Manifest("sweep", load_space("digits-grid", overrides), 1, "2026-01-01"))
    return ledger


def test_a_new_sweep_is_all_new_and_planning_writes_nothing(tmp_path: Path) -> None:
    made = plan(tmp_path)
    assert made.count("new") == len(made.runs) == 63
    assert len(made.packs) == 21
    assert not made.is_complete
    assert made.estimate.wall_seconds > 0
    assert list(tmp_path.iterdir()) == []


def test_only_what_the_ledger_lacks_is_left_and_failed_runs_only_on_demand(tmp_path: Path) -> None:
    runs = expand(load_space("digits-grid"))
    ledger = ledger_of(tmp_path)
    settle(ledger, runs[0])
    settle(ledger, runs[1], status="diverged")
    settle(ledger, runs[2], status="failed")
    made = plan(tmp_path)
    assert [made.count(status) for status in ("new", "done", "diverged", "failed")] == [60, 1, 1, 1]
    left = {run.run_id for pack in made.packs for run in pack.runs}
    assert left == {run.run_id for run in runs[3:]}
    again = {run.run_id for pack in plan(tmp_path, retry_failed=True).packs for run in pack.runs}
    assert again == left | {runs[2].run_id}


def test_the_estimate_follows_finished_runs_of_the_sweep(tmp_path: Path) -> None:
    runs = expand(load_space("digits-grid"))
    before = plan(tmp_path).estimate
    settle(ledger_of(tmp_path), *runs[:4], seconds=1000.0)
    after = plan(tmp_path).estimate
    assert after.slot_seconds > 20 * before.slot_seconds
    assert "4 finished runs" in after.basis


def test_a_sweep_may_grow_but_not_turn_into_another_experiment(tmp_path: Path) -> None:
    ledger_of(tmp_path)
    assert plan(tmp_path, "seeds=5", "noise.rates=[0, 0.3]", "widths=[8]", "analysis.tau=0.1", "packing=off")
    with pytest.raises(PlanError, match=r"epochs.*60.*20.*--name"):
        plan(tmp_path, "recipe.epochs=20")
    with pytest.raises(PlanError, match="another experiment"):
        plan(tmp_path, "noise.model=pair")


def test_a_label_file_is_known_by_its_content_wherever_it_lies(tmp_path: Path) -> None:
    def noise(name: str, first: int) -> str:
        np.save(tmp_path / name, np.full(700, first))
        return f"noise={{model: file, file: {tmp_path / name}, rates: [0, 0.4]}}"

    ledger_of(tmp_path, noise("here.npy", 1))
    assert plan(tmp_path, noise("there.npy", 1))
    with pytest.raises(PlanError, match="another experiment"):
        plan(tmp_path, noise("else.npy", 2))


def test_runs_that_exceed_memory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"width 30000 with n = 500 needs about .* GB"):
        plan(tmp_path, "widths=[2, 30000]")


def test_unwritable_storage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sweep").write_text("a file, not a folder")
    with pytest.raises(StorageError, match="cannot be written"):
        plan(tmp_path)


def test_slots_follow_the_scarcer_resource() -> None:
    assert count_slots(Shape(1, 1, 0), LAPTOP) == 2
    assert count_slots(Shape(2, 1, 0), LAPTOP) == 1
    assert count_slots(Shape(1, 2, 0.25), BOX) == 32
    assert count_slots(Shape(1, 24, 1), BOX) == 4
    assert count_slots(Shape(4, 12, 1), BOX) == 2
    assert count_slots(Shape(1, 1, 1), LAPTOP) == 0
    assert process_bytes(Shape(1, 2, 0.5), BOX, 16, gpu_memory_gb=80) == pytest.approx(36e9)
    assert process_bytes(Shape(2, 1, 0), LAPTOP, 1, gpu_memory_gb=80) == process_bytes(
        Shape(1, 1, 0), LAPTOP, 2, gpu_memory_gb=80
    )


def test_a_shape_that_does_not_fit_is_refused_unless_it_is_for_another_machine(tmp_path: Path) -> None:
    space = load_space("digits-grid", ["resources.gpus_per_worker=2"])
    options = LaunchOptions(open_storage(tmp_path), "sweep", tmp_path)
    with pytest.raises(ResourceError, match=r"2 processes of 1 GPU and 1 CPU. There are 2 CPUs and 0 GPUs"):
        plan_launch(space, options, LAPTOP)
    made = plan_launch(space, options, LAPTOP, anywhere=True)
    assert [(lane.shape, lane.slots) for lane in made.lanes.lanes] == [(Shape(2, 1.0, 1.0), 1)]


def test_the_limits_of_a_container_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "CGROUP", tmp_path)
    unlimited = slots.local_hardware()
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "memory.max").write_text("1000000000\n")
    assert slots.local_hardware() == Hardware(cpus=1, gpus=unlimited.gpus, memory_bytes_per_cpu=1e9)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert slots.local_hardware() == unlimited


@pytest.mark.parametrize("name", builtin_names())
def test_every_builtin_space_can_be_planned_on_a_gpu_box(name: str, tmp_path: Path) -> None:
    space = load_space(name)
    made = plan_launch(space, LaunchOptions(open_storage(tmp_path), name, tmp_path), BOX)
    assert sum(len(pack.runs) for pack in made.packs) == len(made.runs)
    assert {(c["width"], c["samples"], c["noise_rate"]) for c in made.cells()} == {
        (run.width, run.samples, run.noise.rate) for run in made.runs
    }
