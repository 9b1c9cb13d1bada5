"""Subsets: nested, stratified at every size however skewed the classes, fixed by (dataset, seed)."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.subsets import digest, split_evaluation, stratified_subset


def largest_deviation(labels: np.ndarray, permutation: np.ndarray) -> float:
    """The largest |count_c(n) - n N_c / N| over every class c and every prefix n."""
    counts = np.bincount(labels)
    held = np.cumsum(np.eye(len(counts))[labels[permutation]], axis=0)
    proportional = np.arange(1, len(permutation) + 1)[:, None] * counts / len(labels)
    return float(np.abs(held - proportional).max())


@settings(max_examples=150, deadline=None)
@given(
    counts=st.lists(st.one_of(st.integers(0, 3), st.integers(0, 60)), min_size=1, max_size=25).filter(sum),
    seed=st.integers(0, 5),
)
def test_every_prefix_is_within_one_of_proportional_for_any_class_counts(counts: list[int], seed: int) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    permutation = stratified_subset(labels, len(labels), dataset="toy", seed=seed)
    np.testing.assert_array_equal(np.sort(permutation), np.arange(len(labels)))
    assert largest_deviation(labels, permutation) < 1


def test_the_obvious_method_fails_where_this_one_holds() -> None:
    """One class of 1,000 beside ten of a single example each: why subsets.py schedules by deadline."""
    labels = np.repeat(np.arange(11), [1000] + [1] * 10)
    counts = np.bincount(labels)
    rank = np.concatenate([np.arange(count) for count in counts])
    assert largest_deviation(labels, np.argsort((rank + 0.5) / counts[labels], kind="stable")) > 4
    assert largest_deviation(labels, stratified_subset(labels, len(labels), dataset="toy", seed=0)) < 1


def test_subsets_are_nested_prefixes() -> None:
    labels = np.random.default_rng(0).integers(0, 10, 1437)
    whole = stratified_subset(labels, 1437, dataset="digits", seed=3)
    for samples in (1, 9, 10, 500, 1436):
        np.testing.assert_array_equal(stratified_subset(labels, samples, dataset="digits", seed=3), whole[:samples])


def test_subsets_differ_between_seeds_and_datasets_and_within_a_class() -> None:
    labels = np.arange(1000) % 10
    first = stratified_subset(labels, 200, dataset="digits", seed=0)
    assert set(first) != set(stratified_subset(labels, 200, dataset="digits", seed=1))
    assert set(first) != set(stratified_subset(labels, 200, dataset="cifar10", seed=0))
    assert np.all(np.bincount(labels[first]) == 20)


def test_no_class_is_favoured_when_samples_is_not_a_multiple_of_the_classes() -> None:
    labels = np.arange(100) % 10
    first_classes = [labels[stratified_subset(labels, 1, dataset="digits", seed=seed)[0]] for seed in range(300)]
    assert np.bincount(first_classes, minlength=10).min() > 10  # 30 expected


def test_imagenet_takes_seconds_at_most() -> None:
    counts = np.random.default_rng(0).integers(732, 1301, 1000)
    counts += (1_281_167 - counts.sum()) // 1000
    labels = np.repeat(np.arange(1000), counts)
    start = time.process_time()
    subset = stratified_subset(labels, len(labels), dataset="imagenet", seed=0)
    assert time.process_time() - start < 10  # about 2 s of a core, however busy the machine is
    assert len(np.unique(subset)) == len(labels)


def test_the_evaluation_split_is_a_fixed_stratified_partition() -> None:
    labels = np.random.default_rng(0).integers(0, 10, 1097)
    validation, test = split_evaluation(labels, 300, dataset="digits")
    np.testing.assert_array_equal(np.sort(np.concatenate([validation, test])), np.arange(1097))
    assert len(validation) == 300
    assert np.all(np.diff(validation) > 0)
    assert np.all(np.diff(test) > 0)
    assert np.abs(np.bincount(labels[validation]) - 300 * np.bincount(labels) / 1097).max() < 1
    none, everything = split_evaluation(labels, 0, dataset="digits")
    assert len(none) == 0
    assert len(everything) == 1097


def test_digests_name_values_not_their_storage() -> None:
    indices = np.array([3, 1, 2])
    assert digest(indices) == "7c4cec7a82e1aa57"  # golden: results in a ledger depend on it
    assert digest(indices.astype(">i4")) == digest(indices.astype(np.uint16)) == digest(indices)
    assert digest(indices[::-1]) != digest(indices)
    assert len({digest(np.array([True, False])), digest(np.array([False, True])), digest(np.array([1, 0]))}) == 3


def test_impossible_requests_are_refused_with_what_is_allowed() -> None:
    labels = np.arange(100) % 10
    for samples in (0, 101):
        with pytest.raises(ValueError, match="choose between 1 and 100"):
            stratified_subset(labels, samples, dataset="digits", seed=0)
    with pytest.raises(ValueError, match="choose between 0 and 99"):
        split_evaluation(labels, 100, dataset="digits")
    with pytest.raises(ValueError, match="pass integers"):
        digest(np.array([0.5]))
