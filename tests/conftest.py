"""Shared by all tests: deterministic property tests, and betons made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("bo-sweep", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("bo-sweep")


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for embedded betons, shared by all tests, apart from the user's own cache."""
    return tmp_path_factory.mktemp("data")
