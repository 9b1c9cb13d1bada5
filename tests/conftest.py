"""Shared by all tests: deterministic property tests, betons made once a session, and storage of every kind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as Ray's workers have it; before NumPy or torch start their threads
os.environ.setdefault("BO_SWEEP_PUBLISH_PRIORITY", "normal")  # tests beside it would leave a publisher nothing

import pytest
from hypothesis import settings

from orchestrator.storage import Storage, open_storage
from tests import object_store
from tests.object_store import BUCKET, Store

if TYPE_CHECKING:
    from tests.kubernetes_api import FakeCluster

settings.register_profile("bo-sweep", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("bo-sweep")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest modules come first, those that start a Ray cluster before all: side by side, a process takes module
    after module, and one that begins late with a long one is waited for."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.get_closest_marker("ray") is None, item.path not in slow))


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


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    """An empty cluster; modules that want one with something in it have their own."""
    from tests.kubernetes_api import FakeCluster

    with FakeCluster() as running:
        yield running


@pytest.fixture(scope="session")
def s3() -> Iterator[Store]:
    with object_store.started("s3") as store:
        yield store


@pytest.fixture(scope="session")
def gs() -> Iterator[Store]:
    with object_store.started("gs") as store:
        yield store


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of the machine's own settings for object stores none reaches a test."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "STORAGE_EMULATOR", "GOOGLE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anyone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


@pytest.fixture
def s3_folder(environment: None, s3: Store, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Storage:
    """A folder of this test's own, behind a proxy without faults."""
    s3.set_faults()
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.address)
    return open_storage(f"s3://{BUCKET}/{request.node.name}")


@pytest.fixture(params=["local", "s3", "gs"])
def storage(
    environment: None, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Storage:
    """A folder of this test's own in each kind of storage."""
    if request.param == "local":
        return open_storage(tmp_path / "sweeps" / "one")
    store: Store = request.getfixturevalue(request.param)
    store.set_faults()
    variable = "AWS_ENDPOINT_URL" if request.param == "s3" else "STORAGE_EMULATOR_HOST"
    monkeypatch.setenv(variable, store.address)
    return open_storage(f"{request.param}://{BUCKET}/{request.node.name}/one")
