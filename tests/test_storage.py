"""Storage: whole files or none, on a local disk, in S3 (moto) and in Google Cloud Storage (an emulator)."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from orchestrator import object_storage
from orchestrator.storage import MissingFileError, Storage, StorageError, open_storage
from tests import object_store
from tests.object_store import BUCKET, Store

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def s3() -> Iterator[Store]:
    with object_store.started("s3") as store:
        yield store


@pytest.fixture(scope="module")
def gs() -> Iterator[Store]:
    with object_store.started("gs") as store:
        yield store


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of the machine's own settings for object stores none reaches a test."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "STORAGE_EMULATOR", "GOOGLE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anyone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


@pytest.fixture
def s3_folder(s3: Store, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Storage:
    """A folder of this test's own, behind a proxy without faults."""
    s3.set_faults()
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.address)
    return open_storage(f"s3://{BUCKET}/{request.node.name}")


@pytest.fixture(params=["local", "s3", "gs"])
def storage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Storage:
    if request.param == "local":
        return open_storage(tmp_path / "sweeps" / "one")
    store: Store = request.getfixturevalue(request.param)
    store.set_faults()
    variable = "AWS_ENDPOINT_URL" if request.param == "s3" else "STORAGE_EMULATOR_HOST"
    monkeypatch.setenv(variable, store.address)
    return open_storage(f"{request.param}://{BUCKET}/{request.node.name}/one")


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


def test_a_reader_sees_one_content_while_another_writes(storage: Storage) -> None:
    """Contents differ in length as well: what Arrow's own reading of an object gets wrong."""
    contents = [bytes([number]) * (1000 + 5000 * (number * 7 % 10)) for number in range(40)]
    storage.write("claim", contents[0])
    done = threading.Event()

    def read() -> list[bytes]:
        seen = []
        while not done.is_set():
            seen.append(storage.read("claim"))
        return seen

    with ThreadPoolExecutor(2) as executor:
        readers = [executor.submit(read) for _ in range(2)]
        try:
            for content in contents:
                storage.write("claim", content)
                time.sleep(0.005)
        finally:
            done.set()
        seen = {content for reader in readers for content in reader.result()}
    assert len(seen) > 1
    assert seen <= set(contents)


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


# Object stores


def test_requests_are_few(s3: Store, s3_folder: Storage) -> None:
    s3_folder.write("rows/first", b"1")
    s3.set_faults()
    s3_folder.write("rows/a", b"1" * (object_storage.WHOLE_BYTES - 1))
    assert s3.requests() == {"PUT": 1}
    s3.set_faults()
    s3_folder.list("rows")
    assert s3.requests() == {"GET": 1}
    s3.set_faults()
    s3_folder.read("rows/a")
    assert s3.requests() == {"HEAD": 2, "GET": 1}


def test_long_listings_are_whole(s3: Store, s3_folder: Storage) -> None:
    def put(number: int) -> None:
        url = f"{s3.direct}/{s3_folder.location(f'rows/{number:04}').removeprefix('s3://')}"
        urllib.request.urlopen(urllib.request.Request(url, data=b"1", method="PUT")).close()

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(put, range(1005)))
    files = s3_folder.list("rows")
    assert [file.path for file in files] == [f"rows/{number:04}" for number in range(1005)]


def test_overloaded_for_a_while(s3: Store, s3_folder: Storage) -> None:
    s3.set_faults(failing_share=0.3, seed=1)
    contents = {f"rows/{number:02}": os.urandom(200 * number) for number in range(50)}
    for path, content in contents.items():
        s3_folder.write(path, content)
    assert s3.requests()["PUT"] > 55
    assert {file.path: s3_folder.read(file.path) for file in s3_folder.list("rows")} == contents


@pytest.mark.parametrize("size", [10, 12 << 20])
def test_lost_answers(s3: Store, s3_folder: Storage, size: int) -> None:
    """The object was stored, and the connection cut: the same content is written again."""
    content = os.urandom(size)
    s3.set_faults(dropping_share=0.5, seed=3)
    for number in range(5):
        s3_folder.write(f"rows/{number}", content)
    s3.set_faults()
    assert [s3_folder.read(file.path) for file in s3_folder.list("rows")] == [content] * 5


def test_slow_answers(s3: Store, s3_folder: Storage) -> None:
    """The write is sent once and waited for."""
    s3.set_faults(delay_seconds=1.5)
    s3_folder.write("a", b"1")
    assert s3.requests() == {"PUT": 1}


@pytest.mark.parametrize("size", [10, 12 << 20])
@pytest.mark.parametrize("methods", ["PUT", "POST PUT"])
@pytest.mark.parametrize("storage", ["s3", "gs"], indirect=True)
def test_failed_writes_leave_the_old_content(
    storage: Storage, methods: str, size: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also once the failed stream is dropped, and the server well again: Arrow closes it then."""
    store: Store = request.getfixturevalue("s3" if storage.url.startswith("s3") else "gs")
    monkeypatch.setattr(object_storage, "ATTEMPTS", 2)
    monkeypatch.setattr(object_storage, "PATIENCE_SECONDS", 1)
    object_storage._connect.cache_clear()
    storage.write("a", b"old")
    store.set_faults(failing_share=1, methods=methods)
    with pytest.raises(StorageError) as caught:
        storage.write("a", b"n" * size)
    assert f"cannot write {storage.location('a')}: the server is overloaded" in str(caught.value)
    store.set_faults()
    del caught
    gc.collect()
    object_storage._connect.cache_clear()
    assert [file.size for file in storage.list()] == [3]
    assert storage.read("a") == b"old"
    assert not {"PUT", "POST"} & set(store.requests())


def test_an_interrupt_waits_for_the_write(s3: Store, s3_folder: Storage) -> None:
    """An interrupt within the write must not leave the empty object of a stream that was opened and dropped."""
    code = (
        "import sys, signal, threading, time, os\n"
        "from orchestrator import object_storage\n"
        "from orchestrator.storage import open_storage\n"
        "storage = open_storage(sys.argv[1])\n"
        "storage.list()\n"
        "connected = object_storage._connect\n"
        "class Interrupting:\n"
        "    def __init__(self, inner): self.inner = inner\n"
        "    def open_output_stream(self, *arguments, **options):\n"
        "        stream = self.inner.open_output_stream(*arguments, **options)\n"
        "        os.kill(os.getpid(), signal.SIGINT); time.sleep(0.2)\n"
        "        return stream\n"
        "object_storage._connect = lambda *arguments: Interrupting(connected(*arguments))\n"
        "try: storage.write('a', b'whole')\n"
        "except KeyboardInterrupt: print('interrupted')\n"
    )
    command = [sys.executable, "-c", code, s3_folder.url]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert (result.stdout, result.stderr) == ("interrupted\n", "")
    assert s3_folder.read("a") == b"whole"


def test_a_process_that_used_s3_ends_quietly(s3_folder: Storage) -> None:
    """Also one that was forked from it, and one that leaves threads behind."""
    code = (
        "import atexit, sys, os, threading, time\n"
        "from orchestrator.storage import StorageError, open_storage\n"
        "storage = open_storage(sys.argv[1])\n"
        "storage.write('a', b'1')\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    storage.write('b', storage.read('a'))\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "def beat():\n"
        "    try:\n"
        "        while True: storage.write('c', b'1')\n"
        "    except StorageError: pass  # once the process ends\n"
        "threading.Thread(target=beat, daemon=True).start()\n"
        "atexit.register(storage.write, 'd', b'1')\n"
        "time.sleep(0.2)\n"
    )
    command = [sys.executable, "-c", code, s3_folder.url]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert [file.path for file in s3_folder.list()] == ["a", "b", "c", "d"]


def test_missing_buckets(s3: Store, gs: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.address)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gs.address)
    for url in ("s3://nowhere/x", "gs://nowhere/x"):
        storage = open_storage(url)
        uses: list[Callable[[], object]] = [
            storage.list,
            storage.folders,
            storage.check_writable,
            partial(storage.read, "a"),
            partial(storage.delete, "a"),
            partial(storage.write, "a", b"1"),
        ]
        for use in uses:
            with pytest.raises(StorageError, match=rf"cannot \w+ {url}\S*: there is no such bucket.*correct --storage"):
                use()


def test_wrong_credentials(s3: Store, s3_folder: Storage) -> None:
    def checked(after_requests: str) -> None:
        url, headers = f"{s3.direct}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(url, after_requests.encode(), headers)).close()

    checked("0")
    try:
        started = time.monotonic()
        uses: list[Callable[[], object]] = [
            s3_folder.list,
            lambda: s3_folder.read("a"),
            lambda: s3_folder.write("a", b"1"),
            s3_folder.check_writable,
        ]
        for use in uses:
            with pytest.raises(StorageError, match=r"cannot \w+ s3://\S*: access is denied.*Check the credentials"):
                use()
        assert time.monotonic() - started < 5
    finally:
        checked("inf")


@pytest.mark.parametrize("url", ["s3://bucket/x", "gs://bucket/x"])
def test_unreachable_servers(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    monkeypatch.setattr(object_storage, "ATTEMPTS", 4)
    monkeypatch.setattr(object_storage, "PATIENCE_SECONDS", 1)
    object_storage._connect.cache_clear()
    storage = open_storage(url)
    with pytest.raises(StorageError, match=rf"cannot write {url}/a: the server cannot be reached.*Check the network"):
        storage.write("a", b"1")
