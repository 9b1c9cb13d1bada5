"""Label noise: exact counts, never the true label, nested in the rate, shared across subsets, widths and processes."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from scipy import stats

from search_spaces.spec import Noise
from workers import subsets
from workers.noise import flip_count, given_labels

CLASSES = 10
POOL = np.random.default_rng(0).integers(0, CLASSES, 5000)
SUBSET = subsets.stratified_subset(POOL, 2000, dataset="cifar10", seed=0)
TRUE = POOL[SUBSET]
RATES = (0.05, 0.1, 0.2, 0.4)

PAIRWISE = np.eye(CLASSES) * 0.7 + np.roll(np.eye(CLASSES), 1, axis=1) * 0.3
LOPSIDED = np.random.default_rng(1).dirichlet(np.full(CLASSES, 0.5), CLASSES) * 0.3 + np.eye(CLASSES) * 0.7


def noisy(noise: Noise, subset: np.ndarray = SUBSET, *, seed: int = 0, pool: np.ndarray = POOL) -> np.ndarray:
    return given_labels(noise, pool, subset, classes=CLASSES, dataset="cifar10", seed=seed)


def as_tuples(matrix: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in (matrix / matrix.sum(axis=1, keepdims=True)).tolist())


@pytest.fixture
def label_file(tmp_path: Path) -> Path:
    """Labels as people give them: wrong in about half of the examples."""
    people = np.random.default_rng(2)
    wrong = people.random(len(POOL)) < 0.5
    np.save(
        tmp_path / "labels.npy",
        np.where(wrong, (POOL + people.integers(1, CLASSES, len(POOL))) % CLASSES, POOL),
    )
    return tmp_path / "labels.npy"


@pytest.fixture(params=["symmetric", "pair", "asym", "matrix", "file"])
def shape(request: pytest.FixtureRequest, label_file: Path) -> dict[str, Any]:
    """Every model that always gives a wrong label, as arguments of Noise."""
    extra: dict[str, dict[str, Any]] = {
        "matrix": {"matrix": as_tuples(LOPSIDED)},
        "file": {"file": str(label_file)},
    }
    return {"model": request.param, **extra.get(request.param, {})}


# What holds for every model (acceptance check 2)


def test_exactly_the_stated_number_of_labels_is_wrong(shape: dict[str, Any]) -> None:
    for rate in (0.0, *RATES):
        wrong = noisy(Noise(rate=rate, **shape)) != TRUE
        assert wrong.sum() == flip_count(rate, len(SUBSET)) == round(rate * len(SUBSET))


def test_masks_are_nested_in_the_rate_and_wrong_labels_stay_the_same(shape: dict[str, Any]) -> None:
    lower = noisy(Noise(rate=RATES[0], **shape))
    for rate in RATES[1:]:
        higher = noisy(Noise(rate=rate, **shape))
        flipped = lower != TRUE
        np.testing.assert_array_equal(higher[flipped], lower[flipped])
        lower = higher


def test_the_arrangement_of_the_subset_does_not_matter(shape: dict[str, Any]) -> None:
    noise = Noise(rate=0.2, **shape)
    np.testing.assert_array_equal(noisy(noise, SUBSET[::-1]), noisy(noise)[::-1])


def test_flips_in_a_smaller_subset_agree_with_those_in_a_larger_one(shape: dict[str, Any]) -> None:
    """Same wrong label wherever both flip; and nearly the same examples, as u / s orders both."""
    noise = Noise(rate=0.2, **shape)
    small, large = noisy(noise, SUBSET[:1000]), noisy(noise)[:1000]
    both = (small != TRUE[:1000]) & (large != TRUE[:1000])
    np.testing.assert_array_equal(small[both], large[both])
    assert both.sum() > 0.85 * 200


def test_bernoulli_flips_share_their_numbers_with_exact_ones(shape: dict[str, Any]) -> None:
    exact = noisy(Noise(rate=0.2, **shape))
    bernoulli = noisy(Noise(rate=0.2, flips="bernoulli", **shape))
    assert abs((bernoulli != TRUE).mean() - 0.2) < 4 * np.sqrt(0.2 * 0.8 / len(TRUE))
    both = (exact != TRUE) & (bernoulli != TRUE)
    np.testing.assert_array_equal(exact[both], bernoulli[both])
    assert both.sum() == min((exact != TRUE).sum(), (bernoulli != TRUE).sum())


def test_another_seed_or_data_set_flips_other_examples() -> None:
    noise = Noise(rate=0.2)
    mask = noisy(noise) != TRUE
    others = [
        noisy(noise, seed=1),
        given_labels(noise, POOL, SUBSET, classes=CLASSES, dataset="digits", seed=0),
    ]
    for other in others:
        assert abs((mask & (other != TRUE)).sum() - 80) < 4 * np.sqrt(80)  # chance overlap: 0.2 * 0.2 * 2000


def test_another_process_gives_the_same_labels() -> None:
    program = (
        "import numpy as np; from search_spaces.spec import Noise; from workers import subsets; "
        "from workers.noise import given_labels; pool = np.random.default_rng(0).integers(0, 10, 5000); "
        "subset = subsets.stratified_subset(pool, 2000, dataset='cifar10', seed=0); "
        "print(subsets.digest(given_labels(Noise(rate=0.2), pool, subset, classes=10, dataset='cifar10', seed=0)))"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == subsets.digest(noisy(Noise(rate=0.2)))


def test_golden_hash_never_changes() -> None:
    """Published results depend on these labels."""
    assert subsets.digest(SUBSET) == "b875f4045d3e2757"
    assert subsets.digest(noisy(Noise(rate=0.2))) == "ef39054288705051"
    assert subsets.digest(noisy(Noise(rate=0.2)) != TRUE) == "759e959c24b6cfd0"


# Each model's distribution


def test_symmetric_wrong_labels_are_uniform_over_the_other_classes() -> None:
    labels = noisy(Noise(rate=0.4))
    offsets = np.bincount((labels - TRUE)[labels != TRUE] % CLASSES, minlength=CLASSES)
    assert offsets[0] == 0
    assert stats.chisquare(offsets[1:]).pvalue > 0.001


def test_symmetric_incl_keeps_some_labels_and_says_so_in_its_realised_rate() -> None:
    """The trap of published code: nominal 40 % is 36 % with ten classes."""
    labels = noisy(Noise(model="symmetric_incl", rate=0.4))
    expected, spread = 0.4 * 0.9, np.sqrt(0.4 * 0.9 * 0.1 / len(TRUE))
    assert abs((labels != TRUE).mean() - expected) < 4 * spread
    assert (labels != TRUE).mean() < 0.4


def test_pair_moves_to_the_next_class() -> None:
    labels = noisy(Noise(model="pair", rate=0.4))
    np.testing.assert_array_equal(np.unique((labels - TRUE) % CLASSES), [0, 1])


def test_asym_confuses_look_alikes_and_counts_all_used_examples() -> None:
    labels = noisy(Noise(model="asym", rate=0.2))
    wrong = labels != TRUE
    pairs = set(zip(TRUE[wrong].tolist(), labels[wrong].tolist(), strict=True))
    assert pairs == {(9, 1), (2, 0), (4, 7), (3, 5), (5, 3)}
    assert wrong.mean() == 0.2  # 40 % of the five classes that can flip
    assert abs(wrong[np.isin(TRUE, [2, 3, 4, 5, 9])].mean() - 0.4) < 0.02


@pytest.mark.parametrize("flips", ["exact", "bernoulli"])
@pytest.mark.parametrize("matrix", [PAIRWISE, LOPSIDED], ids=["pairwise", "lopsided"])
def test_matrix_noise_at_its_own_rate_is_the_matrix(matrix: np.ndarray, flips: Literal["exact", "bernoulli"]) -> None:
    """Chi-square of the given labels in each true class against its row; 20,000 examples."""
    transition = np.array(as_tuples(matrix))
    pool = np.arange(20_000) % CLASSES
    rate = 1 - np.diag(transition).mean()
    labels = noisy(
        Noise(model="matrix", matrix=as_tuples(matrix), rate=rate, flips=flips), np.arange(20_000), pool=pool
    )
    statistic = freedom = 0.0
    for label, row in enumerate(transition):
        counts = np.bincount(labels[pool == label], minlength=CLASSES)
        possible = row > 0
        assert counts[~possible].sum() == 0
        expected = 2000 * row[possible]
        statistic += ((counts[possible] - expected) ** 2 / expected).sum()
        freedom += possible.sum() - 1
    assert stats.chi2.sf(statistic, freedom) > 0.001


def test_matrix_noise_scales_with_the_rate() -> None:
    """Half the rate halves every off-diagonal entry."""
    pool = np.arange(20_000) % CLASSES
    rate = 1 - np.diag(np.array(as_tuples(LOPSIDED))).mean()
    noise = [Noise(model="matrix", matrix=as_tuples(LOPSIDED), rate=r) for r in (rate / 2, rate)]
    half, full = (noisy(each, np.arange(20_000), pool=pool) != pool for each in noise)
    per_class = [np.bincount(pool[mask], minlength=CLASSES) for mask in (half, full)]
    np.testing.assert_allclose(per_class[0] / per_class[1], 0.5, atol=0.08)


# Traps


def test_the_realised_rate_does_not_drift_in_small_subsets() -> None:
    """Noise drawn before subsampling would give 20 examples at rate 0.2 anything from none to nine flips."""
    for seed in range(20):
        subset = subsets.stratified_subset(POOL, 20, dataset="cifar10", seed=seed)
        assert (noisy(Noise(rate=0.2), subset, seed=seed) != POOL[subset]).sum() == 4


def test_halves_round_up() -> None:
    """Python's round would go to even: 0.5 -> 0, 1.5 -> 2, 2.5 -> 2."""
    assert [flip_count(0.5, samples) for samples in (1, 3, 5)] == [1, 2, 3]


def test_two_classes_swap() -> None:
    labels = given_labels(
        Noise(rate=0.25), np.arange(8) % 2, np.arange(8), classes=2, dataset="gaussian-mixture", seed=0
    )
    assert (labels != np.arange(8) % 2).sum() == 2


def test_rates_out_of_reach_are_refused_with_the_largest_possible_one() -> None:
    half_asym = np.isin(TRUE, [2, 3, 4, 5, 9]).mean()
    kinds: tuple[Literal["exact", "bernoulli"], ...] = ("exact", "bernoulli")
    for flips in kinds:
        with pytest.raises(ValueError, match=f"largest possible rate is {half_asym:.6g}"):
            noisy(Noise(model="asym", rate=0.6, flips=flips))
    only_class_zero = np.eye(CLASSES)
    only_class_zero[0, :2] = 0.5
    with pytest.raises(ValueError, match=f"largest possible rate is {(TRUE == 0).mean():.6g}"):
        noisy(Noise(model="matrix", matrix=as_tuples(only_class_zero), rate=0.3))


def test_models_that_do_not_fit_the_data_set_are_refused() -> None:
    with pytest.raises(ValueError, match="cifar10 only"):
        given_labels(Noise(model="asym", rate=0.2), POOL, SUBSET, classes=CLASSES, dataset="digits", seed=0)
    with pytest.raises(ValueError, match="10 classes need"):
        noisy(Noise(model="matrix", matrix=as_tuples(np.eye(3)), rate=0.2))


# Label files


def test_the_whole_file_can_be_used_as_it_is(label_file: Path) -> None:
    labels = noisy(Noise(model="file", file=str(label_file), whole_file=True, rate=0.5))
    np.testing.assert_array_equal(labels, np.load(label_file)[SUBSET])


def test_a_lower_rate_uses_some_of_the_files_mistakes(label_file: Path) -> None:
    labels = noisy(Noise(model="file", file=str(label_file), rate=0.1))
    wrong = labels != TRUE
    assert wrong.sum() == 200
    np.testing.assert_array_equal(labels[wrong], np.load(label_file)[SUBSET][wrong])
    with pytest.raises(ValueError, match="largest possible rate"):
        noisy(Noise(model="file", file=str(label_file), rate=0.9))


@pytest.mark.parametrize("suffix", ["npz", "txt", "csv"])
def test_all_formats_hold_the_same_labels(label_file: Path, suffix: str) -> None:
    labels, other = np.load(label_file), label_file.with_suffix(f".{suffix}")
    if suffix == "npz":
        np.savez(other, worse_label=labels, random_label1=POOL)
    else:
        other.write_text("\n".join(map(str, labels)) + "\n")
    noise = Noise(model="file", file=str(other), file_key="worse_label" if suffix == "npz" else None, rate=0.3)
    np.testing.assert_array_equal(noisy(noise), noisy(Noise(model="file", file=str(label_file), rate=0.3)))


def save_like_cifar_n(path: Path, clean: np.ndarray) -> dict[str, np.ndarray]:
    people = np.random.default_rng(3)
    content = {"clean_label": clean}
    for name in ("aggre_label", "worse_label", "random_label1", "random_label2", "random_label3"):
        content[name] = np.where(people.random(len(clean)) < 0.4, people.integers(0, CLASSES, len(clean)), clean)
    torch.save(content, path)
    return content


def test_cifar_n_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "CIFAR-10_human.pt"
    content = save_like_cifar_n(path, POOL)
    for name in ("aggre_label", "worse_label", "random_label1", "random_label2", "random_label3"):
        noise = Noise(model="file", file=str(path), file_key=name, whole_file=True, rate=0.4)
        np.testing.assert_array_equal(noisy(noise), content[name][SUBSET])
    with pytest.raises(ValueError, match=r"set noise\.file_key to one of aggre_label, random_label1"):
        noisy(Noise(model="file", file=str(path), rate=0.1))
    with pytest.raises(ValueError, match="no labels called 'worst'"):
        noisy(Noise(model="file", file=str(path), file_key="worst", rate=0.1))


def test_cifar_n_files_saved_under_older_numpy_are_read(tmp_path: Path) -> None:
    """NumPy 1 pickled arrays as numpy.core.multiarray, which NumPy 2 calls numpy._core.multiarray."""
    new, old = tmp_path / "new.pt", tmp_path / "old.pt"
    content = save_like_cifar_n(new, POOL)
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(old, "w", zipfile.ZIP_STORED) as target:
        for member in source.namelist():
            target.writestr(member, source.read(member).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    noise = Noise(model="file", file=str(old), file_key="worse_label", whole_file=True, rate=0.4)
    np.testing.assert_array_equal(noisy(noise), content["worse_label"][SUBSET])


def test_a_file_in_another_order_of_the_examples_is_refused(tmp_path: Path) -> None:
    shuffled = POOL.copy()
    shuffled[:7] = (shuffled[:7] + 1) % CLASSES
    save_like_cifar_n(tmp_path / "other.pt", shuffled)
    with pytest.raises(ValueError, match="differs from the true labels in 7 of 5000"):
        noisy(Noise(model="file", file=str(tmp_path / "other.pt"), file_key="worse_label", rate=0.1))


def test_files_that_run_code_are_refused(tmp_path: Path) -> None:
    torch.save({"worse_label": Path("anything")}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="cannot be read as labels"):
        noisy(Noise(model="file", file=str(tmp_path / "evil.pt"), file_key="worse_label", rate=0.1))


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (POOL[:-1], "4999 labels; the training set has 5000"),
        (POOL + 1, "from 1 to 10: 10 classes allow 0 to 9"),
        (POOL / 2, "one integer an example"),
        (POOL.reshape(-1, 2), "one integer an example"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, labels: np.ndarray, problem: str) -> None:
    np.save(tmp_path / "bad.npy", labels)
    with pytest.raises(ValueError, match=problem):
        noisy(Noise(model="file", file=str(tmp_path / "bad.npy"), rate=0.1))


def test_a_file_that_changed_is_refused(label_file: Path) -> None:
    noise = Noise(model="file", file=str(label_file), rate=0.1)
    assert noise.file_sha256 == hashlib.sha256(label_file.read_bytes()).hexdigest()
    np.save(label_file, POOL)
    with pytest.raises(ValueError, match="another file than the search space names"):
        noisy(noise)
    label_file.unlink()
    with pytest.raises(ValueError, match="no label file"):
        noisy(noise)


def test_unknown_formats_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    for name, content in [("labels.json", b"[1]"), ("labels.txt", b"cat dog"), ("labels.pt", b"junk")]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"expected \.npy"):
            noisy(Noise(model="file", file=str(tmp_path / name), rate=0.1))
