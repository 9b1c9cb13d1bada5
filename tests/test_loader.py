"""The data stream: exact, the same however it is cut, safe to keep and to leave, and never waiting for ever."""

import threading
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch

from workers import quiet_ffcv as ffcv
from workers.augment import sample_bits, windows
from workers.beton_file import BetonError, read_beton, write_beton
from workers.decode_operations import Decode, DecodeNormalised
from workers.loader import LoaderError, Stream, load_all, open_stream
from workers.randomness import bits, key

CPU = torch.device("cpu")
SAMPLES, SIDE = 90, 32
MEAN, STD = (100.0, 120.0, 140.0), (50.0, 60.0, 70.0)
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (SAMPLES, SIDE, SIDE, 3), dtype=np.uint8)
PHOTOS = [RANDOM.integers(0, 256, (*RANDOM.integers(40, 90, 2), 3), dtype=np.uint8) for _ in range(40)]
VECTORS = RANDOM.standard_normal((50, 5)).astype(np.float32)


class Pairs(list[Any]):
    """What FFCV's writer takes."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Betons written by FFCV's own writer, forks and all: raw images, JPEGs of many sizes; and vectors of ours."""
    folder = tmp_path_factory.mktemp("betons")
    for name, images, mode in (("raw", IMAGES, "raw"), ("photos", PHOTOS, "jpg")):
        fields = {"image": ffcv.RGBImageField(write_mode=mode, jpeg_quality=95), "label": ffcv.IntField()}
        writer = ffcv.DatasetWriter(str(folder / f"{name}.beton"), fields, num_workers=1)
        writer.from_indexed_dataset(Pairs((image, i % 10) for i, image in enumerate(images)))
    write_arrays(folder / "vectors.beton", VECTORS)
    return folder


def write_arrays(path: Path, arrays: np.ndarray) -> None:
    labels = np.arange(len(arrays))
    write_beton(path, lambda: (arrays, labels), samples=len(arrays), dataset="arrays", version="1")


def raw(folder: Path, *, batch_size: int = 32, augmentation: str = "none", workers: int = 1) -> Stream:
    return open_stream(
        folder / "raw.beton",
        batch_size=batch_size,
        augmentation=augmentation,
        resolution=SIDE,
        pixel_mean=MEAN,
        pixel_std=STD,
        device=CPU,
        workers=workers,
    )


def photos(folder: Path, augmentation: str, *, batch_size: int = 16, workers: int = 1) -> Stream:
    return open_stream(
        folder / "photos.beton",
        batch_size=batch_size,
        augmentation=augmentation,
        resolution=24,
        pixel_mean=(),
        pixel_std=(),
        device=CPU,
        workers=workers,
    )


def normalised(images: np.ndarray) -> np.ndarray:
    pixels = (images.astype(np.float32) - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return pixels.transpose(0, 3, 1, 2)


@pytest.mark.parametrize("batch_size", [1, 32, 45, 500])
def test_exactly_the_given_samples_in_the_given_order(folder: Path, batch_size: int) -> None:
    indices = np.random.default_rng(1).permutation(SAMPLES)
    batches = list(raw(folder, batch_size=batch_size).batches(indices))
    assert [len(index) for _, index in batches[:-1]] == [batch_size] * (len(batches) - 1)
    np.testing.assert_array_equal(np.concatenate([index for _, index in batches]), indices)
    inputs = torch.cat([inputs for inputs, _ in batches])  # kept until now: no buffer was used again
    assert inputs.dtype == torch.float32
    assert batches[0][0].is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(inputs, normalised(IMAGES[indices]))


def test_vectors_come_as_they_are_and_grey_images_in_channels_last(folder: Path, tmp_path: Path) -> None:
    plain: dict[str, Any] = {"batch_size": 16, "resolution": 1, "pixel_mean": (), "pixel_std": (), "device": CPU}
    inputs, index = load_all(open_stream(folder / "vectors.beton", **plain), np.array([7, 7, 49, 0]))
    np.testing.assert_array_equal(inputs, VECTORS[[7, 7, 49, 0]])
    assert index.tolist() == [7, 7, 49, 0]

    for channels in (1, 2):
        stored = RANDOM.integers(0, 17, (20, channels, 4, 6), dtype=np.uint8)
        path = tmp_path / f"{channels}.beton"
        write_arrays(path, stored)
        constants: dict[str, Any] = {"pixel_mean": (3.0, 5.0)[:channels], "pixel_std": (2.0, 4.0)[:channels]}
        inputs, _ = load_all(open_stream(path, **plain | constants), np.arange(20))
        expected = (stored - np.reshape(constants["pixel_mean"], (-1, 1, 1))) / np.reshape(
            constants["pixel_std"], (-1, 1, 1)
        )
        np.testing.assert_array_equal(inputs, expected.astype(np.float32))
        assert inputs.stride() == (24 * channels, 1, 6 * channels, channels)


def test_one_stream_serves_every_subset(folder: Path) -> None:
    stream = raw(folder)
    load_all(stream, np.arange(5))
    for seed in range(20):
        subset = np.random.default_rng(seed).permutation(SAMPLES)[: 1 + 4 * seed]
        inputs, index = load_all(stream, subset)
        np.testing.assert_array_equal(index, subset)
        np.testing.assert_array_equal(inputs, normalised(IMAGES[subset]))
    assert raw(folder) is stream


def test_two_iterations_at_once_do_not_mix(folder: Path) -> None:
    stream = raw(folder, batch_size=8)
    forwards, backwards = np.arange(SAMPLES), np.arange(SAMPLES)[::-1].copy()
    for (x, i), (y, j) in zip(stream.batches(forwards), stream.batches(backwards), strict=True):
        np.testing.assert_array_equal(x, normalised(IMAGES[i]))
        np.testing.assert_array_equal(y, normalised(IMAGES[j]))


def test_no_indices_give_no_batches(folder: Path) -> None:
    none = np.empty(0, dtype=np.int64)
    assert list(raw(folder).batches(none)) == []
    inputs, index = load_all(raw(folder), none)
    assert inputs.shape == (0, 3, SIDE, SIDE)
    assert index.shape == (0,)


def crop_flip(images: np.ndarray, indices: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Pad with four black pixels, crop, mirror: written for reading, one image after another."""
    result = []
    for index, random in zip(indices, bits("augment", seed, indices, epoch=epoch).tolist(), strict=True):
        padded = np.pad(images[index], ((4, 4), (4, 4), (0, 0)))
        top, left = (9 * (random >> shift & 0xFFFFFF) >> 24 for shift in (0, 24))
        image = padded[top : top + SIDE, left : left + SIDE]
        result.append(image[:, ::-1] if random >> 63 else image)
    return np.stack(result)


def test_crop_and_flip_agree_with_the_plain_way(folder: Path) -> None:
    stream = raw(folder, augmentation="crop-flip")
    indices = np.random.default_rng(2).permutation(SAMPLES)
    for seed, epoch in ((0, 0), (0, 1), (5, 0)):
        inputs, _ = load_all(stream, indices, augment_key=key("augment", seed, epoch=epoch))
        np.testing.assert_array_equal(inputs, normalised(crop_flip(IMAGES, indices, seed, epoch)))


@pytest.mark.parametrize("augmentation", ["crop-flip", "resized-crop-flip", "center-crop"])
def test_augmentation_is_the_same_however_the_epoch_is_cut(folder: Path, augmentation: str) -> None:
    def sorted_inputs(seed: int, epoch: int, *, batch_size: int, workers: int, shuffle: int) -> torch.Tensor:
        build = raw if augmentation == "crop-flip" else photos
        stream = build(folder, augmentation=augmentation, batch_size=batch_size, workers=workers)
        indices = np.random.default_rng(shuffle).permutation(40)
        inputs, index = load_all(stream, indices, augment_key=key("augment", seed, epoch=epoch))
        return inputs[torch.argsort(index)]

    reference = sorted_inputs(0, 3, batch_size=16, workers=1, shuffle=0)
    for batch_size, workers, shuffle in ((7, 1, 1), (64, 1, 2), (16, 2, 3), (7, 2, 4)):
        assert torch.equal(reference, sorted_inputs(0, 3, batch_size=batch_size, workers=workers, shuffle=shuffle))
    for seed, epoch in ((0, 4), (1, 3)):
        other = sorted_inputs(seed, epoch, batch_size=16, workers=1, shuffle=0)
        differing = (reference != other).flatten(1).any(1).float().mean()
        assert differing == 0 if augmentation == "center-crop" else differing > 0.9


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", ["raw", "photos"])
def test_images_normalised_while_they_are_decoded_are_those_normalised_later(
    folder: Path, name: str, workers: int
) -> None:
    """On a CPU and on another device: the same bytes, the same float32 arithmetic."""
    beton = read_beton(folder / f"{name}.beton")
    indices = np.random.default_rng(3).permutation(40)
    heights, widths = beton.places[indices, 2:4].T
    rows = windows("resized-crop-flip", indices, heights, widths, augment_key=key("augment", 0))
    storage = (np.fromfile(beton.path, dtype=np.uint8),)
    shape = (24, 20, 3)
    mean, std = (np.tile(np.array(constants, np.float32), 20) for constants in (MEAN, STD))
    stored = np.zeros((len(rows), *shape), dtype=np.uint8)
    assert Decode(beton, shape, workers).generate_code()(rows, stored, None, storage) is stored
    fused = DecodeNormalised(beton, shape, workers, mean, std).generate_code()(rows, None, None, storage)
    assert fused.dtype == np.float32
    np.testing.assert_array_equal(fused.transpose(0, 3, 1, 2), normalised(stored))
    assert len(np.unique(stored)) > 200


def test_a_batch_that_is_held_in_any_form_is_not_written_to_again(folder: Path) -> None:
    stream = raw(folder, batch_size=30)
    held = [inputs[3:7, :, ::2].numpy() for inputs, _ in stream.batches(np.arange(SAMPLES))]
    for _ in range(5):  # by now every array that nobody holds has been used again
        for _ in stream.batches(np.arange(SAMPLES)[::-1].copy()):
            pass
    for first, part in zip((0, 30, 60), held, strict=True):
        np.testing.assert_array_equal(part, normalised(IMAGES[first + 3 : first + 7])[:, :, ::2])


def test_random_windows_lie_inside_and_spread_as_they_should() -> None:
    indices = np.arange(20_000)
    heights, widths = np.full(20_000, 300), np.full(20_000, 400)
    _, top, left, height, width, mirrored = windows(
        "resized-crop-flip", indices, heights, widths, augment_key=key("augment", 0)
    ).T
    assert top.min() >= 0
    assert left.min() >= 0
    assert (top + height).max() <= 300
    assert (left + width).max() <= 400
    area, ratio = height * width / 120_000, width / height
    assert 0.078 < area.min() < 0.09
    assert 0.4 < area.mean() < 0.54  # .54, less where a large window does not fit
    assert 0.74 < ratio.min() < 0.76
    assert 1.31 < ratio.max() < 1.36
    assert abs(mirrored.mean() - 0.5) < 0.02

    tall = windows("resized-crop-flip", indices[:5], np.full(5, 500), np.full(5, 2), augment_key=0)
    assert np.all(tall[:, 3] <= 3), "no window fits: the largest central one of aspect 3/4"
    moved = windows("crop-flip", indices, heights, widths, augment_key=key("augment", 1))
    assert np.bincount(moved[:, 1] + 4).min() > 20_000 / 9 * 0.9
    assert len(np.bincount(moved[:, 2] + 4)) == 9


def test_a_resized_window_shows_that_window(tmp_path: Path) -> None:
    rows, columns = np.meshgrid(np.arange(80), np.arange(60), indexing="ij")
    slope = np.stack([3 * rows, 4 * columns, 0 * rows], axis=2).astype(np.uint8)
    path = tmp_path / "slope.beton"
    fields = {"image": ffcv.RGBImageField(write_mode="raw"), "label": ffcv.IntField()}
    ffcv.DatasetWriter(str(path), fields, num_workers=1).from_indexed_dataset(Pairs([(slope, 0)] * 3))
    for augmentation in ("resized-crop-flip", "center-crop"):
        stream = open_stream(
            path, batch_size=3, augmentation=augmentation, resolution=20, pixel_mean=(), pixel_std=(), device=CPU
        )
        inputs, _ = load_all(stream, np.arange(3), augment_key=11)
        sides = np.full(3, 80), np.full(3, 60)
        for image, window in zip(inputs, windows(augmentation, np.arange(3), *sides, augment_key=11), strict=True):
            _, top, left, height, width, mirrored = window
            shown = image.flip(2) if mirrored else image
            assert abs(shown[0].mean().item() / 3 - (top + (height - 1) / 2)) < 0.5
            assert abs(shown[1].mean().item() / 4 - (left + (width - 1) / 2)) < 0.5


def test_thread_counts_stay_as_they_were(folder: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    counts = torch.get_num_threads(), numba.get_num_threads()
    try:
        for workers in (1, 2):
            stream = raw(folder, batch_size=11, workers=workers)
            for _ in stream.batches(np.arange(50)):
                assert (torch.get_num_threads(), numba.get_num_threads()) == counts
        assert (torch.get_num_threads(), numba.get_num_threads()) == counts
    finally:
        torch.set_num_threads(before)


def test_leaving_an_epoch_early_leaves_no_thread_behind(folder: Path) -> None:
    stream = raw(folder, batch_size=2)
    load_all(stream, np.arange(4))
    for _ in range(10):
        for _ in stream.batches(np.arange(SAMPLES)):
            break
        abandoned = stream.batches(np.arange(SAMPLES))
        next(abandoned)
        del abandoned
    stream.batches(np.arange(SAMPLES))  # never started
    assert not [thread for thread in threading.enumerate() if isinstance(thread, ffcv.EpochIterator)]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_jpeg_is_an_error_that_names_the_sample(folder: Path, tmp_path: Path, workers: int) -> None:
    path = tmp_path / "photos.beton"
    content = bytearray((folder / "photos.beton").read_bytes())
    start, size = read_beton(folder / "photos.beton").places[17, :2]
    content[start : start + size] = bytes(size)
    path.write_bytes(content)
    stream = photos(tmp_path, "center-crop", batch_size=4, workers=workers)
    with pytest.raises(LoaderError, match=r"photos.beton failed: the JPEG of sample 17 is damaged") as raised:
        load_all(stream, np.arange(40))
    assert isinstance(raised.value.__cause__, ValueError)
    load_all(stream, np.arange(17))  # the others can still be read


def test_a_thread_that_dies_without_a_word_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffcv.EpochIterator, "run", lambda self: None)
    with pytest.raises(LoaderError, match="ended without a word"):
        load_all(raw(folder), np.arange(10))


def test_what_does_not_fit_is_said_at_once(folder: Path) -> None:
    for indices in ([-1], [SAMPLES], [[0]]):
        with pytest.raises(ValueError, match=f"samples 0 to {SAMPLES - 1}"):
            raw(folder).batches(np.array(indices))
    with pytest.raises(ValueError, match="must be one of none, crop-flip") as raised:
        raw(folder, augmentation="rotate", batch_size=0)
    assert "batch_size 0" in str(raised.value)
    with pytest.raises(ValueError, match="use resized-crop-flip to train and center-crop to evaluate"):
        photos(folder, "none")
    arguments: dict[str, Any] = {
        "batch_size": 4,
        "resolution": 1,
        "device": CPU,
        "pixel_mean": (1.0, 2.0),
        "pixel_std": (0.0,),
    }
    with pytest.raises(ValueError, match=r"one for each of 1 channels.*every value must be above 0"):
        open_stream(folder / "vectors.beton", **arguments)
    with pytest.raises(ValueError, match="holds arrays"):
        open_stream(folder / "vectors.beton", augmentation="crop-flip", **arguments)
    with pytest.raises(BetonError, match="there is no such beton"):
        raw(folder / "elsewhere")


def test_the_key_gives_the_bits_of_the_augment_stream() -> None:
    indices = np.array([0, 5, 2**31])
    np.testing.assert_array_equal(
        sample_bits(indices, key("augment", 3, epoch=2)), bits("augment", 3, indices, epoch=2)
    )
