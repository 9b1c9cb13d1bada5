"""The first operation of the data stream, in FFCV's terms: rows that tell what to read in, a batch of samples out."""

from __future__ import annotations

import functools
import sys
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers import quiet_ffcv as ffcv
from workers.beton_file import Beton
from workers.decoders import decode_arrays, decode_images, decode_normalised_images

PARTS_PER_WORKER = 4
"""A batch is decoded in so many parts for each worker: where one is held up, others take over."""

ARRAYS_KEPT = 6
"""To be used again: those that FFCV holds ready, one in the making and one in use."""
BYTES_KEPT = 500_000_000
"""Of one stream, at most; larger batches are made afresh."""
UNHELD = 3
"""References to an array in the deque that is only being looked at: the deque's, the loop's and getrefcount's own."""


class Decode(ffcv.Operation):  # type: ignore[misc]
    """FFCV's decoder of the image field, from rows of `workers.augment.windows`; compiled already.

    Fills FFCV's buffers with stored bytes, to be normalised on the device.
    """

    def __init__(self, beton: Beton, shape: tuple[int, ...], workers: int) -> None:
        super().__init__()
        self._beton, self._shape, self._workers = beton, shape, workers
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="decode") if workers > 1 else None
        self._loop = decode_images if beton.array_dtype is None else decode_arrays

    def declare_state_and_memory(self, previous_state: ffcv.State) -> tuple[ffcv.State, ffcv.AllocationQuery | None]:
        dtype = np.dtype(np.uint8)
        state = replace(previous_state, jit_mode=True, shape=self._shape, dtype=dtype)
        return state, ffcv.AllocationQuery(self._shape, dtype)

    def generate_code(self) -> Any:
        def decode(rows: Any, destination: Any, metadata: Any, storage: Any) -> Any:
            return self._split(rows, storage[0], destination)

        return decode

    def _split(self, rows: NDArray[np.int64], file: NDArray[np.uint8], destination: NDArray[Any]) -> NDArray[Any]:
        """Decode a batch into `destination`; each thread takes another part of it as soon as it is through with one."""
        if self._threads is None:
            self._decode(rows, file, destination)
            return destination
        size = -(-len(rows) // (PARTS_PER_WORKER * self._workers))
        parts = iter([slice(first, first + size) for first in range(0, len(rows), size)])  # shared, one step is atomic

        def work() -> None:
            for part in parts:
                self._decode(rows[part], file, destination[part])

        jobs = [self._threads.submit(work) for _ in range(self._workers)]
        for job in jobs:
            job.result()
        return destination

    def _decode(self, rows: NDArray[np.int64], file: NDArray[np.uint8], destination: NDArray[Any]) -> None:
        damaged = self._loop(rows, self._beton.places, file, destination)
        if damaged >= 0:
            raise ValueError(f"the JPEG of sample {damaged} is damaged: write the beton again")


class DecodeNormalised(Decode):
    """The same for images that stay on the CPU: every batch is an array of normalised float32 that is the caller's.

    Memory fresh from the system has to be cleared by it first, so arrays that nobody holds any more are used again.
    """

    def __init__(
        self,
        beton: Beton,
        shape: tuple[int, ...],
        workers: int,
        mean: NDArray[np.float32],
        std: NDArray[np.float32],
    ) -> None:
        super().__init__(beton, shape, workers)
        mean, std = np.ascontiguousarray(mean), np.ascontiguousarray(std)
        self._loop = functools.partial(decode_normalised_images, mean=mean, std=std)
        self._arrays: deque[NDArray[np.float32]] = deque(maxlen=ARRAYS_KEPT)
        self._lock = threading.Lock()

    def declare_state_and_memory(self, previous_state: ffcv.State) -> tuple[ffcv.State, ffcv.AllocationQuery | None]:
        return replace(previous_state, jit_mode=True, shape=self._shape, dtype=np.dtype(np.float32)), None

    def generate_code(self) -> Any:
        def decode(rows: Any, destination: Any, metadata: Any, storage: Any) -> Any:
            return self._split(rows, storage[0], self._unused((len(rows), *self._shape)))

        return decode

    def _unused(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """An array that nobody else holds: CPython counts references, and tensors hold the array that they are from."""
        with self._lock:
            for array in self._arrays:
                if array.shape == shape and sys.getrefcount(array) == UNHELD:
                    return array
            array = np.empty(shape, dtype=np.float32)
            if array.nbytes * ARRAYS_KEPT <= BYTES_KEPT:
                self._arrays.append(array)
            return array
