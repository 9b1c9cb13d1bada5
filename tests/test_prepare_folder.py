"""Image folders of one's own: classes, a split that stays, facts for a search space, and what cannot be used."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from search_spaces.dataset_choice import DatasetChoice
from tests.image_sources import image_file, pixels
from workers.beton_file import read_beton
from workers.betons import betons_for
from workers.preparation.errors import DamagedImagesError, SourceError
from workers.preparation.image_folder import PreparedFolder, list_images, prepare_folder
from workers.preparation.images import Encoding, load_rgb


def write(root: Path, counts: dict[str, int], first: int = 0) -> None:
    for number, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for image in range(first, first + count):
            (root / name / f"{image:03}.png").write_bytes(image_file(pixels(100 * number + image), "PNG"))


def prepare(source: Path, out: Path, name: str = "pets", workers: int = 1, **more: float) -> PreparedFolder:
    encoding = Encoding(max_side=32, turn_upright=True)
    return prepare_folder(source, out / name, name=name, encoding=encoding, workers=workers, resolution=24, **more)  # type: ignore[arg-type]


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    write(tmp_path / "pets", {"cat": 20, "dog": 10, "fish": 5})
    return tmp_path / "pets"


def test_a_folder_for_each_class_is_split_the_same_way_every_time(pets: Path) -> None:
    names, train, test = list_images(pets, 0.2)
    assert names == ("cat", "dog", "fish")
    assert np.bincount([sample.label for sample in train]).tolist() == [16, 8, 4]
    assert np.bincount([sample.label for sample in test]).tolist() == [4, 2, 1]
    assert (names, train, test) == list_images(pets, 0.2)
    assert train == sorted(train)
    more = {sample.title for sample in list_images(pets, 0.4)[2]}
    assert {sample.title for sample in test} < more


def test_few_images_change_sides_when_images_are_added(pets: Path) -> None:
    before = {sample.title for sample in list_images(pets, 0.2)[2]}
    write(pets, {"cat": 5}, first=20)
    after = {sample.title for sample in list_images(pets, 0.2)[2]}
    assert len(before - after) <= 2


def test_a_single_image_of_a_class_is_trained_on(tmp_path: Path) -> None:
    write(tmp_path, {"cat": 1, "dog": 2})
    _, train, test = list_images(tmp_path, 0.9)
    assert [sample.label for sample in train] == [0, 1]
    assert [sample.label for sample in test] == [1]


@pytest.mark.parametrize("held_out", [["test"], ["val"], ["val", "test"]])
def test_folders_of_held_out_images_are_used_as_they_are(held_out: list[str], tmp_path: Path) -> None:
    write(tmp_path / "train", {"cat": 4, "dog": 3})
    for number, name in enumerate(held_out):
        write(tmp_path / name, {"cat": 2, "dog": 1}, first=10 * (number + 1))
    _, train, test = list_images(tmp_path, 0.2)
    assert (len(train), len(test)) == (7, 3 * len(held_out))


def test_a_train_folder_alone_is_split(tmp_path: Path) -> None:
    write(tmp_path / "train", {"cat": 5, "dog": 5})
    assert [len(part) for part in list_images(tmp_path, 0.2)[1:]] == [8, 2]


def test_a_class_that_is_called_train_is_a_class(tmp_path: Path) -> None:
    write(tmp_path, {"plane": 4, "train": 4})
    assert list_images(tmp_path, 0.25)[0] == ("plane", "train")


def test_the_snippet_is_what_a_search_space_takes_and_launch_finds_the_betons(pets: Path, tmp_path: Path) -> None:
    made = prepare(pets, tmp_path / "data")
    document = yaml.safe_load(made.snippet.read_text())
    choice = DatasetChoice(**document["dataset"])
    assert (choice.name, choice.facts) == ("pets", made.facts)
    facts = made.facts
    assert (facts.classes, facts.resolution, facts.train_samples, facts.test_samples) == (3, 24, 28, 7)
    assert facts.version.startswith("pets-")
    assert len(facts.version) == len("pets-") + 16
    betons = betons_for(choice.described, tmp_path / "data", seed=0, samples=10, dimension=0, signal=None)
    assert read_beton(betons.train).samples == 28
    assert made.betons[0].manifest["version"] == facts.version
    assert all(0 < value < 255 for value in (*facts.pixel_mean, *facts.pixel_std))


def test_the_version_changes_with_content_and_settings_and_nothing_else(pets: Path, tmp_path: Path) -> None:
    first = prepare(pets, tmp_path / "a")
    assert not any(one.written for one in prepare(pets, tmp_path / "a").betons)
    moved = pets.rename(tmp_path / "moved")
    assert prepare(moved, tmp_path / "b", workers=2).facts == first.facts
    versions = {first.facts.version, prepare(moved, tmp_path / "c", test_share=0.3).facts.version}
    path = moved / "cat" / "003.png"
    path.write_bytes(image_file(pixels(9999), "PNG"))
    versions.add(prepare(moved, tmp_path / "d").facts.version)
    (moved / "fish").rename(moved / "frog")
    versions.add(prepare(moved, tmp_path / "e").facts.version)
    assert len(versions) == 4


def test_photos_are_turned_upright(tmp_path: Path) -> None:
    array = pixels(1, 20, 30)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    content = io.BytesIO()
    Image.fromarray(array).save(content, "PNG", exif=exif)
    upright, notes = load_rgb(content.getvalue(), "photo.png", turn_upright=True)
    np.testing.assert_array_equal(upright, np.rot90(array, -1))
    assert notes == ["turned upright"]
    assert load_rgb(content.getvalue(), "photo.png")[0].shape == (20, 30, 3)


def test_images_of_sixteen_bits_keep_their_upper_eight() -> None:
    grey = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    content = io.BytesIO()
    Image.fromarray(grey).save(content, "PNG")
    read, notes = load_rgb(content.getvalue(), "scan.png")
    np.testing.assert_array_equal(read[..., 1], grey >> 8)
    assert notes == ["greyscale"]


@pytest.mark.parametrize("name", ["cifar10", "Pets", "my pets", "../pets", "", "pets-", "p" * 39])
def test_a_name_that_cannot_be_used_is_told(name: str, pets: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="--name"):
        prepare(pets, tmp_path, name)


def test_sources_that_cannot_be_used_are_told_with_what_is_allowed(tmp_path: Path) -> None:
    def problem() -> str:
        with pytest.raises(SourceError) as raised:
            list_images(tmp_path / "source", 0.2)
        return str(raised.value)

    assert "is not a folder" in problem()
    (tmp_path / "source").mkdir()
    assert "holds 0 folders, one a class; at least two are needed" in problem()
    write(tmp_path / "source", {"cat": 1, "dog": 0, "fish": 0})
    (tmp_path / "source" / "dog" / "notes.txt").write_text("a good dog")
    assert "dog holds no images (.jpg, " in problem()
    assert "fish holds no images" in problem()
    write(tmp_path / "source", {"dog": 1, "fish": 1})
    assert "leaves no images to test on" in problem()
    write(tmp_path / "source" / "train", {"cat": 1, "dog": 1})
    write(tmp_path / "source" / "test", {"cow": 1})
    assert "cow is of a class that" in problem()


def test_damaged_images_of_both_splits_are_named_together(pets: Path, tmp_path: Path) -> None:
    _, train, test = list_images(pets, 0.2)
    for sample in (train[3], test[0]):
        Path(sample.title).write_bytes(Path(sample.title).read_bytes()[:300])
    with pytest.raises(DamagedImagesError) as raised:
        prepare(pets, tmp_path / "out")
    assert [name for name, _ in raised.value.damaged] == [train[3].title, test[0].title]
    assert not list((tmp_path / "out").rglob("*.beton"))
