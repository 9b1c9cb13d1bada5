"""What a careful researcher writes without bo-sweep: one Ray Tune script, a function trainable, Tune's defaults.

A trial a run, a new worker process for each (`reuse_actors` is off by default), every evaluation reported to Tune, and
Tune's own loggers. Model, recipe, subset, noise and evaluation points are those of the search space. Two feeds:

    ffcv     FFCV's stock Loader, over betons with an index field beside the label, so that one beton serves all
             noise rates. It compiles its pipelines in each new process.
    tensors  the whole data set as one tensor, shuffled with randperm: the fastest that there is for so small a set,
             and nothing that compiles.

Nothing here may import `workers.quiet_ffcv` or what rests on it: that changes FFCV for the whole process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measuring.children import Child, read_request, write_answer
from search_spaces.spec import Noise, Recipe, SearchSpace

if TYPE_CHECKING:
    from torch import Tensor

Batch = tuple["Tensor", "Tensor"]
"""Inputs, float32 [m, 1, 8, 8], and their original indices, int64 [m]."""
EVALUATION_BATCH = 512


@dataclass(frozen=True)
class PlainSeconds:
    """Slot seconds of one plain script: from the start of the command, and from when Ray was up; to the end of fit."""

    total: float
    once_up: float


def prepare(data_folder: Path, scratch: Path) -> None:
    """Write the data set in both forms; not part of any measurement."""
    Child("benchmarks.measuring.plain_tune", ("prepare", data_folder), scratch / "plain-prepare").result()


def run_plain(space: SearchSpace, feed: str, slots: int, data_folder: Path, scratch: Path) -> PlainSeconds:
    """Run all of `space` with the plain script in a fresh process."""
    started = time.monotonic()
    request = ("fit", space, feed, slots, data_folder, scratch / f"plain-{feed}-results")
    up, ended = Child("benchmarks.measuring.plain_tune", request, scratch / f"plain-{feed}").result()
    return PlainSeconds(slots * (ended - started), slots * (ended - up))


# -- the script ---------------------------------------------------------------------------------------------------


def write_data(folder: Path) -> None:
    """Digits, cut into pool and held-out part as bo-sweep cuts them, as betons and as one file of arrays."""
    import numpy as np
    from ffcv.fields import IntField, NDArrayField
    from ffcv.writer import DatasetWriter
    from sklearn.datasets import load_digits

    from workers.subsets import split_evaluation

    images, labels = load_digits(return_X_y=True)
    images, labels = images.astype(np.uint8).reshape(-1, 1, 8, 8), labels.astype(np.int64)
    folder.mkdir(parents=True)
    for part, rows in zip(("train", "test"), split_evaluation(labels, 700, dataset="digits-parts"), strict=True):
        np.savez(folder / f"{part}.npz", images=images[rows], labels=labels[rows])
        fields = {"image": NDArrayField(np.dtype(np.uint8), (1, 8, 8)), "label": IntField(), "index": IntField()}
        samples = list(zip(images[rows], labels[rows], range(len(rows)), strict=True))
        DatasetWriter(str(folder / f"{part}.beton"), fields, num_workers=1).from_indexed_dataset(samples)


def ffcv_feed(folder: Path, part: str, indices: Any, batch_size: int, seed: int) -> Callable[[], Iterator[Batch]]:
    """One pass over `indices` of a beton in random order with each call."""
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.ndarray import NDArrayDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import Squeeze, ToTensor

    loader = Loader(
        str(folder / f"{part}.beton"),
        batch_size,
        num_workers=1,
        os_cache=True,
        order=OrderOption.RANDOM,
        seed=seed,
        indices=indices,
        drop_last=False,
        pipelines={
            "image": [NDArrayDecoder(), ToTensor()],
            "index": [IntDecoder(), ToTensor(), Squeeze(1)],
            "label": None,
        },
    )

    def batches() -> Iterator[Batch]:
        for images, index in loader:
            yield images.float(), index.clone()

    return batches


def tensor_feed(folder: Path, part: str, indices: Any, batch_size: int, seed: int) -> Callable[[], Iterator[Batch]]:
    """The same from memory."""
    import numpy as np
    import torch

    images = torch.from_numpy(np.load(folder / f"{part}.npz")["images"]).float()
    used = torch.from_numpy(indices)
    generator = torch.Generator().manual_seed(seed)

    def batches() -> Iterator[Batch]:
        shuffled = used[torch.randperm(len(used), generator=generator)]
        for start in range(0, len(used), batch_size):
            index = shuffled[start : start + batch_size]
            yield images[index], index

    return batches


def train(config: dict[str, Any], space: SearchSpace, feed: str, folder: Path) -> None:
    """The trainable: one run."""
    import numpy as np
    import torch
    from ray import tune
    from torch.nn.functional import cross_entropy

    from search_spaces.schedule import evaluation_steps
    from workers.metrics import Labelled, clean_metrics, concatenate, predictions, train_metrics
    from workers.noise import given_labels
    from workers.resnet import build_model
    from workers.subsets import split_evaluation, stratified_subset

    recipe, facts, seed = space.recipe, space.dataset.described, config["seed"]
    assert isinstance(recipe, Recipe)
    assert space.samples is not None
    assert (recipe.optimizer, recipe.schedule, recipe.warmup_epochs) == ("adam", "constant", 0), (
        "written for one recipe"
    )
    true, held_out = (np.load(folder / f"{part}.npz")["labels"] for part in ("train", "test"))
    subset = stratified_subset(true, space.samples[0], dataset=facts.name, seed=seed)
    noise = Noise(rate=config["noise_rate"])
    given = true.copy()
    given[subset] = given_labels(noise, true, subset, classes=facts.classes, dataset=facts.name, seed=seed)
    parts = split_evaluation(held_out, space.dataset.validation_samples, dataset=facts.name)

    open_feed = ffcv_feed if feed == "ffcv" else tensor_feed
    (mean,), (std,) = facts.pixel_mean, facts.pixel_std
    training = open_feed(folder, "train", subset, recipe.batch_size, seed)
    held_out_set = open_feed(folder, "test", np.arange(len(held_out)), EVALUATION_BATCH, seed)
    given_table, true_table, held_out_table = map(torch.from_numpy, (given, true, held_out))

    def in_memory(batches: Callable[[], Iterator[Batch]]) -> Batch:
        inputs, index = zip(*batches(), strict=True)
        return (torch.cat(inputs) - mean) / std, torch.cat(index)

    train_inputs, train_index = in_memory(training)
    inputs, index = in_memory(held_out_set)
    by_index = inputs[index.argsort()]
    evaluated = [(train_inputs, given_table[train_index], true_table[train_index])]
    evaluated += [(by_index[part], held_out_table[part], held_out_table[part]) for part in map(torch.from_numpy, parts)]

    model = build_model(space.architecture, config["width"], classes=facts.classes, channels=facts.channels, seed=seed)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)
    due = set(evaluation_steps(recipe, space.evaluation, len(subset)))
    step = 0
    for _ in range(recipe.epochs):
        for inputs, index in training():
            step += 1
            loss = cross_entropy(model((inputs - mean) / std), given_table[index])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if step not in due:
                continue
            model.eval()
            with torch.inference_mode():
                found = []
                for samples, labels, truth in evaluated:
                    spans = [slice(start, start + EVALUATION_BATCH) for start in range(0, len(truth), EVALUATION_BATCH)]
                    parts_ = [predictions(model(samples[s]), labels[s], truth[s]) for s in spans]
                    found.append(concatenate(parts_, labels.device))
            model.train()
            metrics = train_metrics(Labelled(found[0], evaluated[0][1], evaluated[0][2]))
            for name, result, (_, _, truth) in zip(("val", "test"), found[1:], evaluated[1:], strict=True):
                metrics |= clean_metrics(result, truth, name)
            tune.report(metrics | {"step": step, "batch_loss": loss.item()})


def fit(space: SearchSpace, feed: str, slots: int, folder: Path, results: Path) -> tuple[float, float]:
    """Run the grid; returns when Ray was up and when all was done."""
    import ray
    from ray import tune

    ray.init("local", num_cpus=slots)
    up = time.monotonic()
    tuner = tune.Tuner(
        tune.with_parameters(train, space=space, feed=feed, folder=folder),
        param_space={
            "width": tune.grid_search(list(space.widths or ())),
            "noise_rate": tune.grid_search(list(space.noise.rates)),
            "seed": tune.grid_search(list(space.seeds)),
        },
        run_config=tune.RunConfig(storage_path=str(results), name="plain"),
    )
    grid = tuner.fit()
    if grid.errors:
        raise SystemExit(f"{len(grid.errors)} trials failed: {grid.errors[0]}")
    return up, time.monotonic()


def main() -> None:
    """The child: prepare the data, or run the script."""
    task, *arguments = read_request()
    if task == "prepare":
        write_data(*arguments)
        write_answer(None)
    else:
        write_answer(fit(*arguments))


if __name__ == "__main__":
    main()
