"""Batch norm over the batch of a whole group: what a network computes does not depend on how many processes share it.

On CUDA it is torch's SyncBatchNorm, which works nowhere else; on the CPU it is the same computation written plainly.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from workers.group import Group


def synchronise_batch_norm(model: nn.Module, group: Group, device: torch.device) -> None:
    """Let every batch norm of `model` see the batches of all processes; parameters and their names stay."""
    if group.size == 1:
        return
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GroupBatchNorm


class GroupBatchNorm(nn.BatchNorm2d):
    """Batch norm whose mean and variance in training are those of the batches of all processes together."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        values = x.float()
        shape = (1, -1, 1, 1)
        count = torch.tensor(float(x.numel() // x.shape[1]))
        dist.all_reduce(count)
        total = count.item()
        mean = _sum_of_all(values.sum((0, 2, 3))) / total
        centred = values - mean.view(shape)  # two passes: the difference of two large sums would lose digits
        variance = _sum_of_all(centred.square().sum((0, 2, 3))) / total
        self._track(mean.detach(), variance.detach() * (total / max(1.0, total - 1)))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(shape) + self.bias.view(shape)).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class _SumOfAll(torch.autograd.Function):
    """The sum over all processes. Each gets the gradient of the losses of all of them."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        whole = part.clone()
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        whole = gradient.contiguous().clone()
        dist.all_reduce(whole)
        return whole


def _sum_of_all(part: Tensor) -> Tensor:
    summed: Tensor = _SumOfAll.apply(part)  # type: ignore[no-untyped-call]
    return summed
