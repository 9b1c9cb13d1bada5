"""`recipe.shared_stream`: seeds that see one data stream, pack together, and differ in weights and noise alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from orchestrator.ledger import Ledger, Manifest
from orchestrator.plan import PlanError
from orchestrator.verify import verify
from search_spaces.catalog import SpaceError, load_space
from search_spaces.order import order_packs
from search_spaces.packs import group_packs
from search_spaces.runs import Run, expand
from tests.test_ledger import end
from tests.test_plan import ledger_of, plan
from tests.test_train import rows_by_run
from workers.data import ImageData
from workers.placement import Placement
from workers.train import train_pack

CPU = torch.device("cpu")
SHORT = (
    "widths=4",
    *("recipe.epochs=2", "noise.rates=[0, 0.4]", "evaluation.points=4", "recipe.batch_size=125", "samples=250"),
)
SHARED = "recipe.shared_stream=true"


def runs_of(*overrides: str) -> list[Run]:
    return expand(load_space("digits-grid", (*SHORT, "seeds=[3, 8]", *overrides)))


def test_it_is_part_of_identity_only_where_it_is_set() -> None:
    plain, unshared, shared = (
        [run.run_id for run in runs_of(*overrides)] for overrides in ((), ("recipe.shared_stream=false",), (SHARED,))
    )
    assert plain == unshared
    assert set(plain).isdisjoint(shared)
    assert len(set(shared)) == len(shared) == 4


def test_only_with_it_packs_hold_several_seeds() -> None:
    seeds = [{run.seed for run in pack.runs} for pack in group_packs(runs_of(), "auto")]
    assert seeds == [{3}, {8}]
    (pack,) = group_packs(runs_of(SHARED), "auto")
    assert [(run.seed, run.noise.rate) for run in pack.runs] == [(3, 0), (3, 0.4), (8, 0), (8, 0.4)]
    assert {run.stream_seed for run in pack.runs} == {0}


def test_the_first_of_its_seeds_says_when_a_pack_runs() -> None:
    runs = expand(load_space("digits-grid", ["widths=[2, 4]", "noise.rates=[0, 0.4]", "seeds=[3, 8]", SHARED]))
    packs = group_packs(runs, 3)
    ordered = order_packs(packs, runs, seconds=lambda pack: float(len(pack.runs)))
    assert [[run.seed for run in pack.runs] for pack in ordered] == [[3, 3, 8], [3, 3, 8], [8], [8]]


def test_gradient_flow_has_no_such_option() -> None:
    with pytest.raises(SpaceError, match="shared_stream: unknown key"):
        load_space("gmm-grid", [SHARED])


def test_a_sweep_does_not_turn_into_one_with_a_shared_stream(tmp_path: Path) -> None:
    ledger_of(tmp_path)
    with pytest.raises(PlanError, match=r"shared_stream.*--name"):
        plan(tmp_path, SHARED)


def test_verify_wants_one_subset_of_all_seeds_and_a_mask_of_each(tmp_path: Path) -> None:
    space = load_space("digits-grid", ["widths=[2, 4]", "noise.rates=[0.4]", "seeds=2", SHARED])
    ledger = Ledger(tmp_path / "sweep")
    ledger.write_manifest(Manifest("sweep", space, 1, "2026-01-01"))

    def differing(subset: str, mask: str) -> list[str]:
        """What is said of the ends whose hashes are these, with the run in the place of {}."""
        ends = [
            end(run, evaluations=1) | {"subset_hash": subset.format(run), "mask_hash": mask.format(run)}
            for run in expand(space)
        ]
        attempt = {"attempt": len(ledger.storage.list("ends")) + 1}
        ledger.write_ends(f"ends-{attempt['attempt']}", [each | attempt for each in ends])
        return [problem.partition(":")[0] for problem in verify(ledger).problems if "differ" in problem]

    assert differing("one", "{0.seed}") == []
    assert differing("{0.seed}", "{0.seed}") == ["subset_hash differs between runs of digits n=500 seed=0"]
    assert differing("one", "{0.width}") == [
        f"mask_hash differs between runs of digits n=500 seed={seed}, symmetric 0.4" for seed in (0, 1)
    ]


def test_seeds_share_subset_order_and_batches_but_not_noise(data_folder: Path) -> None:
    first, second = (run for run in runs_of(SHARED) if run.noise.rate)
    one, other = (ImageData(run, data_folder, CPU) for run in (first, second))
    np.testing.assert_array_equal(one.subset, other.subset)
    assert one.subset_hash == other.subset_hash
    for mine, theirs in zip(one.epoch(1), other.epoch(1), strict=True):
        assert torch.equal(mine.index, theirs.index)
        assert torch.equal(mine.inputs, theirs.inputs)
    given, given_other = one.given(first), one.given(second)
    assert given.mask_hash != given_other.mask_hash
    assert given.realised_rate == given_other.realised_rate == 0.4
    assert given_other.mask_hash == other.given(second).mask_hash, "whichever run stands for the pack"
    apart = ImageData(runs_of()[0], data_folder, CPU)
    assert apart.subset_hash != one.subset_hash


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("placement", [Placement(), Placement(engine="fused", fused=3)], ids=["sequential", "fused"])
def test_a_pack_of_two_seeds_gives_bitwise_what_each_run_alone_gives(placement: Placement, data_folder: Path) -> None:
    runs = runs_of(SHARED)
    packed = rows_by_run(list(train_pack(runs, data_folder, CPU, placement=placement)))
    for run in runs:
        alone = rows_by_run(list(train_pack([run], data_folder, CPU, placement=placement)))
        assert alone[run.run_id] == packed[run.run_id]
    errors = {packed[run.run_id][-1]["train_loss_given"] for run in runs}
    assert len(errors) == len(runs), "initialised apart"
