"""Which examples a run uses: nested stratified training subsets and the fixed validation/test split.

Every n is a prefix of one permutation per (dataset, seed), so smaller subsets lie inside larger ones and a contrast
between two n is not blurred by a fresh draw. The permutation is stratified at every prefix: with N_c of the N examples
in class c, the first n hold between n N_c / N - 1 and n N_c / N + 1 of class c (strictly), however skewed the classes.

Sorting by (rank + 0.5) / N_c would not do: a hundred rare classes then all appear at once, half-way. What does is to
schedule the classes as jobs with deadlines. The k-th example of class c (k = 1, 2, ...) must not stand before position
floor((k - 1) N / N_c) + 1, or c would be a whole example ahead, nor after ceil(k N / N_c), or c would be a whole one
behind. Tijdeman ("The chairman assignment problem", Discrete Mathematics 32, 1980) proved that a sequence within these
windows always exists, and for jobs of length one taking the earliest deadline first finds it.
"""

import hashlib
import heapq

import numpy as np
from numpy.typing import NDArray

from workers import randomness

Indices = NDArray[np.int64]


def stratified_subset(labels: Indices, samples: int, *, dataset: str, seed: int) -> Indices:
    """The first `samples` indices, int64[samples], of the stratified permutation of (dataset, seed).

    `labels`, int64[N], are the true classes of the training pool; the indices point into it and come in the order of
    the permutation, so that `stratified_subset(..., m)` is `stratified_subset(..., n)[:m]` for m <= n. ValueError if
    `samples` is not in 1..N.
    """
    if not 1 <= samples <= len(labels):
        raise ValueError(
            f"samples = {samples} cannot be drawn from the {len(labels)} training examples of {dataset}: "
            f"choose between 1 and {len(labels)}"
        )
    return _stratified_prefix(labels, samples, stream=f"subset/{dataset}", seed=seed)


def split_evaluation(labels: Indices, validation_samples: int, *, dataset: str) -> tuple[Indices, Indices]:
    """Split the held-out examples into (validation, test): stratified, sorted, and the same for every seed.

    `labels`, int64[N], are the true classes of the held-out pool. Both parts have class counts within 1 of
    proportional. ValueError unless 0 <= validation_samples < N: the test part must not be empty.
    """
    if not 0 <= validation_samples < len(labels):
        raise ValueError(
            f"validation_samples = {validation_samples} leaves no test set: {dataset} holds out {len(labels)} "
            f"examples, choose between 0 and {len(labels) - 1}"
        )
    validation = _stratified_prefix(labels, validation_samples, stream=f"split/{dataset}", seed=0)
    held_out = np.ones(len(labels), dtype=bool)
    held_out[validation] = False
    return np.sort(validation), np.flatnonzero(held_out)


def digest(values: NDArray[np.integer] | NDArray[np.bool_]) -> str:
    """16 hex digits that name an array: sha256 of its values as little-endian int64 (a mask: bytes of 0 and 1).

    The order of the values counts. Used for subset_hash and mask_hash. ValueError for anything but integers and bools.
    """
    values = np.asarray(values)
    if values.dtype.kind not in "biu":
        raise ValueError(f"an array of {values.dtype} has no digest: pass integers (indices, labels) or a bool mask")
    canonical = values.astype(np.uint8 if values.dtype.kind == "b" else "<i8")
    return hashlib.sha256(canonical.tobytes()).hexdigest()[:16]


def _stratified_prefix(labels: Indices, samples: int, *, stream: str, seed: int) -> Indices:
    """Schedule the classes, then give each place of a class to the next of its examples in keyed random order."""
    if len(labels) == 0:
        return np.empty(0, dtype=np.int64)
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    schedule = _schedule(
        counts, samples, class_order=randomness.order(f"{stream}/classes", seed, np.arange(len(counts)))
    )

    shuffled = randomness.order(stream, seed, np.arange(len(labels)))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    rank_in_class = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    taken = np.bincount(schedule, minlength=len(counts))
    subset = np.empty(samples, dtype=np.int64)
    subset[np.argsort(schedule, kind="stable")] = by_class[rank_in_class < np.repeat(taken, counts)]
    return subset


def _schedule(counts: Indices, samples: int, *, class_order: Indices) -> Indices:
    """The class at each of the first `samples` positions, int64[samples]: earliest deadline first.

    Equal deadlines go by `class_order`, which is random, so that no class is favoured when n is not a multiple of C.
    """
    total, classes = int(counts.sum()), len(counts)
    counts = counts[class_order]
    place = np.repeat(np.arange(classes), counts)  # the class of every job, as its place in class_order
    k = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)  # from 0
    releases = k * total // counts[place]
    deadlines = -(-(k + 1) * total // counts[place])

    by_release = np.argsort(releases, kind="stable")
    jobs = (deadlines * classes + place)[by_release].tolist()  # one integer a job: sorts by deadline, then by place
    released = np.searchsorted(releases[by_release], np.arange(samples), side="right").tolist()
    waiting: list[int] = []
    chosen = []
    first = 0
    for last in released:
        for job in jobs[first:last]:
            heapq.heappush(waiting, job)
        first = last
        chosen.append(heapq.heappop(waiting))
    return class_order[np.array(chosen, dtype=np.int64) % classes]
