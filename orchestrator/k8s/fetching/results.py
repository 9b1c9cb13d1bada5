"""Where a profile keeps its sweeps, as storage that this machine can read."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from orchestrator.k8s.client.api import Api
from orchestrator.k8s.client.errors import ClusterError
from orchestrator.k8s.fetching.claim_storage import ClaimStorage
from orchestrator.k8s.fetching.reader import PATIENCE_SECONDS, PORT, WAIT_SECONDS, reader_pod
from orchestrator.k8s.profile import ClusterProfile, Results
from orchestrator.k8s.rendering.mounts import Mounts
from orchestrator.k8s.watching.tunnel import forwarded
from orchestrator.storage import Storage, StorageError, open_storage

ANSWER_SECONDS = 60.0
"""Until the server in a running pod answers."""


@contextmanager
def open_results(
    api: Api | None,
    profile: ClusterProfile,
    mounts: Mounts | None = None,
    *,
    wait_seconds: float = WAIT_SECONDS,
    patience_seconds: float = PATIENCE_SECONDS,
    tell: Callable[[str], None] = lambda words: None,
) -> Iterator[Storage]:
    """The storage that holds all sweeps of a profile: an object store, or its claim through a reader pod.

    Args:
        api: of the cluster; only a claim needs it.
        wait_seconds, patience_seconds, tell: as for `reader_pod`.

    Raises:
        ClusterError: the claim is not there, or its reader does not come up; see `reader_pod`.
    """
    if profile.results.claim is None:
        yield object_results(profile.results)
        return
    assert api is not None, "a claim is read through the cluster"
    with (
        reader_pod(
            *(api, profile, mounts), wait_seconds=wait_seconds, patience_seconds=patience_seconds, tell=tell
        ) as pod,
        forwarded(api, pod, PORT) as port,
    ):
        storage = ClaimStorage(f"http://127.0.0.1:{port}", f"claim {profile.results.claim}")
        _wait_for_answer(storage, pod)
        yield storage


def object_results(results: Results) -> Storage:
    """Results in an object store.

    The environment's own endpoint goes before the profile's, which may be an address inside of the cluster.
    """
    storage = open_storage(f"{results.url}")
    named = any(os.environ.get(name) for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
    if results.endpoint and not named:
        from orchestrator.object_storage import ObjectStorage

        assert isinstance(storage, ObjectStorage)
        return replace(storage, endpoint=results.endpoint)
    return storage


def _wait_for_answer(storage: Storage, pod: str) -> None:
    """The container runs before its server does."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            storage.folders()
            return
        except StorageError as error:
            if error.__cause__ is None:
                raise  # it answers: that it may not read, for one
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"the reader pod {pod} runs but does not answer ({error.__cause__ or error}). "
                    f"kubectl logs {pod} tells more; is its image of this version of bo-sweep?"
                ) from error
