"""Betons of images: byte for byte FFCV's, whatever the number of processes; whole or not there, whatever happens."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from tests.image_sources import image_file, pixels
from tests.waiting import PATIENCE_SECONDS
from workers import quiet_ffcv as ffcv
from workers.beton_file import _OneProcessWriter, check_beton, manifest_path, read_beton
from workers.loader import load_all, open_stream
from workers.preparation import image_files, parallel
from workers.preparation import split as split_module
from workers.preparation.errors import DamagedImagesError, HostError, SourceError
from workers.preparation.image_files import ImageFiles, prepare_image_files
from workers.preparation.images import Encoded, Encoding, encode, load_rgb, shrink
from workers.preparation.listing import images_in
from workers.preparation.samples import fingerprint
from workers.preparation.split import Prepared, held
from workers.preparation.writing import page_bytes, write_images

CPU = torch.device("cpu")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """60 images of different sizes."""
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number:03}.jpg").write_bytes(image_file(pixels(number, 20 + number, 90 - number)))
    return folder


def prepare(source: Path, out: Path, *, workers: int = 1, **encoding: Any) -> Prepared:
    samples = [sample._replace(label=int(sample.name[:3]) % 3) for sample in images_in(source, 0)]
    [prepared] = prepare_image_files(
        [ImageFiles("train", samples, fingerprint(samples))],
        out,
        dataset="waves",
        version="waves-1",
        classes=3,
        encoding=Encoding(**{"max_side": 64, **encoding}),
        workers=workers,
        with_statistics=True,
        advice="Repair them",
    )
    return prepared


@pytest.mark.parametrize("mode", ["raw", "jpg"])
@pytest.mark.parametrize("max_side", [64, 2000])
def test_the_file_is_what_ffcvs_writer_makes_byte_for_byte(mode: str, max_side: int, tmp_path: Path) -> None:
    sizes = [(40, 50), (90, 30), (64, 64), (1900, 60), (1500, 1400), (1400, 1500), (1200, 1999)] * 2
    images = [pixels(number, *size) for number, size in enumerate(sizes)]
    labels = np.arange(len(images)) % 4
    fields = {
        "image": ffcv.RGBImageField(write_mode=mode, max_resolution=max_side, jpeg_quality=80),
        "label": ffcv.IntField(),
    }
    page = page_bytes(max_side)
    writer = _OneProcessWriter(str(tmp_path / "theirs.beton"), fields, page_size=page, num_workers=1)
    writer.from_indexed_dataset(list(zip(images, labels.tolist(), strict=True)))

    ours = (encode(shrink(image, max_side), as_jpeg=mode == "jpg", quality=80) for image in images)
    write_images(tmp_path / "ours.beton", ours, labels, page=page)
    assert (tmp_path / "ours.beton").read_bytes() == (tmp_path / "theirs.beton").read_bytes()


def test_the_bytes_do_not_depend_on_the_number_of_processes(source: Path, tmp_path: Path) -> None:
    one, three = (prepare(source, tmp_path / f"by-{workers}", workers=workers) for workers in (1, 3))
    assert one.path.read_bytes() == three.path.read_bytes()
    assert one.manifest == three.manifest


def test_a_larger_share_of_jpegs_keeps_the_jpegs_of_a_smaller_one(source: Path, tmp_path: Path) -> None:
    modes = [
        read_beton(prepare(source, tmp_path / str(share), jpeg_share=share).path).places[:, 4].astype(bool)
        for share in (0, 0.3, 0.6, 1)
    ]
    assert (modes[0].sum(), modes[3].sum()) == (0, 60)
    assert 5 < modes[1].sum() < 30 < modes[2].sum() < 50
    assert not np.any(modes[1] & ~modes[2])


def test_the_stream_of_training_reads_the_pixels_that_were_written(source: Path, tmp_path: Path) -> None:
    beton = prepare(source, tmp_path / "out", jpeg_share=0.5, quality=95).path
    check_beton(beton, samples=60, thorough=True)
    assert read_beton(beton).labels.tolist() == [number % 3 for number in range(60)]
    stream = open_stream(
        beton, batch_size=16, augmentation="center-crop", resolution=16, pixel_mean=(), pixel_std=(), device=CPU
    )
    read = load_all(stream, np.arange(60))[0].numpy()
    raw = prepare(source, tmp_path / "raw", jpeg_share=0).path
    stream = open_stream(
        raw, batch_size=16, augmentation="center-crop", resolution=16, pixel_mean=(), pixel_std=(), device=CPU
    )
    exact = load_all(stream, np.arange(60))[0].numpy()
    assert np.abs(read - exact).mean() < 2
    as_pixels = read_beton(beton).places[:, 4] == 0
    np.testing.assert_array_equal(read[as_pixels], exact[as_pixels])


@pytest.mark.slow
def test_ffcv_as_it_comes_reads_our_beton(source: Path, tmp_path: Path) -> None:
    beton = prepare(source, tmp_path / "out").path
    script = """
import sys, numpy as np
from ffcv.fields.rgb_image import CenterCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.reader import Reader
assert Reader(sys.argv[1]).num_samples == 60
order = {"order": OrderOption.SEQUENTIAL, "drop_last": False, "num_workers": 1}
read = []
for cached in (True, False):
    pipelines = {"image": [CenterCropRGBImageDecoder((16, 16), 1.0)]}
    loader = Loader(sys.argv[1], 16, os_cache=cached, pipelines=pipelines, **order)
    read.append(np.concatenate([images.copy() for images, _ in loader]))
np.savez(sys.argv[2], mapped=read[0], in_pages=read[1])
"""
    subprocess.run(
        [sys.executable, "-c", script, str(beton), str(tmp_path / "read.npz")], check=True, timeout=PATIENCE_SECONDS
    )
    read = np.load(tmp_path / "read.npz")
    np.testing.assert_array_equal(read["mapped"], read["in_pages"])
    for number, image in enumerate(read["mapped"]):
        pixels_there = shrink(load_rgb((source / f"{number:03}.jpg").read_bytes(), "")[0], 64)
        side = min(pixels_there.shape[:2])
        top, left = ((length - side) // 2 for length in pixels_there.shape[:2])
        square = pixels_there[top : top + side, left : left + side]
        assert np.abs(image.mean((0, 1)) - square.mean((0, 1))).max() < 4


def test_the_manifest_tells_what_is_in_the_file_and_how_it_was_made(source: Path, tmp_path: Path) -> None:
    prepared = prepare(source, tmp_path / "out")
    manifest = json.loads(manifest_path(prepared.path).read_text())
    assert manifest == prepared.manifest
    assert (manifest["dataset"], manifest["version"], manifest["samples"]) == ("waves", "waves-1", 60)
    assert manifest["class_counts"] == [20, 20, 20]
    assert manifest["settings"] == {"max_side": 64, "jpeg_share": 0.5, "quality": 90, "turn_upright": False}
    assert len(manifest["sha256"]) == 64
    shrunk = [shrink(load_rgb(path.read_bytes(), path.name)[0], 64).reshape(-1, 3) for path in sorted(source.iterdir())]
    np.testing.assert_allclose(manifest["pixel_mean"], np.concatenate(shrunk).mean(0), atol=1e-3)
    np.testing.assert_allclose(manifest["pixel_std"], np.concatenate(shrunk).std(0), atol=1e-3)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"train.beton", "train.beton.json", ".lock"}


def test_what_is_finished_is_not_written_again_unless_source_or_settings_changed(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert prepare(source, out).written
    assert not prepare(source, out).written
    assert prepare(source, out, quality=91).written
    (source / "000.jpg").write_bytes(image_file(pixels(999)))
    assert prepare(source, out, quality=91).written
    assert not prepare(source, out, quality=91).written


def test_a_beton_of_others_is_never_overwritten(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train.beton").write_bytes(b"days of work")
    with pytest.raises(SourceError, match=r"has no manifest, so bo-sweep did not write it\. Move it away"):
        prepare(source, tmp_path / "out")
    assert (tmp_path / "out" / "train.beton").read_bytes() == b"days of work"


# Interruptions


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


def test_an_interrupt_leaves_nothing_and_the_finished_beton_as_it_was(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = prepare(source, tmp_path / "out").path.read_bytes()

    def interrupt(path: Path, images: Any, labels: Any, page: int) -> None:
        next(images)
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(split_module, "write_images", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "out", quality=50)
    assert names_in(tmp_path / "out") == {"train.beton", "train.beton.json"}
    assert (tmp_path / "out" / "train.beton").read_bytes() == before
    assert not prepare(source, tmp_path / "out").written


@pytest.mark.parametrize("stage", ["beton half-written", "manifest half-written", "old manifest gone", "beton moved"])
def test_whatever_the_moment_of_a_kill_the_next_call_ends_as_if_there_had_been_none(
    stage: str, source: Path, tmp_path: Path
) -> None:
    whole = prepare(source, tmp_path / "whole")
    out = tmp_path / "out"
    beton = prepare(source, out, quality=50).path  # an older one lies there
    part, manifest_part = out / "train.beton.part", out / "train.beton.json.part"
    content, manifest = whole.path.read_bytes(), manifest_path(whole.path).read_text()
    match stage:
        case "beton half-written":
            part.write_bytes(content[:5000])
        case "manifest half-written":
            part.write_bytes(content)
            manifest_part.write_text(manifest[:40])
        case "old manifest gone":
            part.write_bytes(content)
            manifest_part.write_text(manifest)
            manifest_path(beton).unlink()
        case "beton moved":
            beton.write_bytes(content)
            manifest_part.write_text(manifest)
            manifest_path(beton).unlink()
    after = prepare(source, out)
    assert after.written == ("half" in stage)
    assert (after.path.read_bytes(), after.manifest) == (content, whole.manifest)
    assert names_in(out) == {"train.beton", "train.beton.json"}


def test_a_killed_process_leaves_no_beton_and_no_children(source: Path, tmp_path: Path) -> None:
    script = f"""
if __name__ == "__main__":
    import time
    from pathlib import Path
    from tests.test_prepare_writing import prepare
    from workers.preparation import split
    write = split.write_images
    def slowly(path, images, labels, page):
        def slow():
            for image in images:
                yield image
                print("at work", flush=True)
                time.sleep(3600)
        write(path, slow(), labels, page=page)
    split.write_images = slowly
    prepare(Path({str(source)!r}), Path({str(tmp_path / "out")!r}), workers=2)
"""
    (tmp_path / "slow.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "slow.py")], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"at work\n"
        children = psutil.Process(process.pid).children(recursive=True)
        assert len([child for child in children if "spawn_main" in " ".join(child.cmdline())]) == 2
        process.send_signal(signal.SIGKILL)
    assert names_in(tmp_path / "out") == {"train.beton.part"}
    assert psutil.wait_procs(children, timeout=PATIENCE_SECONDS)[1] == []
    prepare(source, tmp_path / "out")
    assert names_in(tmp_path / "out") == {"train.beton", "train.beton.json"}


@pytest.fixture
def default_interrupt() -> Iterator[None]:
    """Ctrl-C as at the start of Python: Tune, in a test before, leaves its own way to take it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("default_interrupt")
def test_ctrl_c_that_another_thread_takes_waits_until_a_new_process_is_whole() -> None:
    begun, whole = threading.Event(), list[bool]()

    def interrupt() -> None:
        begun.wait()
        signal.raise_signal(signal.SIGINT)

    def start() -> None:
        with parallel._no_interrupt_for_new_processes():
            begun.set()
            other.join()
            whole.append(True)

    other = threading.Thread(target=interrupt)
    other.start()
    with pytest.raises(KeyboardInterrupt):
        start()
    assert whole == [True]


def test_a_second_call_is_told_that_the_first_is_at_work(source: Path, tmp_path: Path) -> None:
    with held(tmp_path / "out"), pytest.raises(HostError, match="another process is preparing"):
        prepare(source, tmp_path / "out")


# What goes wrong


def test_all_damaged_images_are_named_at_once_and_nothing_is_written(source: Path, tmp_path: Path) -> None:
    whole = (source / "007.jpg").read_bytes()
    (source / "007.jpg").write_bytes(whole[: len(whole) // 2])
    (source / "031.jpg").write_bytes(b"not an image at all")
    (source / "058.jpg").write_bytes(b"")
    with pytest.raises(DamagedImagesError) as raised:
        prepare(source, tmp_path / "out", workers=2)
    message = str(raised.value)
    assert message.startswith("3 images cannot be read:")
    assert f"{source / '007.jpg'}: image file is truncated" in message
    assert f"{source / '031.jpg'}: not an image" in message
    assert str(source / "058.jpg") in message
    assert message.endswith("Repair them")
    assert names_in(tmp_path / "out") == set()


def test_of_very_many_damaged_images_the_first_are_named_and_the_rest_counted(source: Path, tmp_path: Path) -> None:
    for path in sorted(source.iterdir())[:45]:
        path.write_bytes(b"junk")
    with pytest.raises(DamagedImagesError, match="and 25 more") as raised:
        prepare(source, tmp_path / "out")
    assert str(raised.value).count("not an image") == 20


def test_a_disk_without_room_is_told_before_anything_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(HostError, match=r"0\.0 GB free, what is to be written will take about .* smaller --max-side"):
        prepare(source, tmp_path / "out")
    with pytest.raises(HostError, match=r"will take about .* smaller side, or with a --jpeg-share above 0"):
        prepare(source, tmp_path / "out", jpeg_share=0)
    assert names_in(tmp_path / "out") == set()


def test_a_disk_that_fills_up_nevertheless_is_told_and_left_clean(source: Path, tmp_path: Path) -> None:
    script = f"""
import resource
from pathlib import Path
from tests.test_prepare_writing import prepare
from workers.preparation.errors import HostError
resource.setrlimit(resource.RLIMIT_FSIZE, (8 * 2**20 + 100_000, resource.RLIM_INFINITY))
try:
    prepare(Path({str(source)!r}), Path({str(tmp_path / "out")!r}))
except HostError as error:
    print(error)
"""
    root = Path(__file__).resolve().parent.parent
    output = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True).stdout
    assert f"{tmp_path / 'out'} cannot be written: File too large. Free space" in output
    assert names_in(tmp_path / "out") == set()


def test_a_read_only_disk_is_told(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(split_module, "write_images", refuse)
    with pytest.raises(HostError, match=r"Read-only file system\. Choose a folder that can be written with --out"):
        prepare(source, tmp_path / "out")


def test_a_child_that_is_killed_is_told(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill_children(path: Path, images: Any, labels: Any, page: int) -> None:
        for image in images:
            assert isinstance(image, Encoded)
            for child in psutil.Process().children():
                with suppress(psutil.NoSuchProcess):  # it is gone already
                    if "spawn_main" in " ".join(child.cmdline()):
                        child.kill()
            time.sleep(0.05)

    monkeypatch.setattr(image_files, "BATCH", 2)
    monkeypatch.setattr(split_module, "write_images", kill_children)
    with pytest.raises(HostError, match="fewer processes than --workers 2"):
        prepare(source, tmp_path / "out", workers=2)
