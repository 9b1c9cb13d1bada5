"""Label noise: which of the used training examples get a wrong label, and which one.

One mechanism serves all models. Each example of the data set, by its *original index*, has two uniform numbers that
depend on (dataset, seed) alone: u says how early it is flipped, v which wrong label it gets. A model gives every used
example a propensity s >= 0, scaled to mean 1 over them, and a rule from v to a target label. At noise rate rho

    exact      flips the floor(rho n + 1/2) examples with the lowest u / s (the default);
    bernoulli  flips every example with u / s < rho, so each with probability rho s.

Examples with s = 0 are never flipped. Since u, v and the order of u / s do not depend on rho, width or subset, masks
are nested in rho, an example flipped at two rates gets the same wrong label, and contrasts between cells share their
noise (common random numbers). rho is always the share of the *used* examples. An example's probability rho s cannot
pass 1, so a model has a largest rate, 1 / max s; rates above it are refused.

| model          | propensity s                     | target of class c                                              |
|----------------|----------------------------------|----------------------------------------------------------------|
| symmetric      | 1                                | uniform over the other classes                                 |
| symmetric_incl | 1                                | uniform over all classes, so a selected example may keep its   |
|                |                                  | label: the realised rate is about rho (C - 1) / C              |
| pair           | 1                                | c + 1 modulo C                                                 |
| asym           | equal for the five classes below | truck -> automobile, bird -> airplane, deer -> horse,          |
|                |                                  | cat <-> dog; CIFAR-10 only (Patrini et al., CVPR 2017)         |
| matrix         | proportional to 1 - T[c, c]      | row c of T without its diagonal, normalised                    |
| file           | equal where the file disagrees   | the file's label                                               |

asym: the literature states the rate within the five classes; its "asym 40 %" is rho = 0.2 on balanced classes here.
matrix: at rho = the mean of 1 - T[c, c] over the used examples, this is exactly the noise T; other rates scale it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from workers import randomness
from workers.label_files import read_labels

if TYPE_CHECKING:
    from search_spaces.spec import Noise

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]

CIFAR10_LOOK_ALIKES = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}


def given_labels(noise: Noise, true_labels: Labels, subset: Labels, *, classes: int, dataset: str, seed: int) -> Labels:
    """The labels to train on, int64[n], aligned with `subset`.

    Args:
        noise: model, rate and kind of flips.
        true_labels: int64[N], classes of the whole training pool by original index.
        subset: int64[n], original indices of the used examples, in any order.
        classes: C.
        dataset: name of the data set; with `seed` it keys u and v.
        seed: seed of the run.

    Raises:
        ValueError: if the rate is above what the model can reach, the model does not fit the data set, or a label file
            is missing, does not match the data set, or disagrees with its true labels.
    """
    labels = true_labels[subset]
    chance = randomness.uniform(f"noise-target/{dataset}", seed, subset)
    if noise.model == "file":
        target = _file_targets(noise, true_labels, classes=classes)[subset]
        eligible = target != labels
        if noise.whole_file:
            return target
        propensity = eligible.astype(np.float64)
    else:
        propensity, target = _propensity_and_target(noise, labels, chance, classes=classes, dataset=dataset)
    flipped = _flips(noise, propensity, subset, dataset=dataset, seed=seed)
    return np.where(flipped, target, labels)


def flip_count(rate: float, samples: int) -> int:
    """How many of `samples` examples are flipped at `rate`: rounded to nearest, halves up."""
    return int(np.floor(rate * samples + 0.5))


def _propensity_and_target(
    noise: Noise, labels: Labels, chance: Floats, *, classes: int, dataset: str
) -> tuple[Floats, Labels]:
    """Unscaled s and the wrong label of every used example, each of shape [n]."""
    everyone = np.ones(len(labels))
    match noise.model:
        case "symmetric":
            offset = 1 + (chance * (classes - 1)).astype(np.int64)
            return everyone, (labels + offset) % classes
        case "symmetric_incl":
            return everyone, (chance * classes).astype(np.int64)
        case "pair":
            return everyone, (labels + 1) % classes
        case "asym":
            if dataset != "cifar10":
                raise ValueError(f"noise model asym is defined for cifar10 only, not {dataset}: use pair or matrix")
            target = np.array([CIFAR10_LOOK_ALIKES.get(label, label) for label in range(classes)])[labels]
            return (target != labels).astype(np.float64), target
        case "matrix":
            return _matrix_propensity_and_target(noise, labels, chance, classes=classes)
    raise ValueError(f"noise model {noise.model!r} is unknown: see the table in workers/noise.py")


def _matrix_propensity_and_target(
    noise: Noise, labels: Labels, chance: Floats, *, classes: int
) -> tuple[Floats, Labels]:
    transition = np.asarray(noise.matrix, dtype=np.float64)
    if transition.shape != (classes, classes):
        raise ValueError(f"noise.matrix has shape {transition.shape}: {classes} classes need ({classes}, {classes})")
    off_diagonal = transition.copy()
    np.fill_diagonal(off_diagonal, 0.0)
    target = labels.copy()
    for label in np.unique(labels):
        cumulative = np.cumsum(off_diagonal[label])
        if cumulative[-1] > 0:
            of_class = labels == label
            target[of_class] = np.searchsorted(cumulative / cumulative[-1], chance[of_class], side="right")
    return off_diagonal.sum(axis=1)[labels], target


def _flips(noise: Noise, propensity: Floats, subset: Labels, *, dataset: str, seed: int) -> NDArray[np.bool_]:
    """Which of the used examples the model selects, bool[n]."""
    if noise.rate == 0:
        return np.zeros(len(subset), dtype=bool)
    largest = propensity.mean() / propensity.max() if propensity.any() else 0.0
    if noise.rate > largest + 1e-9:  # 1e-9: the mean is rounded
        raise ValueError(
            f"noise rate {noise.rate:g} is more than model {noise.model} can reach on these {len(subset)} examples: "
            f"the largest possible rate is {largest:.6g}"
        )
    eligible = propensity > 0
    score = np.full(len(subset), np.inf)
    score[eligible] = randomness.uniform(f"noise/{dataset}", seed, subset[eligible]) / propensity[eligible]
    score *= propensity.mean()  # propensities of mean 1
    if noise.flips == "bernoulli":
        return score < noise.rate
    flipped = np.zeros(len(subset), dtype=bool)
    flipped[np.lexsort((subset, score))[: flip_count(noise.rate, len(subset))]] = True
    return flipped


def _file_targets(noise: Noise, true_labels: Labels, *, classes: int) -> Labels:
    """The labels of the noise file for the whole pool, int64[N], checked against the data set."""
    assert noise.file is not None, "spec.Noise guarantees a file for model file"
    labels, clean = read_labels(noise.file, key=noise.file_key, sha256=noise.file_sha256)
    if len(labels) != len(true_labels):
        raise ValueError(f"{noise.file} has {len(labels)} labels; the training set has {len(true_labels)}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"{noise.file} has labels from {labels.min()} to {labels.max()}: {classes} classes allow 0 to {classes - 1}"
        )
    if clean is not None:
        differing = int((clean != true_labels).sum()) if len(clean) == len(true_labels) else len(true_labels)
        if differing:
            raise ValueError(
                f"{noise.file}: its clean_label differs from the true labels in {differing} of {len(true_labels)} "
                "examples, so it was made for another data set or another order of the examples"
            )
    return labels
