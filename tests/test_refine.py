"""Refinement: cells go where the boundary is in doubt, from the ledger alone, within the budget, and come back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.analysis.observations import Observations, root
from orchestrator.analysis.surface import fit_surface, smooth
from orchestrator.budget import Budget
from orchestrator.launch import remember_space
from orchestrator.launch_plan import LaunchOptions, plan_launch
from orchestrator.ledger import Ledger, Manifest
from orchestrator.plan import keep_cells
from orchestrator.refine.band import boundary_rows
from orchestrator.refine.proposer import Key, Proposal, propose
from orchestrator.refine.rounds import outcomes_in, preview
from orchestrator.refine.target import Target, parse_target
from orchestrator.refine.texts import verdict_text
from orchestrator.storage import open_storage
from search_spaces.catalog import load_space
from search_spaces.cells import Cell
from search_spaces.packs import group_packs
from search_spaces.runs import Run, count_beside, expand, with_cells
from search_spaces.spec import SearchSpace
from tests.test_ledger import end, row
from tests.test_plan import LAPTOP
from workers.theory import boundary_ratio_finite, min_norm_error

SIGNAL, LEVEL = 10.0, 0.1
COARSE = ("ratios=[1.25, 4, 12, 32]", "noise.rates=[0, 0.15, 0.3]", "seeds=2", "evaluation.points=3")
TARGET = Target("err_last", LEVEL, precision=0.05, budget=64)


def gmm(*overrides: str) -> SearchSpace:
    return load_space("gmm-grid", (*COARSE, *overrides))


def mixture_error(run: Run, spread: float = 0.02) -> float:
    """The closed form, with what a seed adds to all cells alike and what it adds to each of them."""
    shared = random.Random(run.seed).gauss(0, spread)
    own = random.Random(str((*run.cell, run.seed))).gauss(0, spread / 4)
    return float((np.sqrt(min_norm_error(run.ratio, run.noise.rate, SIGNAL)) + shared + own) ** 2)


def outcomes_of(space: SearchSpace, error: Callable[[Run], float | None] = mixture_error) -> dict[Key, float | None]:
    return {(*run.cell, run.seed): error(run) for run in expand(space)}


def rounds(
    space: SearchSpace, target: Target, error: Callable[[Run], float | None] = mixture_error
) -> Iterator[tuple[SearchSpace, Proposal]]:
    """Every proposal with the space that it was made for; runs that did not come out stay as they are."""
    outcomes: dict[Key, float | None] = {}
    while True:
        outcomes = outcomes_of(space, error) | outcomes
        proposal = propose(space, outcomes, target)
        yield space, proposal
        if not proposal.cells:
            return
        space = with_cells(space, proposal.cells)


@pytest.fixture(scope="module")
def whole() -> list[tuple[SearchSpace, Proposal]]:
    """A search from beginning to end."""
    return list(rounds(gmm(), TARGET))


def test_cells_are_placed_along_a_level_set_that_is_known_and_find_it(
    whole: list[tuple[SearchSpace, Proposal]],
) -> None:
    space, last = whole[-1]
    placed = [cell for cell in space.cells if cell.noise_rate > 0.05]
    truth = boundary_ratio_finite([cell.noise_rate for cell in placed], LEVEL, SIGNAL)
    off = np.abs(np.log([cell.width / cell.samples for cell in placed]) - np.log(truth))
    seeds = np.array([len(cell.seeds) for cell in placed])
    assert seeds[off < 0.4].sum() > 0.7 * seeds.sum(), "most runs are spent near the boundary"
    assert count_beside(space) <= 64
    found = {row.noise_rate: row.inside["exit"] for row in last.rows if row.inside}
    assert len(found) >= 5
    for rate, edge in found.items():
        true = float(np.log(boundary_ratio_finite(rate, LEVEL, SIGNAL)))
        assert abs(edge.log_ratio - true) < max(0.1, 2 * edge.half_width)


def test_a_batch_holds_nothing_twice_and_nothing_that_is_planned(whole: list[tuple[SearchSpace, Proposal]]) -> None:
    for space, proposal in whole:
        new = [(*cell.point, seed) for cell in proposal.cells for seed in cell.seeds]
        assert len(set(new)) == len(new)
        assert set(new).isdisjoint((*run.cell, run.seed) for run in expand(space))
        assert {cell.samples for cell in proposal.cells} <= {200}
        assert all(0 <= cell.noise_rate <= 0.3 and 250 <= cell.width <= 6400 for cell in proposal.cells)


def test_seeds_are_added_where_their_spread_is_what_is_in_doubt() -> None:
    fine = gmm("ratios=[1.25, 1.6, 2, 2.5, 3.2, 4, 5, 6.4, 8, 10, 12.5, 16]", "noise.rates=[0.1, 0.15, 0.2, 0.25, 0.3]")
    noisy = propose(fine, outcomes_of(fine, lambda run: mixture_error(run, 0.05)), TARGET)
    grid = {run.cell for run in expand(fine)}
    more = [cell for cell in noisy.cells if cell.point in grid]
    assert all(min(cell.seeds) >= 2 for cell in more)
    assert sum(len(cell.seeds) for cell in more) > 0.7 * sum(len(cell.seeds) for cell in noisy.cells)
    truth = boundary_ratio_finite([cell.noise_rate for cell in more], LEVEL, SIGNAL)
    assert np.abs(np.log([cell.width / 200 for cell in more] / truth)).max() < 0.5
    quiet = propose(gmm(), outcomes_of(gmm(), lambda run: mixture_error(run, 0.001)), TARGET)
    assert quiet.cells
    assert not any(cell.point in {run.cell for run in expand(gmm())} for cell in quiet.cells)


def test_with_one_seed_nothing_is_found_before_the_spread_over_seeds_is_known() -> None:
    space = gmm("seeds=[3]", "ratios=[1.25, 1.6, 2, 2.5, 3.2, 4, 5, 6.4, 8, 10, 12.5, 16]")
    proposal = propose(space, outcomes_of(space, lambda run: mixture_error(run, 0)), replace(TARGET, precision=0.5))
    assert proposal.state == "searching"
    assert {seed for cell in proposal.cells for seed in cell.seeds} == {3, 0}


def test_the_same_runs_in_any_order_give_the_same_batch() -> None:
    space = gmm()
    outcomes = outcomes_of(space)
    first = propose(space, outcomes, TARGET)
    shuffled = list(outcomes.items())
    random.Random(0).shuffle(shuffled)
    assert propose(space, dict(shuffled), TARGET) == first


@pytest.mark.parametrize(
    ("metric", "level", "budget"), [("err_last", 0.1, 1), ("err_last", 0.1, 13), ("noise_cost", 0.1, 11)]
)
def test_the_budget_is_never_exceeded_and_twins_count(metric: str, level: float, budget: int) -> None:
    target = Target(metric, level, precision=0.001, budget=budget)
    *_, (space, last) = rounds(gmm(), target)
    assert budget - 1 <= count_beside(space) <= budget
    assert last.state in ("spent", "exhausted")
    if metric == "noise_cost":
        planned = {(*run.cell, run.seed) for run in expand(space)}
        assert all((0.0, *key[1:]) in planned for key in planned)
        assert any(cell.noise_rate > 0 for cell in space.cells)


def test_runs_that_fail_do_not_make_it_go_round_in_circles() -> None:
    grid = {run.cell for run in expand(gmm())}
    seen: set[Key] = set()
    for _, proposal in rounds(
        gmm(), replace(TARGET, budget=40), lambda run: mixture_error(run) if run.cell in grid else None
    ):
        new = {(*cell.point, seed) for cell in proposal.cells for seed in cell.seeds}
        assert seen.isdisjoint(new)
        seen |= new
    assert 0 < len(seen) <= 40
    with pytest.raises(ValueError, match=r"0 cells of the grid are measured; a boundary needs at least 4"):
        propose(gmm(), outcomes_of(gmm(), lambda run: None), TARGET)


@pytest.mark.parametrize(("level", "where"), [(0.9, "below"), (-0.5, "above")])
def test_a_boundary_that_is_not_inside_the_measured_ratios_ends_the_search(level: float, where: str) -> None:
    target = replace(TARGET, level=level)
    proposal = propose(gmm(), outcomes_of(gmm()), target)
    assert (proposal.state, proposal.cells) == ("outside", ())
    assert f"err_last is {where} the level everywhere" in verdict_text(target, proposal, 0)


# -- the surface --------------------------------------------------------------------------------------------------


def test_cells_of_the_same_seeds_are_not_as_many_independent_runs() -> None:
    runs = [run for run in expand(gmm("seeds=4", "noise.rates=[0.15, 0.3]")) if run.ratio > 1.3]
    logs, rates = [np.log(run.ratio) for run in runs], [run.noise.rate for run in runs]
    errors = [mixture_error(run, 0.05) for run in runs]
    widths = []
    for seeds in ([run.seed for run in runs], list(range(len(runs)))):
        surface = fit_surface(Observations.of(logs, rates, seeds, errors))
        (found,) = boundary_rows(surface, np.array([0.15]), (np.log(1.25), np.log(32)), float(root(LEVEL)))
        widths.append(found.inside["exit"].half_width)
    together, apart = widths
    assert together > 0.02
    assert together != apart


def test_doubt_shrinks_where_a_run_is_believed_in_and_the_mean_stays() -> None:
    runs = expand(gmm())
    surface = fit_surface(
        Observations.of(
            [np.log(run.ratio) for run in runs],
            [run.noise.rate for run in runs],
            [run.seed for run in runs],
            [mixture_error(run) for run in runs],
        )
    )
    points = np.array([[np.log(7.0), 0.22], [np.log(30.0), 0.0]])
    mean, doubt = surface.mean_and_doubt(points)
    after_mean, after = surface.believing(points[0], 5, surface.usual_noise).mean_and_doubt(points)
    np.testing.assert_allclose(after_mean, mean, atol=1e-6)
    assert after[0] < 0.7 * doubt[0]
    assert after[1] <= doubt[1] + 1e-9
    gain = surface.gains(points[0], points[:1], np.array([5]), np.array([surface.usual_noise]))[0]
    assert doubt[0] ** 2 - gain == pytest.approx(after[0] ** 2, rel=1e-4)
    assert (surface.doubt_between_cells(points) <= doubt + 1e-9).all()


def test_of_too_many_runs_those_far_from_the_level_count_by_their_cells_means() -> None:
    runs = expand(gmm("seeds=8"))
    errors = [mixture_error(run) for run in runs]
    every = Observations.of(
        [np.log(r.ratio) for r in runs], [r.noise.rate for r in runs], [r.seed for r in runs], errors
    )
    some = every.thinned(60, float(root(LEVEL)))
    assert 50 <= len(some.values) <= 60
    at = np.array([[np.log(3.0), 0.15], [np.log(13.0), 0.3], [np.log(30.0), 0.0]])
    (mean, _), (thin, _) = fit_surface(every).mean_and_doubt(at), fit_surface(some).mean_and_doubt(at)
    np.testing.assert_allclose(thin, mean, atol=0.02)
    assert every.thinned(96, 0.0) is every


def test_the_smoother_of_cell_means_recovers_a_known_curve_and_is_linear() -> None:
    logs, rates = np.meshgrid(np.log(np.geomspace(1.25, 32, 9)), [0.1, 0.2, 0.3])
    points = np.column_stack([logs.ravel(), rates.ravel()])
    means = min_norm_error(np.exp(points[:, 0]), points[:, 1], SIGNAL)
    grid = np.linspace(np.log(1.5), np.log(24), 50)
    (curves,) = smooth(points, np.column_stack([means, means * 4, means * 0]), np.array([0.2]), [grid])
    np.testing.assert_allclose(curves[:, 0], root(min_norm_error(np.exp(grid), 0.2, SIGNAL)), atol=0.02)
    both, nothing = curves[:, 1], curves[:, 2]
    np.testing.assert_allclose(both - nothing, 2 * (curves[:, 0] - nothing), atol=1e-6)


# -- the target and the budgets -----------------------------------------------------------------------------------


def test_a_target_is_read_with_the_levels_of_the_space() -> None:
    space = gmm()
    assert parse_target("err_last", space) == Target("err_last", 0.1, 0.05, budget=24)
    assert parse_target("gap_err=0.02", space, budget=7, precision=0.1) == Target("gap_err", 0.02, 0.1, 7)
    assert parse_target("noise_cost", space).level == space.analysis.tau_cost
    with pytest.raises(ValueError, match=r"unknown metric 'err'.*--budget 0.*") as caught:
        parse_target("err=0.1", space, budget=0, precision=-1)
    assert "--precision -1" in str(caught.value)
    with pytest.raises(ValueError, match="clean twins"):
        parse_target("noise_cost=0.05", gmm("noise.rates=[0.1, 0.3]"))


def test_caps_of_a_launch_hold_over_all_its_rounds() -> None:
    budget = Budget(gpu_hours=1.0, wall_seconds=100.0, runs=10)
    packs = group_packs(expand(gmm()), "auto")
    spent = budget.after(runs=8, wall_seconds=40.0, gpu_seconds=1800.0)
    assert sum(len(pack.runs) for pack in spent.admit(packs)) == 2
    assert spent.exhausted is None
    assert spent.spent(wall_seconds=59.0, gpu_seconds=1700.0) is None
    assert spent.spent(wall_seconds=61.0, gpu_seconds=0.0) == "101 of 100 seconds of wall time are spent"
    assert spent.spent(wall_seconds=0.0, gpu_seconds=1800.0) == "1.00 of 1 GPU-hours are spent"
    assert spent.after(runs=2, wall_seconds=50.0, gpu_seconds=0.0).exhausted == "10 runs were allowed"


# -- the ledger ---------------------------------------------------------------------------------------------------


def settle(ledger: Ledger, *runs: Run) -> None:
    """Rows and ends as a worker writes them."""
    ledger.add_runs(runs, "width", 1)
    stem = f"settled-by-test-{len(ledger.storage.list('ends'))}"
    ledger.write_rows(stem, [row(run, 0, mixture_error(run)) for run in runs])
    ledger.write_ends(stem, [end(run, "done", 1) for run in runs])


def sweep_at(folder: Path, space: SearchSpace) -> Ledger:
    ledger = Ledger(folder / "sweep")
    ledger.write_manifest(Manifest("sweep", space, 1, "2026-01-01"))
    settle(ledger, *expand(space))
    return ledger


def next_batch(ledger: Ledger) -> Proposal:
    space = ledger.manifest().space
    return propose(space, outcomes_in(ledger, space, "err_last"), TARGET)


def test_after_a_kill_the_same_batch_is_finished_and_the_next_one_is_the_same(tmp_path: Path) -> None:
    space = gmm()
    ledger = sweep_at(tmp_path, space)
    batch = next_batch(ledger)
    remember_space(ledger, with_cells(space, batch.cells))  # the batch is in the manifest, and then comes the kill
    beside = expand(ledger.manifest().space)[-count_beside(ledger.manifest().space) :]
    settle(ledger, *beside[:3])
    options = LaunchOptions(open_storage(tmp_path), "sweep", tmp_path)
    plan = plan_launch(space, options, LAPTOP)  # with and without --refine
    assert {run.run_id for pack in plan.packs for run in pack.runs} == {run.run_id for run in beside[3:]}
    assert preview(space, options, TARGET)[1] is None
    settle(ledger, *reversed(beside[3:]))
    undisturbed = propose(with_cells(space, batch.cells), outcomes_of(with_cells(space, batch.cells)), TARGET)
    assert next_batch(ledger) == undisturbed
    plan, proposal = preview(space, options, TARGET)
    assert proposal == undisturbed
    assert sum(len(pack.runs) for pack in plan.packs) == sum(len(cell.seeds) for cell in undisturbed.cells)


def test_a_sweep_keeps_its_cells_until_its_grid_grows_over_them(tmp_path: Path) -> None:
    cell = Cell(noise_rate=0.1, width=500, samples=200, seeds=(0, 1))
    seed = Cell(noise_rate=0.3, width=800, samples=200, seeds=(5,))
    ledger = sweep_at(tmp_path, with_cells(gmm(), (cell, seed)))
    assert keep_cells(gmm(), ledger).cells == (cell, seed)
    assert keep_cells(gmm("seeds=6"), ledger).cells == (cell,)
    assert keep_cells(gmm("seeds=6", "ratios=[1.25, 2.5, 12]", "noise.rates=[0, 0.1]"), ledger).cells == (seed,)
    assert keep_cells(gmm("samples=100"), ledger).cells == (), "of another n"
    (tmp_path / "sweep" / "sweep.json").write_text("{")
    assert keep_cells(gmm(), ledger).cells == (cell, seed), "a damaged manifest does not take them along"


def test_cells_beside_the_grid_run_after_it_and_share_packs(tmp_path: Path) -> None:
    cells = (
        Cell(noise_rate=0.1, width=800, samples=200, seeds=(0,)),
        Cell(noise_rate=0.2, width=900, samples=200, seeds=(0, 9)),
    )
    plan = plan_launch(with_cells(gmm(), cells), LaunchOptions(open_storage(tmp_path), "sweep", tmp_path), LAPTOP)
    shared = [pack for pack in plan.packs if any(run.noise.rate == 0.1 for run in pack.runs)]
    assert [len(pack.runs) for pack in shared] == [4], "with the three rates of the grid at its width and seed"
    assert [pack.runs[0].width for pack in plan.packs[-2:]] == [900, 900]
    assert {pack.runs[0].seed for pack in plan.packs[-2:]} == {0, 9}


# -- Ray Tune and the command -------------------------------------------------------------------------------------


def closed_form(config: Mapping[str, Any]) -> dict[str, float]:
    """A trainable: the closed form at the config's point."""
    from workers.theory import min_norm_error

    ratio = config["width"] / config["samples"]
    return {"err_last": float(min_norm_error(ratio, config["noise_rate"], 10.0))}


def test_a_searcher_that_was_saved_goes_on_where_it_was(tmp_path: Path) -> None:
    from orchestrator.refine.searcher import CONFIG, LevelSetSearcher

    def ask(searcher: LevelSetSearcher, count: int) -> list[Any]:
        configs: list[Any] = []
        for _ in range(count):
            config = searcher.suggest(trial_id := f"trial-{len(configs)}-{count}")
            configs.append(config)
            if isinstance(config, dict):
                searcher.on_trial_complete(trial_id, closed_form(config))
        return configs

    target = replace(TARGET, precision=0.001, budget=12)
    straight = LevelSetSearcher(gmm(), target)
    whole = ask(straight, 40)
    assert whole[-1] == "FINISHED"
    assert len({tuple(config.values()) for config in whole if isinstance(config, dict)}) == 36
    assert tuple(whole[0]) == CONFIG
    halfway = LevelSetSearcher(gmm(), target)
    before = ask(halfway, 28)
    halfway.save(str(tmp_path / "state"))
    resumed = LevelSetSearcher(gmm(), target)
    resumed.restore(str(tmp_path / "state"))
    assert before + ask(resumed, 12) == whole
    waiting = LevelSetSearcher(gmm(), target)
    handed = [waiting.suggest(f"trial-{number}") for number in range(25)]
    assert handed[24] is None, "a batch is placed once all runs before it have ended"
    for number in range(24):
        waiting.on_trial_complete(f"trial-{number}", error=True)
    with pytest.raises(ValueError, match="0 cells of the grid are measured"):
        waiting.suggest("trial-25")
