"""The benchmark of packs: its arithmetic by hand, ways that train what they say, and a figure. No speed is tested."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import cifar_loading, cold_start, pack_widths, packs
from benchmarks.measuring.cold import ColdStart
from benchmarks.measuring.epochs import Epoch
from benchmarks.measuring.figures import Figure, Goal
from benchmarks.measuring.launched import SlotSeconds
from benchmarks.measuring.pack_figure import draw
from benchmarks.measuring.pack_speed import Arrangement, Trained, train_for
from benchmarks.measuring.plain_tune import PlainSeconds
from benchmarks.measuring.table import document
from benchmarks.pack_widths import ALONE, NETWORKS, arrangements, space_of
from benchmarks.packs import A_FEW, Launched, Plain, Round, seeds_for
from search_spaces.catalog import load_space
from search_spaces.packs import group_packs
from search_spaces.runs import Run, expand
from search_spaces.schedule import evaluation_steps
from search_spaces.spec import Recipe


def launched(training: float, runs: int = 63) -> Launched:
    """Two slots that need 10 s to start and 4 s to wind up, and waste 2 s in between."""
    seconds = SlotSeconds(
        total=2 * 14 + 2 + training,
        start_up=20,
        training=training,
        training_cpu=training,
        committing=1,
        between=0.5,
        tail=0.5,
        winding_up=8,
    )
    return Launched(runs, 2, seconds)


def by_name(figures: list[Figure]) -> dict[str, Figure]:
    return {figure.what: figure for figure in figures}


def test_runs_an_hour_and_busy_shares_by_hand() -> None:
    """70 slot seconds of training in 100: 35 s on each slot from when workers were up, and 1 s lost between."""
    launch = launched(70.0)
    assert launch.hourly == 3600 * 63 / 50
    assert launch.hourly_once_up == 3600 * 63 / 40
    assert launch.busy == pytest.approx(70 / 72)
    assert launch.busy_in_all == pytest.approx(0.7)
    assert Plain(14, 2, PlainSeconds(total=180, once_up=168)).hourly == 600


def test_the_longer_launch_has_seeds_for_its_time() -> None:
    """72 slot seconds for three seeds are 12 s for each; 14 s go on the start and the end."""
    assert seeds_for(14 + 10 * 12, launched(70.0)) == 10
    assert seeds_for(0, launched(70.0)) == 1


def test_ratios_of_launches_and_plain_scripts_are_within_each_round() -> None:
    slow = Plain(14, 2, PlainSeconds(total=180, once_up=168))
    fast = Plain(14, 2, PlainSeconds(total=96, once_up=84))
    taken = Round(launched(70.0), launched(270.0), slow, fast)
    found = by_name(list(packs.figures([taken, taken], [launched(970.0, 900)])))
    assert found["packed / packing=off"].values == pytest.approx((3.0, 3.0))
    assert found["packed / plain Tune with stock FFCV"].values[0] == pytest.approx(4536 / 600)
    assert found["packed / plain Tune with tensors"].goal is None
    steady = found["busy share of the slots, 900 runs in 8.3 minutes, workers up"]
    assert steady.values == pytest.approx((970 / 972,))
    assert found["busy share of the slots, 900 runs in 8.3 minutes, start-up included"].values == pytest.approx((0.97,))
    assert steady.goal == Goal(0.95, is_least=True)


def test_what_the_plain_script_does_has_every_width_equally_often() -> None:
    grid, few = load_space("digits-grid"), load_space("digits-grid", A_FEW)
    assert few.widths == grid.widths
    assert len(expand(few)) == 2 * len(grid.widths or ())


def test_every_network_is_measured_with_all_sizes_of_packs_and_the_alternatives() -> None:
    ways = arrangements((2, 4), (4,))
    assert ways == [
        ALONE,
        Arrangement(2, "chosen"),
        Arrangement(4, "chosen"),
        *(Arrangement(4, fused) for fused in (1, 2, 4)),
        Arrangement(4, "vmap"),
    ]
    assert len({way.title for way in ways}) == len(ways)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.title)
def test_runs_that_are_measured_share_a_pack_and_are_evaluated_twice_at_least(network: pack_widths.Network) -> None:
    space = space_of(network, 4)
    runs = expand(space)
    assert len(runs) == 4
    assert len(group_packs(runs, "auto")) == 1
    assert runs[0].dataset.input_resolution == network.side
    assert isinstance(space.recipe, Recipe)
    assert len(evaluation_steps(space.recipe, space.evaluation, runs[0].samples)) >= 2


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    overrides = ("widths=[2]", "noise.rates=[0,0.2]", "seeds=1", "recipe.epochs=1", "evaluation.points=2")
    return expand(load_space("digits-grid", overrides))


@pytest.mark.parametrize(
    "way", [ALONE, Arrangement(2, "chosen"), Arrangement(2), Arrangement(2, 2), Arrangement(2, "vmap")], ids=str
)
def test_every_way_counts_the_samples_between_its_first_and_last_evaluation(
    way: Arrangement, runs: list[Run], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Of 8 steps of 64, the last of 52, the first comes before."""
    trained = train_for(way, runs, tmp_path_factory.getbasetemp() / "packs-data", 0.0)
    assert trained.samples == pytest.approx(way.models * (500 - 64))
    assert trained.wall > 0


def rounds(*rates: float) -> list[tuple[Trained, ...]]:
    """Of two processes that share a rate."""
    return [(Trained(rate / 2, 1.0, 1.0), Trained(rate / 2, 1.0, 1.0)) for rate in rates]


def taken_of(gain: float) -> dict[Arrangement, list[tuple[Trained, ...]]]:
    return {
        ALONE: rounds(10_000, 20_000),
        Arrangement(2, "chosen"): rounds(10_000 * gain, 20_000 * gain),
        Arrangement(8, "chosen"): rounds(20_000 * gain, 40_000 * gain),
        Arrangement(8, "vmap"): rounds(11_000, 22_000),
    }


def test_gains_are_against_one_model_a_process_and_small_packs_only_have_to_lose_nothing() -> None:
    found = by_name(list(pack_widths.figures(NETWORKS[0], taken_of(2.0), {2: 1, 8: 4})))
    assert found["8 x 8, width 2: one model a process"].values == pytest.approx((1200, 2400))
    small = found["8 x 8, width 2: packs of 2 (one after another) / one model a process"]
    large = found["8 x 8, width 2: packs of 8 (fused by 4) / one model a process"]
    assert (small.values, large.values) == ((2.0, 2.0), (4.0, 4.0))
    assert small.goal == Goal(0.97, is_least=True)
    assert large.goal == Goal(3.5, is_least=True)
    assert found[f"{large.what}, per CPU second"].values == (4.0, 4.0)
    vmap = found["8 x 8, width 2: packs of 8, vmap / one model a process"]
    assert vmap.goal is None
    assert vmap.values == pytest.approx((1.1, 1.1))
    assert pack_widths.gain(taken_of(2.0)) == 4.0


def test_runs_an_hour_are_drawn_by_width_from_the_json(tmp_path: Path) -> None:
    found = [
        figure
        for network in (NETWORKS[0], NETWORKS[1], NETWORKS[5])
        for figure in pack_widths.figures(network, taken_of(2.0), {2: 1, 8: 4})
    ]
    draw(document({}, {"Packs": found}, quick=True)["figures"], tmp_path / "packs.png")
    assert (tmp_path / "packs.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="pack_widths"):
        draw([], tmp_path / "none.png")


def test_cold_starts_and_cifar_loading_are_compared_round_by_round() -> None:
    starts = {
        (way, view): [ColdStart(loader, loader + 2), ColdStart(2 * loader, 2 * loader + 2)]
        for way, loader in (("ours", 0.5), ("bare FFCV", 8.0))
        for view in cold_start.VIEWS
    }
    found = by_name(list(cold_start.figures(starts)))
    assert found["32 px, raw: bare FFCV / ours"].values == (16.0, 16.0)
    assert found["160 px from JPEG: bare FFCV / ours, from the start of the process"].values == (4.0, 6.0)
    epochs = {"ours": [Epoch(100, 1.0, 2.0)], "bare FFCV": [Epoch(100, 3.0, 4.0)]}
    found = by_name(list(cifar_loading.figures(epochs)))
    assert found["ours / bare FFCV"].values == pytest.approx((3.0,))
    assert found["ours / bare FFCV, per CPU second"].values == (2.0,)
