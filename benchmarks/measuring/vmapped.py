"""A pack trained by torch.func.vmap over stacked parameters: the fusion that PyTorch has of itself, for comparison.

It fuses models as HFTA does (Wang et al., MLSys 2021), without code for the single layers. Stream, labels, optimiser
and evaluations are those of `workers.train.train_pack`; metrics of the predictions are left away, which favours it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from search_spaces.recipe import Recipe
from search_spaces.runs import Run
from search_spaces.schedule import evaluation_steps, steps_per_epoch
from workers.data import ImageData
from workers.metrics import predictions
from workers.optimization import build_optimizer, learning_rate
from workers.resnet import build_model


def train_vmapped(runs: Sequence[Run], folder: Path) -> Iterator[float]:
    """Train a pack on the CPU; yields the epoch reached after each evaluation."""
    data = ImageData(runs[0], folder, torch.device("cpu"))
    recipe, samples = data.recipe, runs[0].samples
    networks = Vmapped(runs, recipe)
    tables = torch.stack([data.given(run).table for run in runs])
    per_epoch = steps_per_epoch(samples, recipe.batch_size)
    due = set(evaluation_steps(recipe, runs[0].evaluation, samples))
    step = seen = 0
    for epoch in range(recipe.epochs):
        for batch in data.epoch(epoch):
            step += 1
            seen += batch.samples
            rate = learning_rate(recipe, step, per_epoch, per_epoch * recipe.epochs)
            networks.train(batch.inputs, tables[:, batch.index], rate)
            if step in due:
                networks.evaluate(data, tables)
                yield seen / samples


class Vmapped:
    """Networks of one shape; the parameters and buffers of all of them are stacked along a first dimension."""

    def __init__(self, runs: Sequence[Run], recipe: Recipe) -> None:
        facts = runs[0].dataset.described
        models = [
            build_model(run.architecture, run.width, classes=facts.classes, channels=facts.channels, seed=run.seed)
            for run in runs
        ]
        stacked, self.buffers = stack_module_state(models)  # type: ignore[arg-type]
        held = nn.ParameterList(stacked.values())
        self.parameters: dict[str, Tensor] = dict(zip(stacked, held, strict=True))
        self.optimizer = build_optimizer(held, recipe)
        self.model = models[0].to("meta")
        self.model.avgpool = _Mean()  # type: ignore[assignment]

    def train(self, inputs: Tensor, labels: Tensor, rate: float) -> None:
        """An optimiser step of all networks; labels are int64[models, batch]."""

        def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], own: Tensor) -> Tensor:
            return cross_entropy(functional_call(self.model, (parameters, buffers), (inputs,)), own)

        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        vmap(loss)(self.parameters, self.buffers, labels).sum().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    @torch.inference_mode()
    def evaluate(self, data: ImageData, tables: Tensor) -> None:
        """Predictions on the train, validation and test sets."""

        def logits(parameters: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor) -> Tensor:
            found: Tensor = functional_call(self.model, (parameters, buffers), (inputs,))
            return found

        self.model.eval()
        for part in (data.train_set, data.validation_set, data.test_set):
            for inputs, index in part.batches():
                found = vmap(logits, in_dims=(0, 0, None))(self.parameters, self.buffers, inputs)
                true = data.true_table[index] if part is data.train_set else part.true[: len(index)]
                predictions(found, tables[:, index] if part is data.train_set else true, true)
        self.model.train()


class _Mean(nn.Module):
    """AdaptiveAvgPool2d(1), for which vmap has no rule."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))
