"""Storage: whole files or none, on a local disk, in S3 (moto) and in Google Cloud Storage (an emulator)."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from matplotlib.figure import Figure

from orchestrator import object_storage
from orchestrator.analysis.tables import write_tables
from orchestrator.figures.page import write_figure
from orchestrator.storage import MissingFileError, Storage, StorageError, open_storage
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parent.parent


pytestmark = pytest.mark.usefixtures("environment")


def test_what_is_written_is_read_listed_and_deleted(storage: Storage) -> None:
    before = time.time()
    contents = {"manifest.json": b"{}", "rows/b.parquet": b"b" * 70_000, "rows/a.parquet": b"", "logs/x/y.jsonl": b"1"}
    for path, content in contents.items():
        storage.write(path, content)
    assert {path: storage.read(path) for path in contents} == contents
    assert all(storage.exists(path) for path in contents)
    files = storage.list("rows")
    assert [(file.path, file.size) for file in files] == [("rows/a.parquet", 0), ("rows/b.parquet", 70_000)]
    assert all(before - 2 < file.modified < time.time() + 2 for file in files)
    assert [file.path for file in storage.list()] == ["manifest.json"]
    assert storage.list("logs") == []
    assert storage.folders() == ["logs", "rows"]
    for _ in range(2):
        storage.delete("rows/b.parquet")
    assert [file.path for file in storage.list("rows")] == ["rows/a.parquet"]
    assert not storage.exists("rows/b.parquet")
    with pytest.raises(MissingFileError, match=r"rows/b\.parquet does not exist"):
        storage.read("rows/b.parquet")
    storage.delete("rows/a.parquet")
    assert storage.list("rows") == []


def test_a_folder_that_is_not_there_is_empty(storage: Storage) -> None:
    assert storage.list() == storage.list("rows") == []
    assert storage.folders() == []
    assert not storage.exists("rows")
    with pytest.raises(MissingFileError):
        storage.read("rows")
    storage.delete("rows/nothing")


def test_buffers_and_big_files(storage: Storage) -> None:
    content = os.urandom(1 << 20) * 12  # more than one part of a multipart upload
    storage.write("checkpoint", pa.py_buffer(content))
    assert storage.read("checkpoint") == content
    storage.write("checkpoint", content[:100])
    assert storage.read("checkpoint") == content[:100]


def test_the_same_folder_elsewhere(storage: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    child = storage.child("sweep")
    child.write("a", b"1")
    assert (child.name, storage.name, storage.folders()) == ("sweep", "one", ["sweep"])
    for name in ("AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST"):  # where it is stays known on workers
        monkeypatch.delenv(name, raising=False)
    assert pickle.loads(pickle.dumps(child)).read("a") == b"1"
    assert storage.read("sweep/a") == b"1"
    assert child.location("a").endswith("/one/sweep/a")


def test_a_check_leaves_nothing_behind(storage: Storage) -> None:
    storage.check_writable()
    assert storage.list() == []
    assert storage.folders() == []


def test_a_reader_sees_one_content_while_another_writes(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contents differ in length as well: what Arrow's own reading of an object gets wrong."""
    monkeypatch.setattr(object_storage, "READS", 1000)  # replaced all the time, as nothing of ours is
    contents = [bytes([number]) * (1000 + 5000 * (number * 7 % 10)) for number in range(40)]
    storage.write("claim", contents[0])
    done, seen = threading.Event(), list[bytes]()

    def read() -> None:
        while not done.is_set():
            seen.append(storage.read("claim"))

    with ThreadPoolExecutor(2) as executor:
        readers = [executor.submit(read) for _ in range(2)]
        try:
            for content in contents:
                storage.write("claim", content)
                before = len(seen)
                wait_for(lambda: len(seen) > before or any(reader.done() for reader in readers))  # noqa: B023
        finally:
            done.set()
        for reader in readers:
            reader.result()
    assert len(set(seen)) > 1
    assert set(seen) <= set(contents)


# Local file systems


def test_a_killed_writer_leaves_no_file(tmp_path: Path) -> None:
    """Killed before the rename: what it leaves is not listed, and does not bar the next one."""
    code = (
        "import os, sys, signal\nfrom orchestrator.storage import open_storage\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "open_storage(sys.argv[1]).write('rows/a', b'new')"
    )
    storage = open_storage(tmp_path)
    storage.write("rows/a", b"old")
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False)
    assert len(list((tmp_path / "rows").iterdir())) == 2
    assert [file.path for file in storage.list("rows")] == ["rows/a"]
    assert storage.read("rows/a") == b"old"


def test_an_interrupted_write_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        open_storage(tmp_path).write("a", b"new")
    assert list(tmp_path.iterdir()) == []


def test_local_errors_name_the_path_and_the_cure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    storage = open_storage(tmp_path / "file")
    with pytest.raises(StorageError, match=r"cannot write .*/file/a: .*Free space or choose --storage"):
        storage.write("a", b"1")
    with pytest.raises(StorageError, match="is not a folder"):
        storage.check_writable()
    assert storage.list() == []
    with pytest.raises(MissingFileError):
        storage.read("a")


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fill(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fill)
    with pytest.raises(StorageError, match=r"cannot write .*/a: No space left on device\. Free space"):
        open_storage(tmp_path).write("a", b"1")
    assert list(tmp_path.iterdir()) == []


def test_relative_paths_keep_their_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = open_storage("sweeps")
    child = storage.child("one")
    child.write("a", b"1")
    carried = pickle.dumps(child)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert pickle.loads(carried).read("a") == storage.child("one").read("a") == b"1"
    assert (storage.url, child.url) == ("sweeps", "sweeps/one")
    assert child.local_path("a") == tmp_path / "sweeps" / "one" / "a"


def test_file_addresses(tmp_path: Path) -> None:
    storage = open_storage(f"{(tmp_path / 'a b').as_uri()}")
    storage.child("c").write("d", b"1")
    assert (tmp_path / "a b" / "c" / "d").read_bytes() == b"1"
    assert storage.child("c").url == f"{tmp_path.as_uri()}/a%20b/c"


# Addresses


def test_addresses_of_object_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage("s3://bucket/a/b/?region=eu-west-1&endpoint_override=host:9000&scheme=http")
    assert storage.url == "s3://bucket/a/b?region=eu-west-1&endpoint_override=host:9000&scheme=http"
    assert storage.location("rows/x") == "s3://bucket/a/b/rows/x"
    assert open_storage(storage.url) == storage
    assert storage.child("c").url == "s3://bucket/a/b/c?region=eu-west-1&endpoint_override=host:9000&scheme=http"
    assert (storage.name, open_storage("gs://bucket").name, storage.local_path("x")) == ("b", "bucket", None)
    assert open_storage("gs://bucket").child("c").location("x") == "gs://bucket/c/x"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/x", "unknown scheme 'ftp'; allowed are a path and file://, s3://, gs://"),
        ("s3:///x", "names no bucket; write s3://bucket/folder"),
        ("s3://bucket/x?regoin=eu", "unknown option 'regoin'; allowed are endpoint_override"),
        ("s3://key:secret@bucket/x", "must not hold credentials.*Write s3://bucket/x"),
        ("file://host/x", "is no local folder; write file:///folder"),
    ],
)
def test_bad_addresses(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_storage(url)


def test_the_environment_says_where_the_server_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://general:1/")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "emulator:2")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")

    def arguments(url: str) -> dict[str, object]:
        storage = object_storage.ObjectStorage.from_url(url)
        options = dict(storage.options)
        return object_storage.filesystem_arguments(storage.scheme, storage.bucket, options, storage.endpoint)

    general = arguments("s3://bucket/x")
    assert (general["endpoint_override"], general["scheme"], general["region"]) == ("general:1", "https", "eu-west-1")
    chosen = arguments("s3://bucket/x?endpoint_override=mine:4&region=here")
    assert (chosen["endpoint_override"], chosen["region"], "scheme" in chosen) == ("mine:4", "here", False)
    emulated = arguments("gs://bucket")
    assert (emulated["endpoint_override"], emulated["scheme"], emulated["anonymous"]) == ("emulator:2", "http", True)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://special:3")
    assert arguments("s3://bucket/x")["endpoint_override"] == "special:3"


def test_a_file_system_that_turns_read_only_within_a_write_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Even the temporary file cannot be taken away then; tables and figures are written in the same way."""

    def read_only(*arguments: object, **options: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("os.fsync", read_only)
    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(StorageError, match="Read-only file system"):
        open_storage(tmp_path).write("a", b"1")
    with pytest.raises(StorageError, match=r"runs\.parquet.*Read-only file system"):
        write_tables(pl.DataFrame({"x": [1]}), pl.DataFrame({"x": [1]}), tmp_path)
    with pytest.raises(StorageError, match=r"figure\.png.*Read-only file system"):
        write_figure(Figure(), tmp_path / "figure", ["png"])
