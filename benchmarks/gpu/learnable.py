"""Images of CIFAR's shape that a network can learn: a pattern a class, under noise.

Made on the CPU, so that they are the same on any device.
"""

from __future__ import annotations

import torch
from torch import Tensor

CLASSES, SIDE = 10, 32
SIGNAL = 0.5
"""Size of the patterns, of noise with standard deviation 1."""


def learnable_images(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """float32 [count, 3, 32, 32] in channels_last, and labels int64 [count]."""
    random = torch.Generator().manual_seed(0)
    patterns = torch.randn(CLASSES, 3, SIDE // 4, SIDE // 4, generator=random)
    patterns = torch.nn.functional.interpolate(patterns, scale_factor=4.0)
    labels = torch.randint(CLASSES, (count,), generator=random)
    images = SIGNAL * patterns[labels] + torch.randn(count, 3, SIDE, SIDE, generator=random)
    return images.to(device, memory_format=torch.channels_last), labels.to(device)
