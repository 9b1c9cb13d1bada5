"""What the loaders are compared with: photographs that are the same every time, and feeds that give the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import loading
from benchmarks.loading import beton, figures
from benchmarks.measuring.contestants import contestants
from benchmarks.measuring.epochs import Epoch
from benchmarks.measuring.feeds import View, open_data_loader, open_ours
from benchmarks.measuring.photos import Photos, photo, write_photos
from tests.bare_ffcv import read_all, read_bare
from workers.beton_file import read_beton

SMALL = View(trains=False, resolution=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photographs in every mode, written in a process of its own."""
    folder = tmp_path_factory.mktemp("photos")
    with contestants(["writer"], cores=1) as found:
        found["writer"].call(loading.prepare, folder, 12)
    return folder


def test_a_photograph_depends_on_its_number_alone_and_is_as_hard_to_decode_as_a_real_one(tmp_path: Path) -> None:
    assert np.array_equal(photo(3), photo(3))
    assert not np.array_equal(photo(3, (64, 64)), photo(4, (64, 64)))
    sizes = [photo(number).shape for number in range(6)]
    assert all(315 <= height < 385 and 360 <= width < 440 for height, width, _ in sizes)
    assert 30_000 < write_photos(tmp_path / "photos", 6, processes=2) / 6 < 60_000
    assert [image.shape for image, _ in Photos(tmp_path / "photos")] == sizes


def test_betons_hold_what_their_modes_say(folder: Path) -> None:
    jpegs = {mode: int(read_beton(beton(folder, mode)).places[:, 4].sum()) for mode in loading.MODES}
    assert (jpegs["JPEG"], jpegs["raw"]) == (12, 0)
    assert 0 < jpegs["half JPEG"] < 12


def test_all_feeds_give_the_same_normalised_images(folder: Path) -> None:
    """To a float32 rounding of FFCV's table, from the same beton; Pillow's filter and JPEG files differ a little."""
    ours = read_all(open_ours(beton(folder, "JPEG"), SMALL, batch_size=5, workers=2))
    files = read_all(open_data_loader(folder / "photos", SMALL, batch_size=5, workers=1))
    with contestants(["bare"], cores=1) as found:
        bare = found["bare"].call(read_bare, beton(folder, "JPEG"), SMALL)
    assert ours.shape == files.shape == bare.shape == (12, 3, 64, 64)
    assert ours.dtype == files.dtype == bare.dtype == np.float32
    np.testing.assert_allclose(bare, ours, atol=1e-5)
    assert np.abs(files - ours).mean() < 0.2 * ours.std()


def test_figures_are_ratios_within_each_round() -> None:
    ways = [("ours", mode) for mode in loading.MODES] + [("bare FFCV", mode) for mode in loading.MODES]
    wall = {"ours": 1.0, "bare FFCV": 2.0, "DataLoader": 4.0}
    taken = {
        (way, mode, view): [Epoch(100, wall[way], 2 * wall[way]), Epoch(100, 10 * wall[way], wall[way])]
        for way, mode in [*ways, ("DataLoader", "JPEG")]
        for view in loading.VIEWS
    }
    found = {figure.what: figure.values for figure in figures(taken)}
    assert found["train 160 px: ours, JPEG"] == (100.0, 10.0)
    assert found["train 160 px: ours, raw / bare FFCV"] == (2.0, 2.0)
    assert found["evaluate 224 px: ours, JPEG / DataLoader, JPEG files, per CPU second"] == (4.0, 4.0)
