"""Object stores that are slow, full of requests, deaf or locked: what a write costs and what it leaves behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from orchestrator import object_storage
from orchestrator.storage import Storage, StorageError, open_storage
from tests.object_store import Store
from tests.waiting import PATIENCE_SECONDS

ROOT = Path(__file__).resolve().parent.parent


pytestmark = pytest.mark.usefixtures("environment")


def run_python(code: str, url: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own, with the storage's address as its argument."""
    command = [sys.executable, "-c", code, url]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)


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
    result = run_python(code, s3_folder.url)
    assert (result.returncode, result.stdout, result.stderr) == (0, "interrupted\n", "")
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
        "begun = threading.Event()\n"
        "def beat():\n"
        "    try:\n"
        "        while True: storage.write('c', b'1'); begun.set()\n"
        "    except StorageError: pass  # once the process ends\n"
        "threading.Thread(target=beat, daemon=True).start()\n"
        "atexit.register(storage.write, 'd', b'1')\n"
        "begun.wait()\n"
    )
    result = run_python(code, s3_folder.url)
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
        uses: list[Callable[[], object]] = [
            s3_folder.list,
            lambda: s3_folder.read("a"),
            lambda: s3_folder.write("a", b"1"),
            s3_folder.check_writable,
        ]
        for use in uses:
            with pytest.raises(StorageError, match=r"cannot \w+ s3://\S*: access is denied.*Check the credentials"):
                use()
        assert sum(s3.requests().values()) < 2 * len(uses), s3.requests()
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
