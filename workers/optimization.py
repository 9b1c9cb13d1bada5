"""The optimiser of a recipe, its learning rate at every step, and its precision."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from search_spaces.recipe import Recipe

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def learning_rate(recipe: Recipe, step: int, per_epoch: int, total: int) -> float:
    """Rate of `step` (1-based): linear warm-up, then constant, or cosine to zero (arXiv 1608.03983, one cycle)."""
    peak = recipe.scaled_learning_rate
    warmup = round(recipe.warmup_epochs * per_epoch)
    if step <= warmup:
        return peak * step / warmup
    if recipe.schedule == "constant":
        return peak
    progress = (step - 1 - warmup) / max(1, total - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD or Adam (coupled weight decay), with batch norm and biases left out of decay where the recipe says so."""
    weights = [p for p in model.parameters() if recipe.decay_batch_norm or p.ndim > 1]
    others = [p for p in model.parameters() if not (recipe.decay_batch_norm or p.ndim > 1)]
    groups = [{"params": weights, "weight_decay": recipe.weight_decay}]
    if others:
        groups.append({"params": others, "weight_decay": 0.0})
    rate = recipe.scaled_learning_rate
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, lr=rate, fused=True)
    return torch.optim.SGD(groups, lr=rate, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True)


def autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[object]:
    """Autocast to the precision that the recipe asks for."""
    if recipe.precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=AUTOCAST[recipe.precision])


def gradient_scaler(recipe: Recipe, device: torch.device) -> torch.amp.GradScaler:
    """Scales the loss of fp16 so that small gradients do not vanish; does nothing in other precisions."""
    return torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
