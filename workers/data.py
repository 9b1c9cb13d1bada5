"""The data of one pack: which samples it trains on, what labels each of its runs is given, what it is evaluated on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from search_spaces.runs import Run
from search_spaces.spec import Recipe
from workers.betons import betons_for, true_labels
from workers.loader import Stream, load_all, open_stream
from workers.noise import given_labels
from workers.randomness import key, order
from workers.subsets import digest, split_evaluation, stratified_subset

IN_MEMORY_BYTES = 256 * 2**20
"""An evaluation set up to this size, decoded and normalised, is kept on the device for the whole pack."""
EVALUATION_BATCH = 512


@dataclass(frozen=True)
class GivenLabels:
    """The labels that one run trains on: a table [N] int64 by original index, and what was done to them."""

    table: Tensor
    mask_hash: str
    realised_rate: float


@dataclass
class EvaluationSet:
    """Samples that are evaluated again and again: original indices and true labels [m] int64 on the device."""

    stream: Stream
    indices: NDArray[np.int64]
    index: Tensor
    true: Tensor
    _kept: list[tuple[Tensor, Tensor]] | None = None

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and original indices, in the order of `indices`; from memory after the first time, if small."""
        if self._kept is None and len(self.indices) * self.stream.sample_bytes <= IN_MEMORY_BYTES:
            inputs, index = load_all(self.stream, self.indices)
            self._kept = list(
                zip(torch.split(inputs, EVALUATION_BATCH), torch.split(index, EVALUATION_BATCH), strict=True)
            )
        yield from self._kept if self._kept is not None else self.stream.batches(self.indices)


class ImageData:
    """Streams and labels of a pack of image runs, which share everything here but their given labels."""

    def __init__(self, run: Run, folder: Path, device: torch.device) -> None:
        assert isinstance(run.recipe, Recipe)
        self.run, self.device = run, device
        facts = run.dataset.facts
        betons = betons_for(facts.name, folder, seed=run.seed, samples=run.samples, dimension=0, signal=None)
        assert betons.test is not None
        self.pool_labels = true_labels(betons.train)
        self.subset = stratified_subset(self.pool_labels, run.samples, dataset=facts.name, seed=run.seed)
        self.subset_hash = digest(self.subset)
        self.true_table = torch.from_numpy(self.pool_labels).to(device)
        self.train_stream = self._open(betons.train, run.recipe.batch_size, run.recipe.augmentation)

        plain = "center-crop" if run.recipe.augmentation == "resized-crop-flip" else "none"
        held_out_labels = true_labels(betons.test)
        validation, test = split_evaluation(held_out_labels, run.dataset.validation_samples, dataset=facts.name)
        train_part = self.subset[: run.evaluation.train_samples]
        self.train_set = self._evaluation_set(betons.train, plain, train_part, self.pool_labels)
        self.validation_set = self._evaluation_set(betons.test, plain, validation, held_out_labels)
        self.test_set = self._evaluation_set(betons.test, plain, test, held_out_labels)

    def _open(self, beton: Path, batch_size: int, augmentation: str) -> Stream:
        facts = self.run.dataset.facts
        return open_stream(
            beton,
            batch_size=batch_size,
            augmentation=augmentation,
            resolution=self.run.dataset.input_resolution,
            pixel_mean=facts.pixel_mean,
            pixel_std=facts.pixel_std,
            device=self.device,
        )

    def _evaluation_set(
        self, beton: Path, augmentation: str, indices: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> EvaluationSet:
        stream = self._open(beton, EVALUATION_BATCH, augmentation)
        index = torch.from_numpy(indices).to(self.device)
        true = torch.from_numpy(labels[indices]).to(self.device)
        return EvaluationSet(stream, indices, index, true)

    def epoch(self, number: int, *, skip_batches: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Training batches of epoch `number`, without the first `skip_batches`, which are not decoded.

        Order and augmentation are keyed on (seed, epoch, sample index), so the rest is the same as ever.
        """
        seed = self.run.seed
        indices = order("order", seed, self.subset, epoch=number)[skip_batches * self.train_stream.batch_size :]
        return self.train_stream.batches(indices, augment_key=key("augment", seed, epoch=number))

    def given(self, run: Run) -> GivenLabels:
        """The labels of one run of the pack."""
        labels = noisy_labels(run, self.pool_labels, self.subset)
        table = self.pool_labels.copy()
        table[self.subset] = labels
        corrupted = labels != self.pool_labels[self.subset]
        return GivenLabels(torch.from_numpy(table).to(self.device), digest(corrupted), float(corrupted.mean()))


def noisy_labels(run: Run, pool_labels: NDArray[np.int64], subset: NDArray[np.int64]) -> NDArray[np.int64]:
    """Given labels of `run`, int64[n], aligned with `subset`."""
    facts = run.dataset.facts
    return given_labels(run.noise, pool_labels, subset, classes=facts.classes, dataset=facts.name, seed=run.seed)
