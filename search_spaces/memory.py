"""How much memory and arithmetic a run takes, from its layer table; both are estimates, used to refuse and to plan."""

from __future__ import annotations

import functools
import math

from search_spaces.architectures import count_activations, count_multiply_adds
from search_spaces.runs import Run
from search_spaces.schedule import count_evaluations, steps_per_epoch
from search_spaces.spec import DatasetChoice, FlowRecipe

BYTES_PER_FLOAT = 4
MODEL_COPIES = {"sgd": 3, "adam": 4}
"""Weights, gradients and optimiser state, in multiples of the parameters."""
WORKER_BASE_BYTES = 700 * 2**20
"""An idle worker process with torch and FFCV imported (measured on CPU)."""


def run_bytes(run: Run, processes: int = 1) -> int:
    """Peak bytes that training `run` alone takes in each of the processes that share it, beside the worker's base:
    model copies and kept activations."""
    if isinstance(run.recipe, FlowRecipe):
        smaller = min(run.samples, run.parameters)
        return 8 * (3 * run.samples * run.parameters + 4 * smaller * smaller)
    facts = run.dataset.described
    activations = count_activations(
        run.architecture,
        run.width,
        classes=facts.classes,
        channels=facts.channels,
        resolution=run.dataset.input_resolution,
    )
    bytes_per_activation = BYTES_PER_FLOAT if run.recipe.precision == "fp32" else 2
    model = MODEL_COPIES[run.recipe.optimizer] * BYTES_PER_FLOAT * run.parameters
    at_once = math.ceil(min(run.recipe.micro_batch or run.recipe.batch_size, run.samples) / processes)
    return model + at_once * activations * bytes_per_activation


def run_multiply_adds(run: Run) -> float:
    """Multiply-adds of a whole run: forward and backward (twice the forward) in training, forward in evaluation."""
    if isinstance(run.recipe, FlowRecipe):
        smaller, larger = sorted((run.samples, run.parameters))
        times = count_evaluations(run.recipe, run.evaluation, run.samples)
        return float(smaller**2 * (larger + 10 * smaller) + times * smaller**2)
    forward = forward_multiply_adds(run.dataset, run.architecture, run.width)
    return float(forward) * (3 * trained_samples(run) + evaluated_samples(run))


@functools.lru_cache(maxsize=4096)
def forward_multiply_adds(dataset: DatasetChoice, architecture: str, width: int) -> int:
    """Of one sample. Kept, as is the next: a plan asks for every run, and its seeds and rates share the answer."""
    facts = dataset.described
    return count_multiply_adds(
        architecture, width, classes=facts.classes, channels=facts.channels, resolution=dataset.input_resolution
    )


def trained_samples(run: Run) -> int:
    """Samples that pass through the optimiser over the whole run."""
    return 0 if isinstance(run.recipe, FlowRecipe) else run.samples * run.recipe.epochs


def evaluated_samples(run: Run) -> int:
    """Samples that pass through all evaluations of the run."""
    if isinstance(run.recipe, FlowRecipe):
        return 0
    train = min(run.samples, run.evaluation.train_samples or run.samples)
    train += round(run.noise.rate * (run.samples - train))  # all corrupted examples too
    return (train + run.dataset.described.test_samples) * count_evaluations(run.recipe, run.evaluation, run.samples)


def training_steps(run: Run) -> int:
    """Optimiser steps of the whole run."""
    if isinstance(run.recipe, FlowRecipe):
        return 0
    return steps_per_epoch(run.samples, run.recipe.batch_size) * run.recipe.epochs
