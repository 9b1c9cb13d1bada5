"""ImageNet from every layout: the same betons, and everything that a source lacks told at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests import image_sources as sources
from tests.image_sources import TinyImageNet, tar_of, tiny_imagenet
from workers.beton_file import read_beton
from workers.preparation.errors import SourceError
from workers.preparation.imagenet import index_imagenet, prepare_imagenet
from workers.preparation.images import Encoding, load_rgb
from workers.preparation.split import Prepared

Write = Callable[[Path, TinyImageNet], None]


@pytest.fixture(scope="module")
def tiny() -> TinyImageNet:
    return tiny_imagenet()


def prepare(root: Path, tiny: TinyImageNet, out: Path, jpeg_share: float = 0.5) -> list[Prepared]:
    return prepare_imagenet(root, out, encoding=Encoding(jpeg_share=jpeg_share), dataset=tiny.dataset, workers=1)


@pytest.fixture(scope="module")
def from_folders(tiny: TinyImageNet, tmp_path_factory: pytest.TempPathFactory) -> list[Prepared]:
    root = tmp_path_factory.mktemp("ilsvrc")
    sources.write_train_folders(root, tiny)
    sources.write_val_folders(root, tiny)
    return prepare(root, tiny, tmp_path_factory.mktemp("betons"))


def write_kaggle(root: Path, tiny: TinyImageNet) -> None:
    sources.write_train_folders(root / "ILSVRC/Data/CLS-LOC", tiny)
    sources.write_val_flat(root / "ILSVRC/Data/CLS-LOC", tiny)
    rows = [f"{name.removesuffix('.JPEG')},{wnid} 1 2 3 4 {wnid} 5 6 7 8" for name, (wnid, _) in tiny.val.items()]
    (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *reversed(rows)]) + "\n")


def write_class_tars(root: Path, tiny: TinyImageNet) -> None:
    (root / "train").mkdir()
    for wnid, images in tiny.train.items():
        (root / "train" / f"{wnid}.tar").write_bytes(tar_of(images))


@pytest.mark.parametrize(
    "layout",
    [
        (sources.write_train_folders, sources.write_val_flat, sources.write_devkit),
        (sources.write_train_folders, sources.write_val_flat, sources.write_devkit_tar),
        (sources.write_train_tar, sources.write_val_tar, sources.write_devkit_tar),
        (write_class_tars, sources.write_val_tar, sources.write_devkit),
        (write_kaggle,),
    ],
    ids=["flat val, devkit", "flat val, packed devkit", "tar files", "a tar file a class", "Kaggle"],
)
def test_every_layout_gives_the_same_bytes(
    layout: tuple[Write, ...], tiny: TinyImageNet, from_folders: list[Prepared], tmp_path: Path
) -> None:
    root = tmp_path / "ilsvrc"
    root.mkdir()
    for write in layout:
        write(root, tiny)
    before = sorted(root.rglob("*"))
    for prepared, expected in zip(prepare(root, tiny, tmp_path / "out"), from_folders, strict=True):
        assert prepared.path.read_bytes() == expected.path.read_bytes()
        assert prepared.manifest == expected.manifest
    assert sorted(root.rglob("*")) == before  # nothing is unpacked


def test_samples_are_sorted_by_class_and_name_and_labelled_as_torchvision_does(
    tiny: TinyImageNet, tmp_path: Path
) -> None:
    for write in (sources.write_train_folders, sources.write_val_flat, sources.write_devkit):
        write(tmp_path, tiny)
    train, test = prepare(tmp_path, tiny, tmp_path / "out", jpeg_share=0)
    wnids = sorted(tiny.train)
    expected = [
        (label, tiny.train[wnid][name]) for label, wnid in enumerate(wnids) for name in sorted(tiny.train[wnid])
    ]
    assert read_beton(train.path).labels.tolist() == [label for label, _ in expected]
    assert read_beton(test.path).labels.tolist() == [wnids.index(tiny.val[name][0]) for name in sorted(tiny.val)]
    content = train.path.read_bytes()
    for (start, size, height, width, _), (_, file) in zip(
        read_beton(train.path).places.tolist(), expected, strict=True
    ):
        pixels = np.frombuffer(content[start : start + size], np.uint8).reshape(height, width, 3)
        np.testing.assert_array_equal(pixels, load_rgb(file, "x.JPEG")[0])


def test_odd_images_of_imagenet_become_rgb_and_are_counted(from_folders: list[Prepared]) -> None:
    train = from_folders[0].manifest
    assert train["converted"] == {"CMYK": 1, "PNG named .jpeg": 1, "greyscale": 1, "transparency dropped": 1}
    assert train["warnings"] == 4
    assert from_folders[1].manifest["warnings"] == 0


def test_cmyk_and_grey_jpegs_keep_their_colours() -> None:
    array = sources.pixels(3)
    for kind, mode, tolerance in (("JPEG", "CMYK", 8), ("PNG", "RGBA", 0), ("PNG", "RGB", 0)):
        read, _ = load_rgb(sources.image_file(array, kind, mode), "x.JPEG")
        assert np.abs(read.astype(int) - array).max() <= tolerance, mode
    grey, notes = load_rgb(sources.image_file(array, "JPEG", "L"), "x.JPEG")
    assert np.ptp(grey, axis=2).max() == 0
    assert notes == ["greyscale"]


@pytest.fixture
def whole(tiny: TinyImageNet, tmp_path: Path) -> Path:
    for write in (sources.write_train_folders, sources.write_val_flat, sources.write_devkit):
        write(tmp_path, tiny)
    return tmp_path


def problem(root: Path, tiny: TinyImageNet) -> str:
    with pytest.raises(SourceError) as raised:
        index_imagenet(root, tiny.dataset)
    return str(raised.value)


def test_all_that_is_missing_is_told_at_once(whole: Path, tiny: TinyImageNet) -> None:
    wnids = sorted(tiny.train)
    for path in (whole / "train" / wnids[4]).iterdir():
        path.unlink()
    (whole / "val" / "ILSVRC2012_val_00000003.JPEG").unlink()
    message = problem(whole, tiny)
    assert f"training classes without images: {wnids[4]}" in message
    assert "found 27 training images, expected are 30" in message
    assert "has 12 lines, but there are 11 validation images" in message
    assert "Allowed layouts: train/<WordNet id>/*.JPEG or ILSVRC2012_img_train.tar" in message


def test_missing_classes_are_counted_and_named_where_the_validation_images_tell_them(
    whole: Path, tiny: TinyImageNet
) -> None:
    wnid = tiny.val["ILSVRC2012_val_00000001.JPEG"][0]
    (whole / "train" / wnid).rename(whole / "elsewhere")
    message = problem(whole, tiny)
    assert "found 9 training classes, expected are 10" in message
    assert f"validation classes without training images: {wnid}" in message


def test_an_empty_source_is_told_what_is_allowed(tiny: TinyImageNet, tmp_path: Path) -> None:
    message = problem(tmp_path, tiny)
    assert "there is no folder train with a folder for each class, and no ILSVRC2012_img_train.tar" in message
    assert "there is no folder val, and no ILSVRC2012_img_val.tar" in message
    assert "is not a folder" in problem(tmp_path / "nowhere", tiny)


def test_validation_images_without_their_classes_are_told(whole: Path, tiny: TinyImageNet) -> None:
    data = whole / "ILSVRC2012_devkit_t12" / "data"
    truth = data / "ILSVRC2012_validation_ground_truth.txt"
    lines = truth.read_text().splitlines()
    truth.write_text("\n".join([*lines[:-1], "11"]))
    assert "line 12: '11' is no ILSVRC2012_ID of meta.mat" in problem(whole, tiny)
    (data / "meta.mat").write_bytes(b"junk")
    assert "meta.mat cannot be read" in problem(whole, tiny)
    (data / "meta.mat").unlink()
    assert "there is no meta.mat in ILSVRC2012_devkit_t12/data" in problem(whole, tiny)
    (whole / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(b"junk")
    assert "ILSVRC2012_devkit_t12.tar.gz is damaged or not the development kit" in problem(whole, tiny)


@pytest.mark.parametrize("keep", [0.7, 0.05])
def test_a_tar_file_that_ends_too_early_is_told(keep: float, tiny: TinyImageNet, tmp_path: Path) -> None:
    for write in (sources.write_train_tar, sources.write_val_folders):
        write(tmp_path, tiny)
    path = tmp_path / "ILSVRC2012_img_train.tar"
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    assert "ILSVRC2012_img_train.tar is no whole tar file" in problem(tmp_path, tiny)


def test_hidden_files_do_not_count(whole: Path, tiny: TinyImageNet) -> None:
    first = sorted(tiny.train)[0]
    (whole / "train" / first / "._n01440764_1.JPEG").write_bytes(b"a Mac was here")
    (whole / "train" / ".cache").mkdir()
    (whole / "val" / ".DS_Store").write_bytes(b"and here")
    index = index_imagenet(whole, tiny.dataset)
    assert (len(index.train), len(index.val)) == (30, 12)
    assert index_imagenet(whole, replace(tiny.dataset)).wnids == tuple(sorted(tiny.train))
