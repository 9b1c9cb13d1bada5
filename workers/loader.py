"""The data stream: FFCV's Loader, made exact, repeatable and unable to hang. The only module that runs it.

One Stream a process serves every subset, order, seed and epoch of a beton, because what changes between them
is handed to FFCV as data: its "batch indices" are rows that tell, for each sample, its index and the window
to read.
"""

from __future__ import annotations

import functools
from collections.abc import Generator
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers import quiet_ffcv as ffcv
from workers.augment import AUGMENTATIONS, windows
from workers.beton_file import Beton, check_beton, file_identity, read_beton
from workers.decode_operations import Decode, DecodeNormalised

POLL_SECONDS = 0.2
STREAMS_KEPT = 6


class LoaderError(RuntimeError):
    """The data stream broke off; the message says where and why, the exception that did it is the cause."""


def open_stream(
    beton: Path,
    *,
    batch_size: int,
    augmentation: str = "none",
    resolution: int,
    pixel_mean: tuple[float, ...],
    pixel_std: tuple[float, ...],
    device: torch.device,
    workers: int = 1,
) -> Stream:
    """The stream of a beton; opened once a process as long as file and arguments stay the same.

    Args:
        batch_size: samples a batch; the last batch of an epoch may be smaller.
        augmentation: one of `workers.augment.AUGMENTATIONS`.
        resolution: height and width of the inputs in pixels; not used for vectors.
        pixel_mean, pixel_std: one a channel, in stored units; both empty for no normalisation.
        device: where inputs and indices are handed out.
        workers: threads that decode.

    Raises:
        BetonError: the beton is missing or damaged. ValueError: an argument that does not fit the beton.
    """
    constants = (tuple(pixel_mean), tuple(pixel_std))
    identity = file_identity(beton)
    return _opened(beton, identity, batch_size, augmentation, resolution, *constants, device, workers)


def load_all(stream: Stream, indices: NDArray[np.int64], *, augment_key: int = 0) -> tuple[Tensor, Tensor]:
    """All inputs at `indices`, [m, ...], and the indices, both on the device: for data that fits into memory."""
    batches = list(stream.batches(indices, augment_key=augment_key))
    if not batches:
        return stream.nothing()
    inputs, index = zip(*batches, strict=True)
    return torch.cat(inputs), torch.cat(index)


class Stream:
    """Batches of one beton, decoded ahead of use by a thread. Open it with `open_stream`.

    `input_shape` is that of one input, (channels, height, width) or (dimension,); `sample_bytes` is what one
    takes on the device. Several iterations may be under way at once.
    """

    def __init__(
        self,
        beton: Beton,
        *,
        batch_size: int,
        augmentation: str,
        resolution: int,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
        device: torch.device,
        workers: int,
    ) -> None:
        self.beton, self.augmentation, self.device, self.batch_size = beton, augmentation, device, batch_size
        is_array = beton.array_dtype is not None
        self.input_shape = beton.array_shape if is_array else (3, resolution, resolution)
        self._channels_first = is_array and self.input_shape[0] > 1  # one channel is both first and last
        self.sample_bytes = 4 * int(np.prod(self.input_shape))
        _check_arguments(self, pixel_mean, pixel_std, workers)

        if beton.array_dtype is not None:
            shape: tuple[int, ...] = (beton.array_dtype.itemsize * int(np.prod(self.input_shape)),)
            self._stored_dtype = torch.from_numpy(np.empty(0, dtype=beton.array_dtype)).dtype
        else:
            shape, self._stored_dtype = (resolution, resolution, 3), torch.uint8
        self._stored_shape = shape
        per_value = [1] * (len(self.input_shape) - 1)
        mean, std = (
            self._as_stored(
                torch.tensor(constants, dtype=torch.float32).reshape(-1, *per_value).expand(self.input_shape)
            )
            for constants in (pixel_mean or (0.0,), pixel_std or (1.0,))
        )
        self._mean, self._std = mean.to(device), std.to(device)
        transforms: list[Any]
        if device.type == "cpu" and not is_array:
            line = 3 * resolution
            transforms = [DecodeNormalised(beton, shape, workers, mean[:line].numpy(), std[:line].numpy())]
        else:
            transforms = [Decode(beton, shape, workers)]
        transforms.append(ffcv.ToTensor())
        if device.type != "cpu":
            transforms.append(ffcv.ToDevice(device, non_blocking=True))
        decoder, *rest = transforms
        pipelines = dict.fromkeys(beton.fields) | {"image": ffcv.PipelineSpec("image", decoder, rest)}
        self._loader = ffcv.Loader(
            str(beton.path),
            batch_size,
            num_workers=1,
            os_cache=True,
            seed=0,
            drop_last=False,
            pipelines=pipelines,
        )
        self._loader.memory_manager.context.__enter__()  # maps the file now: what was checked is what is read

    def batches(self, indices: NDArray[np.int64], *, augment_key: int = 0) -> Generator[tuple[Tensor, Tensor]]:
        """Exactly the samples at `indices`, int64[m], in this order, each as often as it stands there.

        Yields:
            inputs: float32, (x - mean) / std, [batch, channels, height, width] in channels_last,
                or [batch, dimension].
            index: int64 [batch], original indices, on the device too.

        Both are the caller's to keep. An iteration may be left early.

        Args:
            augment_key: `randomness.key("augment", seed, epoch=epoch)`; ignored by "none" and "center-crop".

        Raises:
            ValueError: an index outside of the beton.
            LoaderError: reading or decoding failed.
        """
        indices = np.array(indices, dtype=np.int64)
        if indices.ndim != 1 or np.any((indices < 0) | (indices >= self.beton.samples)):
            raise ValueError(f"{self.beton.path} has samples 0 to {self.beton.samples - 1}: give a list of these")
        heights, widths = self.beton.places[indices, 2], self.beton.places[indices, 3]
        rows = windows(self.augmentation, indices, heights, widths, augment_key=augment_key)
        return self._batches(rows, torch.from_numpy(indices).to(self.device))

    def _batches(self, rows: NDArray[np.int64], index: Tensor) -> Generator[tuple[Tensor, Tensor]]:
        if len(rows) == 0:
            return
        epoch = _Epoch(self._loader, rows)
        try:
            for expected in torch.split(index, self.batch_size):  # type: ignore[no-untyped-call]
                stored = epoch.next_batch()
                assert len(stored) == len(expected)
                yield self.normalised(stored), expected
        finally:
            epoch.stop()

    def normalised(self, stored: Tensor) -> Tensor:
        """Fresh float32 inputs from stored bytes, which FFCV will overwrite; images decoded on a CPU are that already.

        Works on flat rows and whole rows of constants: ten times as fast on a CPU as broadcasting over channels.
        """
        if stored.dtype == torch.float32:
            return stored.permute(0, 3, 1, 2)
        count = len(stored)
        values = stored.flatten(1).view(self._stored_dtype).to(torch.float32, copy=True)
        values.sub_(self._mean).div_(self._std)
        if len(self.input_shape) != 3:
            return values.view(count, *self.input_shape)
        channels, height, width = self.input_shape
        if self._channels_first:
            return values.view(count, channels, height, width).contiguous(memory_format=torch.channels_last)
        return values.view(count, height, width, channels).permute(0, 3, 1, 2)

    def _as_stored(self, sample: Tensor) -> Tensor:
        """The values of one input, flat, in the order in which the beton stores them."""
        if len(self.input_shape) == 3 and not self._channels_first:
            sample = sample.permute(1, 2, 0)
        return sample.reshape(-1)

    def nothing(self) -> tuple[Tensor, Tensor]:
        """A batch without samples."""
        return self.normalised(self.no_samples()), torch.empty(0, dtype=torch.int64, device=self.device)

    def no_samples(self) -> Tensor:
        """Stored bytes of an empty batch."""
        return torch.empty((0, *self._stored_shape), dtype=torch.uint8, device=self.device)


@functools.lru_cache(maxsize=STREAMS_KEPT)
def _opened(
    path: Path,
    identity: tuple[int, int, int],
    batch_size: int,
    augmentation: str,
    resolution: int,
    pixel_mean: tuple[float, ...],
    pixel_std: tuple[float, ...],
    device: torch.device,
    workers: int,
) -> Stream:
    check_beton(path)
    return Stream(
        read_beton(path),
        batch_size=batch_size,
        augmentation=augmentation,
        resolution=resolution,
        pixel_mean=pixel_mean,
        pixel_std=pixel_std,
        device=device,
        workers=workers,
    )


def _check_arguments(stream: Stream, pixel_mean: tuple[float, ...], pixel_std: tuple[float, ...], workers: int) -> None:
    """Raise one ValueError that names every argument that does not fit the beton."""
    beton, augmentation = stream.beton, stream.augmentation
    channels = stream.input_shape[0] if len(stream.input_shape) == 3 else 1
    problems = []
    if stream.batch_size < 1 or workers < 1:
        problems.append(f"batch_size {stream.batch_size} and workers {workers}: both must be at least 1")
    for name, constants in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
        if len(constants) not in (0, channels):
            problems.append(f"{name} has {len(constants)} values: give one for each of {channels} channels, or none")
    if any(value <= 0 for value in pixel_std):
        problems.append(f"pixel_std {pixel_std}: every value must be above 0")
    if augmentation not in AUGMENTATIONS:
        problems.append(f"augmentation {augmentation!r}: must be one of {', '.join(AUGMENTATIONS)}")
    elif beton.array_dtype is not None and augmentation != "none":
        problems.append(f"augmentation {augmentation!r}: this beton holds arrays, which take none")
    elif beton.array_dtype is None and augmentation in ("none", "crop-flip"):
        sides = np.unique(beton.places[:, 2:4])
        if sides.tolist() != [stream.input_shape[1]]:
            side = stream.input_shape[1]
            problems.append(
                f"augmentation {augmentation!r} needs images of {side} x {side} pixels, sides here are {sides[0]} to "
                f"{sides[-1]}: use resized-crop-flip to train and center-crop to evaluate"
            )
    if problems:
        raise ValueError(f"{beton.path}: " + "; ".join(problems))


class _StoppedError(Exception):
    """Nobody reads this epoch any more."""


class _Epoch(ffcv.EpochIterator):  # type: ignore[misc]
    """One pass, decoded ahead by a thread that can neither die unnoticed nor be left behind."""

    def __init__(self, loader: ffcv.Loader, rows: NDArray[np.int64]) -> None:
        self._failure: BaseException | None = None
        super().__init__(loader, rows)

    def run(self) -> None:
        try:
            super().run()
        except _StoppedError:
            pass
        except BaseException as error:
            self._failure = error

    def run_pipeline(self, b_ix: int, batch_indices: Any, batch_slot: int, cuda_event: Any) -> Any:
        if self.terminate_event.is_set():
            raise _StoppedError
        if ffcv.IS_CUDA:  # FFCV lets the device wait before a pinned buffer is reused, but not the CPU, which writes
            self.cuda_streams[batch_slot].synchronize()
        return super().run_pipeline(b_ix, batch_indices, batch_slot, cuda_event)

    def next_batch(self) -> Tensor:
        """The next batch of stored bytes, a view of a buffer that FFCV reuses. LoaderError if the thread died."""
        while True:
            alive = self.is_alive()  # before looking: what a dying thread put last must still be found
            try:
                batch = self.output_queue.get(timeout=POLL_SECONDS if alive else 0)
                break
            except Empty:
                if not alive:
                    reason = self._failure or "its thread ended without a word"
                    raise LoaderError(f"reading {self.loader.fname} failed: {reason}") from self._failure
        assert batch is not None, "asked for more batches than there are"
        stored: Tensor
        slot, (stored,) = batch
        if ffcv.IS_CUDA:
            self.current_stream.wait_stream(self.cuda_streams[slot])
        return stored

    def stop(self) -> None:
        """End the thread, wait for it, and let pending copies finish before their buffers are freed."""
        self.terminate_event.set()
        while self.is_alive():
            with self.output_queue.mutex:
                self.output_queue.queue.clear()
                self.output_queue.not_full.notify_all()
            self.join(0.01)
        if ffcv.IS_CUDA:
            for stream in self.cuda_streams:
                stream.synchronize()
