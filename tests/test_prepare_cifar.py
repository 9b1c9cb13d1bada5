"""CIFAR from archives as Python 2 wrote them: checked, read safely, fetched in pieces; and CIFAR-N's labels on top."""

from __future__ import annotations

import io
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from search_spaces.datasets import DATASETS
from tests.image_sources import TinyCifar, md5, tar_of, tiny_cifar
from workers.beton_file import read_beton
from workers.betons import true_labels
from workers.label_files import read_labels
from workers.loader import load_all, open_stream
from workers.preparation.cifar import CIFAR_ARCHIVES, prepare_cifar
from workers.preparation.download import download
from workers.preparation.errors import HostError, SourceError
from workers.safe_pickle import load_arrays


@pytest.fixture(params=["cifar10", "cifar100"])
def tiny(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> TinyCifar:
    return known(tiny_cifar(request.param), monkeypatch)


@pytest.fixture
def tiny10(monkeypatch: pytest.MonkeyPatch) -> TinyCifar:
    return known(tiny_cifar("cifar10"), monkeypatch)


def known(tiny: TinyCifar, monkeypatch: pytest.MonkeyPatch) -> TinyCifar:
    monkeypatch.setitem(DATASETS, tiny.dataset.name, tiny.dataset)
    return tiny


def unpack(tiny: TinyCifar, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, content in tiny.batches.items():
        (folder / name).write_bytes(content)


def test_the_official_order_pixels_and_labels_arrive_in_the_betons(tiny: TinyCifar, tmp_path: Path) -> None:
    (tmp_path / tiny.archive.filename).write_bytes(tiny.packed)
    train, test = prepare_cifar(tiny.archive, tmp_path, tmp_path / "out")
    np.testing.assert_array_equal(true_labels(train.path), tiny.train_labels)
    np.testing.assert_array_equal(true_labels(test.path), tiny.test_labels)
    stream = open_stream(
        train.path, batch_size=64, resolution=32, pixel_mean=(), pixel_std=(), device=torch.device("cpu")
    )
    read = load_all(stream, np.arange(len(tiny.train_labels)))[0].permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(read, tiny.train_images)
    assert not read_beton(train.path).places[:, 4].any()  # pixels, no JPEGs
    assert (train.manifest["dataset"], train.manifest["version"]) == (tiny.dataset.name, tiny.dataset.version)
    assert sum(train.manifest["class_counts"]) == len(tiny.train_labels)
    assert len(train.manifest["class_counts"]) == tiny.dataset.classes


def test_an_unpacked_folder_gives_the_same_betons(tiny: TinyCifar, tmp_path: Path) -> None:
    (tmp_path / tiny.archive.filename).write_bytes(tiny.packed)
    unpack(tiny, tmp_path / "there" / tiny.archive.folder)
    packed = prepare_cifar(tiny.archive, tmp_path, tmp_path / "packed")
    for source in (tmp_path / "there", tmp_path / "there" / tiny.archive.folder):
        unpacked = prepare_cifar(tiny.archive, source, tmp_path / "unpacked" / source.name)
        assert [one.path.read_bytes() for one in unpacked] == [one.path.read_bytes() for one in packed]
    assert not any(one.written for one in prepare_cifar(tiny.archive, tmp_path / "there", tmp_path / "packed"))


def test_another_archive_is_refused_with_both_checksums(tiny10: TinyCifar, tmp_path: Path) -> None:
    (tmp_path / tiny10.archive.filename).write_bytes(tiny10.packed[:-1])
    with pytest.raises(SourceError, match=f"has md5 {md5(tiny10.packed[:-1])}, expected is {tiny10.archive.md5}"):
        prepare_cifar(tiny10.archive, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_all_files_of_a_folder_that_differ_are_told(tiny10: TinyCifar, tmp_path: Path) -> None:
    unpack(tiny10, tmp_path / tiny10.archive.folder)
    (tmp_path / tiny10.archive.folder / "data_batch_2").write_bytes(b"junk")
    (tmp_path / tiny10.archive.folder / "test_batch").unlink()
    with pytest.raises(SourceError) as raised:
        prepare_cifar(tiny10.archive, tmp_path, tmp_path / "out")
    assert f"data_batch_2: found {md5(b'junk')}, expected {md5(tiny10.batches['data_batch_2'])}" in str(raised.value)
    assert "test_batch: found missing" in str(raised.value)


def test_a_folder_without_cifar_is_told_where_to_get_it(tiny10: TinyCifar, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has neither cifar-10-python\.tar\.gz nor .*Add --download"):
        prepare_cifar(tiny10.archive, tmp_path, tmp_path / "out")


def test_a_batch_of_another_shape_is_refused(tiny10: TinyCifar, tmp_path: Path) -> None:
    odd = pickle.dumps({b"data": np.zeros((3, 7), np.uint8), b"labels": [1] * 3})
    files = {f"{tiny10.archive.folder}/{name}": data for name, data in (tiny10.batches | {"data_batch_3": odd}).items()}
    packed = tar_of(files, "w:gz")
    (tmp_path / tiny10.archive.filename).write_bytes(packed)
    with pytest.raises(
        SourceError, match=r"the batch data_batch_3 of cifar-10-python\.tar\.gz is not what it should be"
    ):
        prepare_cifar(replace(tiny10.archive, md5=md5(packed)), tmp_path, tmp_path / "out")


def test_the_wrong_number_of_images_is_told(tiny10: TinyCifar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / tiny10.archive.filename).write_bytes(tiny10.packed)
    monkeypatch.setitem(DATASETS, "cifar10", replace(tiny10.dataset, train_samples=50_000))
    with pytest.raises(SourceError, match=r"has 100 images of classes 0 to 9 in data_batch_1, .* expected are 50000"):
        prepare_cifar(tiny10.archive, tmp_path, tmp_path / "out")


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("evil-was-here"),)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickles_that_would_run_code_are_refused(
    protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pickle.UnpicklingError, match="it refers to"):
        load_arrays(io.BytesIO(pickle.dumps({"data": Evil()}, protocol=protocol)), encoding="bytes")
    assert list(tmp_path.iterdir()) == []
    content = {"data": np.arange(3), "labels": [1, 2], "name": b"bytes", "n": np.float64(2.5)}
    read = load_arrays(io.BytesIO(pickle.dumps(content, protocol=protocol)))
    assert read["data"].tolist() == [0, 1, 2]
    assert {**read, "data": None} == {**content, "data": None}


def test_the_facts_of_the_official_archives_are_those_that_torchvision_checks() -> None:
    from torchvision.datasets import CIFAR10, CIFAR100

    for name, theirs in (("cifar10", CIFAR10), ("cifar100", CIFAR100)):
        ours = CIFAR_ARCHIVES[name]
        assert (ours.url, ours.md5, ours.folder) == (theirs.url, theirs.tgz_md5, theirs.base_folder)
        assert ours.filename == theirs.filename
        assert [list(batch) for batch in ours.train] == theirs.train_list
        assert [list(batch) for batch in ours.test] == theirs.test_list
        assert ours.md5 in DATASETS[name].version


# Fetching


@dataclass
class Server:
    """Serves one file; of each answer in `cut` only so many bytes are sent before the connection ends."""

    content: bytes
    address: str = ""
    cut: list[int] = field(default_factory=list)
    status: int | None = None
    ranges: list[str | None] = field(default_factory=list)
    knows_ranges: bool = True


@contextmanager
def serving(content: bytes) -> Iterator[Server]:
    server = Server(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            server.ranges.append(wanted)
            if server.status:
                self.send_error(server.status)
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.knows_ranges else 0
            if start >= len(server.content):
                self.send_error(416)
                return
            rest = server.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[: server.cut.pop(0)] if server.cut else rest)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.address = f"http://127.0.0.1:{http.server_port}/files/cifar-10-python.tar.gz"
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield server
        http.shutdown()
        thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with serving(np.random.default_rng(0).bytes(300_000)) as server:
        yield server


def fetch(server: Server, path: Path, checksum: str | None = None) -> None:
    download(server.address, path, md5=checksum or md5(server.content), pause=0.01)


def test_an_archive_is_fetched_once_and_used(tiny10: TinyCifar, server: Server, tmp_path: Path) -> None:
    server.content = tiny10.packed
    archive = replace(tiny10.archive, url=server.address)
    for _ in range(2):
        prepare_cifar(archive, tmp_path / "downloads", tmp_path / "out", fetch=True)
    assert len(server.ranges) == 1
    assert [path.name for path in (tmp_path / "downloads").iterdir()] == ["cifar-10-python.tar.gz"]
    (tmp_path / "downloads" / "cifar-10-python.tar.gz").write_bytes(b"damaged since")
    prepare_cifar(archive, tmp_path / "downloads", tmp_path / "out", fetch=True)
    assert (tmp_path / "downloads" / "cifar-10-python.tar.gz").read_bytes() == tiny10.packed


def test_a_connection_that_breaks_is_taken_up_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.cut = [100_000, 50_000]
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == server.content
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_what_was_fetched_stays_for_the_next_call(server: Server, tmp_path: Path) -> None:
    server.cut = [70_000, 0, 0, 0]
    with pytest.raises(HostError, match=r"ended after 70000 of 300000 bytes\. The same command goes on"):
        fetch(server, tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file.part"]
    fetch(server, tmp_path / "file")
    assert server.ranges[-1] == "bytes=70000-"
    assert (tmp_path / "file").read_bytes() == server.content


def test_a_server_without_ranges_begins_anew(server: Server, tmp_path: Path) -> None:
    server.cut, server.knows_ranges = [100_000], False
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == server.content


def test_another_file_than_the_official_one_is_deleted_and_told(server: Server, tmp_path: Path) -> None:
    with pytest.raises(HostError, match=f"md5 is {md5(server.content)}, expected is {'0' * 32}"):
        fetch(server, tmp_path / "file", "0" * 32)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file.part").write_bytes(bytes(400_000))  # more than the server has
    with pytest.raises(HostError, match="sent another file"):
        fetch(server, tmp_path / "file")
    fetch(server, tmp_path / "file")


def test_a_server_that_refuses_is_told_at_once_and_one_in_trouble_is_asked_again(
    server: Server, tmp_path: Path
) -> None:
    server.status = 404
    with pytest.raises(HostError, match=r"answers 404 Not Found\. [Ff]etch it in another way and put it at .*/file"):
        fetch(server, tmp_path / "file")
    assert len(server.ranges) == 1
    server.status = 503
    with pytest.raises(HostError, match="answers 503"):
        fetch(server, tmp_path / "file")
    assert len(server.ranges) == 5
    assert list(tmp_path.iterdir()) == []


def test_no_server_at_all_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(HostError, match=r"cannot be fetched: .*[Cc]onnection refused"):
        download("http://127.0.0.1:9/cifar", tmp_path / "file", md5="0" * 32, pause=0.01)


# CIFAR-N


@pytest.mark.parametrize("published", [".pt", ".npy"])
def test_labels_of_cifar_n_fit_the_prepared_betons(published: str, tiny: TinyCifar, tmp_path: Path) -> None:
    (tmp_path / tiny.archive.filename).write_bytes(tiny.packed)
    train, _ = prepare_cifar(tiny.archive, tmp_path, tmp_path / "out")
    people = np.random.default_rng(1)
    if tiny.dataset.name == "cifar10":
        keys = ["aggre_label", "worse_label", "random_label1", "random_label2", "random_label3"]
    else:
        keys = ["noisy_label"]
    content = {"clean_label": tiny.train_labels} | {
        key: np.where(people.random(len(tiny.train_labels)) < 0.4, 0, tiny.train_labels) for key in keys
    }
    if published == ".pt":
        path = tmp_path / "CIFAR-10_human.pt"
        torch.save(content, path)
    else:
        path = tmp_path / "CIFAR-10_human_ordered.npy"
        np.save(path, content, allow_pickle=True)  # type: ignore[arg-type]
    for key in keys:
        labels, clean = read_labels(path, key=key)
        np.testing.assert_array_equal(labels, content[key])
        np.testing.assert_array_equal(clean, true_labels(train.path))
