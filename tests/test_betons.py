"""Betons: written whole or not at all, equal to their source, and refused when damaged before FFCV reads them."""

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from search_spaces.datasets import DATASETS
from tests.waiting import PATIENCE_SECONDS
from workers.beton_file import ALWAYS_HASHED_BYTES, manifest_path, read_beton, write_beton
from workers.betons import (
    BetonError,
    betons_for,
    check_beton,
    prepare_digits,
    prepare_mixture,
    true_labels,
)
from workers.loader import load_all, open_stream
from workers.mixture import sample_mixture

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    prepare_digits(folder)
    return folder


@pytest.fixture
def beton(digits: Path, tmp_path: Path) -> Path:
    """A copy of the digits to damage, manifest included."""
    for name in ("train.beton", "train.beton.json"):
        shutil.copy(digits / name, tmp_path / name)
    return tmp_path / "train.beton"


def stored(path: Path) -> np.ndarray:
    """All samples as they are stored, through FFCV's Loader."""
    stream = open_stream(path, batch_size=256, resolution=8, pixel_mean=(), pixel_std=(), device=CPU)
    return load_all(stream, np.arange(read_beton(path).samples))[0].numpy()


def test_digits_are_scikit_learns_split_once_and_stratified(digits: Path) -> None:
    source = load_digits()
    written = np.concatenate([stored(digits / "train.beton"), stored(digits / "test.beton")])[:, 0]
    labels = np.concatenate([true_labels(digits / "train.beton"), true_labels(digits / "test.beton")])
    assert sorted(image.tobytes() + bytes([label]) for image, label in zip(written, labels, strict=True)) == sorted(
        image.astype(np.float32).tobytes() + bytes([label])
        for image, label in zip(source.images, source.target, strict=True)
    )
    train_counts = np.bincount(true_labels(digits / "train.beton"))
    assert np.all(np.abs(train_counts - np.bincount(source.target) * 700 / 1797) < 1)


def test_a_mixture_beton_holds_exactly_what_was_drawn(tmp_path: Path) -> None:
    path = prepare_mixture(tmp_path, samples=50, dimension=7, signal=10.0, seed=3)
    vectors, labels = sample_mixture(50, 7, signal=10.0, seed=3)
    np.testing.assert_array_equal(stored(path), vectors)
    np.testing.assert_array_equal(true_labels(path), labels)
    assert path != prepare_mixture(tmp_path, samples=50, dimension=7, signal=10.0, seed=4)


def test_a_mixture_beton_of_more_dimensions_serves_runs_of_fewer(tmp_path: Path) -> None:
    large = prepare_mixture(tmp_path, samples=50, dimension=9, signal=10.0, seed=3)
    assert prepare_mixture(tmp_path, samples=50, dimension=7, signal=10.0, seed=3) == large
    np.testing.assert_array_equal(stored(large)[:, :7], sample_mixture(50, 7, signal=10.0, seed=3)[0])
    assert prepare_mixture(tmp_path, samples=50, dimension=10, signal=10.0, seed=3) != large


def test_a_sample_larger_than_ffcvs_smallest_page_fits(tmp_path: Path) -> None:
    vectors = np.arange(3 * 600_000, dtype=np.float32).reshape(3, -1)  # 2.4 MB each
    path = tmp_path / "large.beton"
    write_beton(path, lambda: (vectors, np.arange(3)), samples=3, dataset="large", version="1")
    np.testing.assert_array_equal(stored(path), vectors)


def test_preparing_again_writes_nothing_and_writing_is_silent(
    digits: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in digits.iterdir()}
    prepare_digits(digits)
    assert {path.name: path.stat().st_mtime_ns for path in digits.iterdir()} == before
    assert not [name for name in before if "unfinished" in name]
    prepare_mixture(tmp_path, samples=5, dimension=3, signal=1.0, seed=0)
    assert capfd.readouterr() == ("", "")


def test_an_unfinished_or_older_beton_is_written_again(beton: Path) -> None:
    whole = beton.read_bytes()
    manifest_path(beton).unlink()  # the process died between its two renames
    beton.write_bytes(whole[:1000])
    prepare_digits(beton.parent)
    assert beton.read_bytes() == whole
    manifest = json.loads(manifest_path(beton).read_text())
    manifest_path(beton).write_text(json.dumps(manifest | {"version": "an older one"}))
    prepare_digits(beton.parent)
    assert json.loads(manifest_path(beton).read_text()) == manifest


def test_a_failure_while_making_leaves_no_file_behind(tmp_path: Path) -> None:
    def make() -> tuple[np.ndarray, np.ndarray]:
        raise MemoryError("no room")

    with pytest.raises(MemoryError):
        write_beton(tmp_path / "x.beton", make, samples=3, dataset="x", version="1")
    assert {path.name for path in tmp_path.iterdir()} == {".lock"}


def test_two_processes_may_prepare_at_once(tmp_path: Path) -> None:
    processes = [get_context("spawn").Process(target=prepare_digits, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    check_beton(tmp_path / "train.beton", samples=700, thorough=True)
    check_beton(tmp_path / "test.beton", samples=1097, thorough=True)


def overwrite(start: float, stop: float) -> Callable[[bytes], bytes]:
    """Zero the bytes between two fractions of the file."""

    def damage(content: bytes) -> bytes:
        first, last = int(start * len(content)), int(stop * len(content))
        return content[:first] + bytes(last - first) + content[last:]

    return damage


@pytest.mark.parametrize("with_manifest", [True, False])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"", "truncated or not an FFCV file"),
        (lambda content: bytes(len(content)), "not an FFCV file"),
        (lambda content: b"PK" + content[2:], "not an FFCV file of version 2"),
        (lambda content: content[:10], "truncated"),
        (lambda content: content[:3000], "truncated"),
        (lambda content: content[: len(content) // 2], "truncated"),
        (lambda content: content[:-100], "truncated|allocation table"),
        (overwrite(24 / 2_000_000, 0.0005), "field|truncated"),
        (overwrite(0.002, 0.004), "points to no allocated data"),
        (overwrite(0.995, 1), "allocation table|points to no allocated data"),
        (lambda content: content.replace(b"image\0", b"photo\0"), 'no field "image"'),
    ],
)
def test_a_damaged_beton_is_refused_with_its_name_and_a_next_step(
    beton: Path, damage: Callable[[bytes], bytes], message: str, with_manifest: bool
) -> None:
    beton.write_bytes(damage(beton.read_bytes()))
    if not with_manifest:
        manifest_path(beton).unlink()
    with pytest.raises(BetonError, match=message) as raised:
        open_stream(beton, batch_size=64, resolution=8, pixel_mean=(), pixel_std=(), device=CPU)
    assert str(beton) in str(raised.value)
    assert "write" in str(raised.value)


def test_changed_pixels_are_found_by_the_checksum(beton: Path) -> None:
    check_beton(beton, samples=700)
    content = bytearray(beton.read_bytes())
    start = int(read_beton(beton).places[350, 0])
    content[start : start + 64] = bytes(64)  # the structure stays sound
    beton.write_bytes(content)
    assert len(content) < ALWAYS_HASHED_BYTES
    with pytest.raises(BetonError, match="its bytes changed"):
        check_beton(beton)
    check_beton(beton, thorough=False)


def test_what_else_is_wrong_is_said(beton: Path, tmp_path: Path) -> None:
    with pytest.raises(BetonError, match="there is no such beton"):
        check_beton(tmp_path / "nowhere.beton")
    with pytest.raises(BetonError, match="it holds 700 samples, wanted are 50000"):
        check_beton(beton, samples=50_000)
    manifest_path(beton).write_text("{")
    with pytest.raises(BetonError, match="manifest cannot be read"):
        check_beton(beton)


def test_embedded_data_sets_are_made_and_others_are_asked_for(tmp_path: Path) -> None:
    digits = betons_for(DATASETS["digits"], tmp_path, seed=0, samples=500, dimension=0, signal=None)
    assert digits.test == tmp_path / "digits" / "test.beton"
    mixture = betons_for(DATASETS["gaussian-mixture"], tmp_path, seed=1, samples=20, dimension=5, signal=2.0)
    assert mixture.test is None
    assert read_beton(mixture.train).array_shape == (5,)
    with pytest.raises(ValueError, match="signal = None"):
        betons_for(DATASETS["gaussian-mixture"], tmp_path, seed=1, samples=20, dimension=5, signal=None)
    with pytest.raises(BetonError, match=r"cifar10/train\.beton: .*bo-sweep prepare cifar10 --download"):
        betons_for(DATASETS["cifar10"], tmp_path, seed=0, samples=500, dimension=0, signal=None)


def test_labels_outside_of_the_classes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.betons.check_beton", lambda path, samples: None)  # it wants 50,000 samples
    images, labels, version = np.zeros((2, 3), np.uint8), np.array([0, 10]), DATASETS["cifar10"].version
    for name in ("train", "test"):
        path = tmp_path / "cifar10" / f"{name}.beton"
        write_beton(path, lambda: (images, labels), samples=2, dataset="cifar10", version=version)
    with pytest.raises(BetonError, match=r"labels lie in 0\.\.10, not 0\.\.9"):
        betons_for(DATASETS["cifar10"], tmp_path, seed=0, samples=2, dimension=0, signal=None)
    assert DATASETS["cifar10"].classes == 10


@pytest.mark.parametrize(("dataset", "version"), [("cifar100", None), ("cifar10", "another")])
def test_betons_of_another_data_set_or_version_are_refused(
    dataset: str, version: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.betons.check_beton", lambda path, samples: None)
    written = version or DATASETS["cifar10"].version
    for name in ("train", "test"):
        path = tmp_path / "cifar10" / f"{name}.beton"
        write_beton(
            path, lambda: (np.zeros((2, 3), np.uint8), np.arange(2)), samples=2, dataset=dataset, version=written
        )
    with pytest.raises(
        BetonError, match=r"it holds (dataset 'cifar100'|version 'another'), wanted is 'cifar"
    ) as raised:
        betons_for(DATASETS["cifar10"], tmp_path, seed=0, samples=2, dimension=0, signal=None)
    assert "bo-sweep prepare cifar10" in str(raised.value)


@pytest.mark.slow
def test_ffcv_as_it_comes_reads_our_beton_the_same(digits: Path) -> None:
    script = """
import sys, numpy as np
from ffcv.loader import Loader, OrderOption
loader = Loader(sys.argv[1], batch_size=100, num_workers=1, order=OrderOption.SEQUENTIAL, drop_last=False)
images, labels = (np.concatenate(parts) for parts in zip(*((i.numpy().copy(), l.numpy().copy()) for i, l in loader)))
np.savez(sys.argv[2], images=images, labels=labels)
"""
    output = digits / "read.npz"
    subprocess.run(
        [sys.executable, "-c", script, str(digits / "train.beton"), str(output)], check=True, timeout=PATIENCE_SECONDS
    )
    read = np.load(output)
    np.testing.assert_array_equal(read["images"], stored(digits / "train.beton"))
    np.testing.assert_array_equal(read["labels"][:, 0], true_labels(digits / "train.beton"))


def test_an_error_survives_the_way_home_from_a_worker() -> None:
    error = BetonError(Path("train.beton"), "there is no such beton")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
