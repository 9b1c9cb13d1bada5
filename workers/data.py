"""The data of one pack: which samples it trains on, what labels each of its runs is given, what it is evaluated on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from search_spaces.recipe import Recipe
from search_spaces.runs import Run
from workers.batches import EVALUATION_BATCH, GivenLabels, MicroBatch, micro_batches
from workers.beton_file import read_manifest
from workers.betons import Betons, betons_for, true_labels
from workers.loader import Stream, load_all, open_stream
from workers.noise import given_labels
from workers.placement import Placement
from workers.randomness import key, order
from workers.subsets import digest, split_evaluation, stratified_subset

IN_MEMORY_BYTES = 256 * 2**20
"""An evaluation set up to this size, decoded and normalised, is kept on the device for the whole pack."""
ALONE_HERE = Placement()


@dataclass
class EvaluationSet:
    """Samples that are evaluated again and again: original indices and true labels int64 [m] on the device.

    The processes of a group read a part each.
    """

    stream: Stream
    indices: NDArray[np.int64]
    index: Tensor
    true: Tensor
    part: slice
    """What this process reads of them."""
    _kept: list[tuple[Tensor, Tensor]] | None = None

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and original indices of this process's part, in order; from memory after the first time, if small."""
        part = self.indices[self.part]
        if self._kept is None and len(part) * self.stream.sample_bytes <= IN_MEMORY_BYTES:
            inputs, index = load_all(self.stream, part)
            self._kept = list(
                zip(torch.split(inputs, EVALUATION_BATCH), torch.split(index, EVALUATION_BATCH), strict=True)
            )
        yield from self._kept if self._kept is not None else self.stream.batches(part)


class ImageData:
    """Streams and labels of a pack of image runs, which share everything here but their given labels.

    `run` stands for all of them: its own seed has no part in what they share.
    """

    def __init__(self, run: Run, folder: Path, device: torch.device, placement: Placement = ALONE_HERE) -> None:
        assert isinstance(run.recipe, Recipe)
        self.run, self.recipe, self.device, self.placement = run, run.recipe, device, placement
        self.folder = folder
        facts = run.dataset.described
        betons = betons_for(facts, folder, seed=run.stream_seed, samples=run.samples, dimension=0, signal=None)
        assert betons.test is not None
        self.pool_labels = true_labels(betons.train)
        self.subset = stratified_subset(self.pool_labels, run.samples, dataset=facts.name, seed=run.stream_seed)
        self.subset_hash = _hash_of_data(self.subset, betons, embedded=facts.embedded)
        self.true_table = torch.from_numpy(self.pool_labels).to(device)
        self.train_stream = self._open(betons.train, self._micro_share(), self.recipe.augmentation)

        self._train_beton = betons.train
        self._plain = "center-crop" if self.recipe.augmentation == "resized-crop-flip" else "none"
        held_out_labels = true_labels(betons.test)
        validation, test = split_evaluation(held_out_labels, run.dataset.validation_samples, dataset=facts.name)
        train_part = self.subset[: run.evaluation.train_samples]
        self.train_set = self._evaluation_set(betons.train, train_part, self.pool_labels)
        self.validation_set = self._evaluation_set(betons.test, validation, held_out_labels)
        self.test_set = self._evaluation_set(betons.test, test, held_out_labels)

    @property
    def micro_batch(self) -> int:
        """Samples that go through a network at once, over all processes."""
        return self.recipe.micro_batch or self.recipe.batch_size

    def _micro_share(self) -> int:
        share = self.placement.group.share(min(self.micro_batch, len(self.subset)))
        if share.stop == share.start:
            raise ValueError(
                f"{self.placement.group.size} processes cannot share {self.micro_batch} samples: use fewer GPUs a run "
                "(--gpus-per-run), or a larger recipe.batch_size or recipe.micro_batch"
            )
        return int(share.stop - share.start)

    def _open(self, beton: Path, batch_size: int, augmentation: str) -> Stream:
        facts = self.run.dataset.described
        return open_stream(
            beton,
            batch_size=batch_size,
            augmentation=augmentation,
            resolution=self.run.dataset.input_resolution,
            pixel_mean=facts.pixel_mean,
            pixel_std=facts.pixel_std,
            device=self.device,
            workers=self.placement.decode_threads,
        )

    def _evaluation_set(self, beton: Path, indices: NDArray[np.int64], labels: NDArray[np.int64]) -> EvaluationSet:
        stream = self._open(beton, EVALUATION_BATCH, self._plain)
        index = torch.from_numpy(indices).to(self.device)
        true = torch.from_numpy(labels[indices]).to(self.device)
        return EvaluationSet(stream, indices, index, true, self.placement.group.share(len(indices)))

    def beyond_train_set(self, runs: Sequence[GivenLabels]) -> EvaluationSet | None:
        """The examples outside of the train set that are corrupted in any of the runs; None where there are none."""
        rest = self.subset[len(self.train_set.indices) :]
        corrupted = torch.stack([given.beyond for given in runs]).any(dim=0).cpu().numpy()
        chosen = rest[corrupted[rest]]
        return self._evaluation_set(self._train_beton, chosen, self.pool_labels) if len(chosen) else None

    def epoch(self, number: int, *, skip_steps: int = 0) -> Iterator[MicroBatch]:
        """This process's training batches of epoch `number`, without the first `skip_steps`, which are not decoded.

        Order and augmentation are keyed on (seed, epoch, sample index), so the rest is the same as ever.
        """
        seed, group = self.run.stream_seed, self.placement.group
        order_ = order("order", seed, self.subset, epoch=number)
        spans = list(micro_batches(len(order_), self.recipe.batch_size, self.micro_batch, skip_steps))
        shares = [np.arange(span.first, span.last)[group.share(span.last - span.first)] for span in spans]
        own = order_[np.concatenate([np.empty(0, dtype=np.int64), *shares])]
        stream = self.train_stream.batches(own, augment_key=key("augment", seed, epoch=number))
        with closing(stream):
            for span, share in zip(spans, shares, strict=True):
                inputs, index = next(stream) if len(share) else self.train_stream.nothing()
                yield MicroBatch(inputs, index, span.last - span.first, span.weight, span.ends_step)

    def given(self, run: Run) -> GivenLabels:
        """The labels of one run of the pack."""
        labels = noisy_labels(run, self.pool_labels, self.subset)
        table = self.pool_labels.copy()
        table[self.subset] = labels
        corrupted = table != self.pool_labels
        beyond = corrupted.copy()
        beyond[self.train_set.indices] = False
        return GivenLabels(
            torch.from_numpy(table).to(self.device),
            torch.from_numpy(beyond).to(self.device),
            digest(corrupted[self.subset]),
            float(corrupted[self.subset].mean()),
        )


def _hash_of_data(subset: NDArray[np.int64], betons: Betons, *, embedded: bool) -> str:
    """Names which samples are used and, where files are prepared by the user, what these hold.

    So runs on images that were stored in another way do not pass for runs on the same data.
    """
    indices = digest(subset)
    manifests = [read_manifest(path) for path in (betons.train, betons.test) if path is not None]
    if embedded or None in manifests:
        return indices
    contents = "".join([indices, *(str(manifest["sha256"]) for manifest in manifests if manifest)])
    return digest(np.frombuffer(contents.encode("ascii"), dtype=np.uint8))


def noisy_labels(run: Run, pool_labels: NDArray[np.int64], subset: NDArray[np.int64]) -> NDArray[np.int64]:
    """Given labels of `run`, int64[n], aligned with `subset`."""
    facts = run.dataset.described
    return given_labels(run.noise, pool_labels, subset, classes=facts.classes, dataset=facts.name, seed=run.seed)
