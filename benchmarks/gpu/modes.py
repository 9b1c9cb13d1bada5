"""How torch computes: exactly and repeatably for the checks, fast for the speeds. Both leave all as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact() -> Iterator[None]:
    """fp32 without TF32, by deterministic kernels."""
    with _settings(tf32=False, deterministic=True, benchmark=False):
        yield


@contextmanager
def fast() -> Iterator[None]:
    """As a worker trains: cuDNN's choice of kernels is left at torch's default."""
    with _settings(tf32=True, deterministic=False, benchmark=False):
        yield


@contextmanager
def _settings(*, tf32: bool, deterministic: bool, benchmark: bool) -> Iterator[None]:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic, cudnn.benchmark)
    repeatable = torch.are_deterministic_algorithms_enabled()
    cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic, cudnn.benchmark = tf32, tf32, deterministic, benchmark
    if deterministic != repeatable:  # asking alone takes seconds, the first time in a process
        torch.use_deterministic_algorithms(deterministic, warn_only=True)  # the comparison is what judges
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic, cudnn.benchmark = before
        if deterministic != repeatable:
            torch.use_deterministic_algorithms(repeatable)
