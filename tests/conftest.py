"""Shared by all tests: deterministic property tests, and betons made once a session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as Ray's workers have it; before NumPy or torch start their threads

import pytest
from hypothesis import settings

settings.register_profile("bo-sweep", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("bo-sweep")


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for embedded betons, shared by all tests, apart from the user's own cache."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Train as a worker does; threads that spin on busy cores make tests slow."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
