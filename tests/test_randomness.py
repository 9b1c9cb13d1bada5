"""Keyed randomness: the same number for the same (stream, seed, epoch, index), and numbers that look random."""

import numpy as np
from scipy import stats

from workers import randomness


def test_mix_is_splitmix64() -> None:
    """Vigna's reference sequence of SplitMix64 from seed 1234567 (also Rosetta Code's)."""
    steps = np.arange(1, 6, dtype=np.uint64) * np.uint64(randomness.GOLDEN)
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert randomness.mix(np.uint64(1234567) + steps).tolist() == expected


def test_the_scheme_is_as_documented_in_plain_integers() -> None:
    def plain_bits(stream: str, seed: int, index: int, epoch: int) -> int:
        word = 2**64 - 1
        z = (randomness.key(stream, seed, epoch=epoch) + 0x9E3779B97F4A7C15 * (index + 1)) & word
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & word
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & word
        return z ^ (z >> 31)

    indices = [0, 1, 7, 1_281_166, 2**40]
    drawn = randomness.bits("order", 3, indices, epoch=5)
    assert drawn.tolist() == [plain_bits("order", 3, index, 5) for index in indices]


def test_golden_values_never_change() -> None:
    """Published results depend on these numbers."""
    assert randomness.key("noise", 0) == 12905051435284662695
    assert randomness.bits("noise", 0, [0, 1]).tolist() == [
        7148337192062105492,
        15798262426301221860,
    ]
    assert randomness.torch_seed("init", 0) == 3733373570951065726


def test_a_number_depends_on_its_index_alone() -> None:
    everything = randomness.uniform("noise", 0, np.arange(1000))
    some = np.array([[999, 3], [3, 500]])
    np.testing.assert_array_equal(randomness.uniform("noise", 0, some), everything[some])
    assert randomness.uniform("noise", 0, 7) == everything[7]


def test_streams_seeds_and_epochs_are_unrelated() -> None:
    indices = np.arange(20_000)
    columns = [
        randomness.uniform(stream, seed, indices, epoch=epoch)
        for stream, seed, epoch in [
            ("noise", 0, 0),
            ("noise", 1, 0),
            ("noise", 0, 1),
            ("noise-target", 0, 0),
            ("noise", 10, 0),
        ]
    ]
    correlations = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlations).max() < 4 / np.sqrt(len(indices))
    for column in columns:
        assert column.min() >= 0
        assert column.max() < 1
        assert stats.kstest(column, "uniform").pvalue > 1e-3


def test_neighbouring_indices_are_unrelated() -> None:
    draws = randomness.uniform("noise", 0, np.arange(20_001))
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 4 / np.sqrt(20_000)


def test_order_is_a_permutation_that_ignores_arrangement_and_keeps_nested_sets_in_order() -> None:
    whole = randomness.order("order", 0, np.arange(1000), epoch=2)
    np.testing.assert_array_equal(np.sort(whole), np.arange(1000))
    np.testing.assert_array_equal(randomness.order("order", 0, np.arange(1000)[::-1], epoch=2), whole)
    subset = np.arange(0, 1000, 7)
    np.testing.assert_array_equal(randomness.order("order", 0, subset, epoch=2), whole[np.isin(whole, subset)])


def test_torch_seeds_fit_63_bits_and_differ() -> None:
    seeds = [randomness.torch_seed("init", seed) for seed in range(100)]
    assert len(set(seeds)) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)
