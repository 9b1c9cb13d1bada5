"""`bo-sweep prepare` as users meet it: what it prints, exit codes, and `verify`."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from orchestrator.cli import main
from search_spaces.datasets import DATASETS
from tests import image_sources as sources
from tests.chaos.places import why_no_tiny_disk
from tests.image_sources import image_file, pixels, tiny_cifar, tiny_imagenet
from tests.waiting import PATIENCE_SECONDS, wait_for
from workers.beton_file import manifest_path, read_beton
from workers.preparation import split
from workers.preparation.cifar import CIFAR_ARCHIVES
from workers.preparation.images import Encoding
from workers.preparation.verify import verify_beton


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["prepare", *map(str, arguments)])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for label, name in enumerate(("cats", "dogs")):
        (folder / name).mkdir(parents=True)
        for number in range(10):
            (folder / name / f"{number}.jpg").write_bytes(image_file(pixels(50 * label + number)))
    return folder


@pytest.fixture
def imagenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tiny = tiny_imagenet()
    monkeypatch.setitem(DATASETS, "imagenet", tiny.dataset)
    for write in (sources.write_train_tar, sources.write_val_tar, sources.write_devkit_tar):
        write(tmp_path, tiny)
    return tmp_path


def test_cifar_from_its_archive_to_a_verified_beton(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = tiny_cifar("cifar10")
    monkeypatch.setitem(DATASETS, "cifar10", tiny.dataset)
    monkeypatch.setitem(CIFAR_ARCHIVES, "cifar10", tiny.archive)
    (tmp_path / tiny.archive.filename).write_bytes(tiny.packed)
    data = tmp_path / "data"
    result = run("cifar10", "--source", tmp_path, "--out", data)
    assert result.exit_code == 0, result.output
    assert f"{data}/cifar10/train.beton: 100 samples, " in result.stdout
    assert f"bo-sweep launch cifar10-grid --data {data}" in result.stderr
    again = run("cifar10", "--source", tmp_path, "--out", data, "--json")
    document = json.loads(again.stdout)
    assert (document["schema_version"], document["dataset"]) == (1, "cifar10")
    assert [one["written"] for one in document["betons"]] == [False, False]
    assert [one["samples"] for one in document["betons"]] == [100, 20]
    verified = run("cifar10", "--verify", "--out", data)
    assert verified.exit_code == 0
    assert "train.beton: sound; 100 samples, 0 JPEGs decoded, checksum and class counts fit" in verified.stdout


def test_the_summary_of_imagenet_counts_what_was_converted(imagenet: Path) -> None:
    result = run("imagenet", "--source", imagenet, "--out", imagenet / "data", "--workers", 1)
    assert result.exit_code == 0, result.output
    assert "made RGB: 1 CMYK, 1 PNG named .jpeg, 1 greyscale, 1 transparency dropped" in result.stdout
    assert "bo-sweep launch imagenet-grid" in result.stderr
    assert run("imagenet", "--verify", "--out", imagenet / "data").exit_code == 0


def test_a_folder_prints_what_a_search_space_needs(photos: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    arguments = ["folder", "--source", photos, "--name", "pets", "--out", data, "--max-side", 32, "--workers", 1]
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    snippet = (data / "pets" / "dataset.yaml").read_text()
    assert snippet in result.stdout
    document = json.loads(run(*arguments, "--json").stdout)
    assert document["yaml"] == snippet
    assert document["facts"] == yaml.safe_load(snippet)["dataset"]["facts"]
    assert document["class_names"] == ["cats", "dogs"]


def test_raw_stores_small_images_as_pixels_alone_and_tells_before_how_much_that_takes(
    photos: Path, tmp_path: Path
) -> None:
    """It is short for two other options: the same bytes."""
    arguments = ["folder", "--source", photos, "--name", "pets", "--workers", 1, "--json"]
    short = run(*arguments, "--out", tmp_path / "short", "--raw", 16)
    assert short.exit_code == 0, short.output
    assert "20 images as pixels, of at most 16 x 16, take up to 0.0 GB; " in short.stderr
    long = run(*arguments, "--out", tmp_path / "long", "--max-side", 16, "--jpeg-share", 0)
    first, second = (json.loads(result.stdout)["betons"] for result in (short, long))
    assert [beton["sha256"] for beton in first] == [beton["sha256"] for beton in second]
    assert first[0]["settings"] == {"max_side": 16, "jpeg_share": 0.0, "quality": 90, "turn_upright": True}
    places = read_beton(tmp_path / "short" / "pets" / "train.beton").places
    assert not places[:, 4].any()
    assert places[:, 1].max() <= Encoding(16).most_bytes(1) == 768
    assert "as pixels" not in run(*arguments, "--out", tmp_path / "jpegs").stderr


def test_raw_of_imagenet_counts_both_splits(imagenet: Path) -> None:
    result = run("imagenet", "--source", imagenet, "--out", imagenet / "data", "--raw", 32, "--workers", 1)
    assert result.exit_code == 0, result.output
    facts = DATASETS["imagenet"]
    assert f"{facts.train_samples + facts.test_samples} images as pixels, of at most 32 x 32" in result.stderr


def test_raw_without_room_writes_nothing(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    result = run("folder", "--source", photos, "--name", "pets", "--out", tmp_path / "data", "--raw", 16)
    assert result.exit_code == 4
    assert f"{tmp_path} has 0.0 GB free" in result.stderr
    assert "store less with a smaller side" in result.stderr
    assert [path.name for path in (tmp_path / "data").rglob("*") if path.is_file()] == [".lock"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["imagenet", "--source", "empty"], "is not the whole of ILSVRC2012"),
        (["imagenet"], "name the folder to read from"),
        (["cifar10", "--source", "empty"], "Add --download"),
        (["folder", "--source", "photos"], "give the data set a name"),
        (["folder", "--source", "photos", "--name", "imagenet"], "this is a data set that bo-sweep knows"),
        (["folder", "--source", "photos", "--name", "x", "--jpeg-share", "2"], "--jpeg-share"),
        (["folder", "--source", "photos", "--name", "x", "--max-side", "9000"], "--max-side"),
        (
            ["imagenet", "--source", "empty", "--raw", "256", "--quality", "80"],
            "--raw 256 and --quality: --raw says how",
        ),
        (
            ["folder", "--source", "photos", "--name", "x", "--raw", "64", "--max-side", "64", "--jpeg-share", "0"],
            "--raw 64 and --max-side, --jpeg-share: ",
        ),
        (["folder", "--source", "photos", "--name", "x", "--raw", "4"], "--raw"),
        (["verify", "--out", "empty"], "there are no betons at all"),
        (["verify", "pets", "--out", "empty"], "has no betons"),
    ],
)
def test_what_the_user_can_mend_exits_with_2(
    arguments: list[str], message: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BO_SWEEP_DATA", str(tmp_path / "data"))
    (tmp_path / "empty").mkdir()
    result = run(*arguments)
    assert (result.exit_code, message in result.stderr) == (2, True), result.output


def test_damaged_images_exit_with_2_and_are_all_named(photos: Path, tmp_path: Path) -> None:
    for name in ("cats/3.jpg", "dogs/7.jpg"):
        (photos / name).write_bytes((photos / name).read_bytes()[:200])
    result = run("folder", "--source", photos, "--name", "pets", "--out", tmp_path / "data", "--workers", 1)
    assert result.exit_code == 2
    assert str(photos / "cats/3.jpg") in result.stderr
    assert str(photos / "dogs/7.jpg") in result.stderr
    assert "Repair or delete these files" in result.stderr


@pytest.mark.skipif(bool(why_no_tiny_disk()), reason=why_no_tiny_disk() or "")
@pytest.mark.parametrize("checked_before", [True, False])
def test_a_full_disk_exits_with_4_and_is_left_clean(
    checked_before: bool, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True)
    try:
        if checked_before:
            monkeypatch.setattr(split, "EXPECTED_BESIDE", 2**23)
        else:
            monkeypatch.setattr(split, "_check_room", lambda folder, wanted: None)
            for path in photos.rglob("*.jpg"):
                path.write_bytes(image_file(np.repeat(np.repeat(pixels(1), 10, 0), 10, 1)))
        arguments = ["folder", "--source", photos, "--name", "pets", "--out", disk, "--jpeg-share", 0, "--workers", 1]
        result = run(*arguments)
        assert result.exit_code == 4, result.output
        assert ("will take about" if checked_before else "No space left on device") in result.stderr
        assert [path.name for path in disk.rglob("*") if path.is_file()] == [".lock"]
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_ctrl_c_exits_with_3_names_the_command_and_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    (photos / "cats" / "large.jpg").write_bytes(image_file(pixels(1, 700, 1000)))
    for number in range(3000):  # half a minute of work
        (photos / "cats" / f"more-{number}.jpg").hardlink_to(photos / "cats" / "large.jpg")
    arguments = ["prepare", "folder", "--source", str(photos), "--name", "pets", "--out", str(tmp_path / "data")]
    command = [sys.executable, "-m", "orchestrator.cli", *arguments, "--workers", "2"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        wait_for(lambda: list((tmp_path / "data").rglob("*.part")), every=0.01)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 3, errors
    assert "Stopped." in errors
    assert "Traceback" not in errors
    assert shlex.join(arguments) in errors
    assert [path.name for path in (tmp_path / "data").rglob("*") if path.is_file()] == [".lock"]


# Verify


@pytest.fixture
def beton(photos: Path, tmp_path: Path) -> Path:
    arguments = ["folder", "--source", photos, "--name", "pets", "--out", tmp_path / "data", "--workers", 1]
    assert run(*arguments).exit_code == 0
    return tmp_path / "data" / "pets" / "train.beton"


def test_every_damaged_jpeg_is_found_by_the_decoder_of_training(beton: Path) -> None:
    places = read_beton(beton).places
    jpegs = np.flatnonzero(places[:, 4])
    assert verify_beton(beton).jpegs == len(jpegs) > 3
    content = bytearray(beton.read_bytes())
    for sample in jpegs[[0, 2]]:
        start, size = places[sample, :2]
        content[start + size // 2 : start + size] = bytes(size - size // 2)
    beton.write_bytes(content)
    problems = verify_beton(beton, workers=2).problems
    assert problems[0].startswith("its bytes changed")
    assert problems[1] == f"2 JPEGs cannot be decoded: samples {jpegs[0]}, {jpegs[2]}"
    manifest_path(beton).unlink()
    assert verify_beton(beton).problems == problems[1:]


def test_labels_are_held_against_the_manifest(beton: Path) -> None:
    path = manifest_path(beton)
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"class_counts": [*manifest["class_counts"], 1]}))
    assert verify_beton(beton).problems == ("its labels are not those that the manifest counts",)


def test_verify_tells_of_every_beton_and_exits_with_4(beton: Path) -> None:
    beton.write_bytes(beton.read_bytes()[:-10])
    result = run("verify", "--out", beton.parent.parent, "--json")
    assert result.exit_code == 4
    test, train = json.loads(result.stdout)["betons"]
    assert (test["sound"], train["sound"]) == (True, False)
    assert "allocation table" in train["problems"][0] or "truncated" in train["problems"][0]
    assert "train.beton: damaged" in run("verify", "pets", "--out", beton.parent.parent).stdout
