"""The loop that anybody would write first: bf16 autocast, channels_last, SGD. What our step is held against."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.gpu.sizes import Case
from search_spaces.datasets import dataset_of
from workers.resnet import build_model


def plain_step(case: Case, labels: Tensor, device: torch.device) -> Callable[[Tensor, Tensor], None]:
    """A training step on inputs and indices, of the same network as ours."""
    classes = dataset_of(case.dataset).classes
    model = build_model(case.architecture, case.width, classes=classes, channels=3, seed=0)
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def step(inputs: Tensor, index: Tensor) -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = cross_entropy(model(inputs), labels[index])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step
