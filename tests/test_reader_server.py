"""The server of the reader pod, and storage over it."""

from __future__ import annotations

import base64
import errno
import hashlib
import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from polars.testing import assert_frame_equal

from orchestrator.fetch import fetch
from orchestrator.k8s.fetching import claim_storage, file_server
from orchestrator.k8s.fetching.claim_storage import ClaimStorage
from orchestrator.k8s.fetching.file_server import FileServer
from orchestrator.ledger import Ledger
from orchestrator.storage import MissingFileError, Storage, StorageError, open_storage
from tests.reader_server import served
from tests.test_fetch import FIGURE, ROOT, RUNS, assert_same, go_on, sweep_in
from tests.waiting import PATIENCE_SECONDS


@pytest.fixture
def target(tmp_path: Path) -> Storage:
    return open_storage(tmp_path / "here").child("one")


def test_a_claim_is_storage_for_reading(tmp_path: Path, target: Storage) -> None:
    source = sweep_in(open_storage(tmp_path / "claim" / "one"))
    with served(tmp_path / "claim") as address:
        claim = ClaimStorage(address, "claim results")
        assert claim.folders() == ["one"]
        sweep = claim.child("one")
        assert (sweep.name, sweep.location("rows/a")) == ("one", "claim results:/one/rows/a")
        assert sweep.list("rows") == source.storage.list("rows")
        assert sweep.list("nowhere") == []
        assert sweep.folders() == source.storage.folders()
        assert sweep.exists(FIGURE)
        assert not sweep.exists("phase")
        assert not sweep.exists("phase/none.png")
        with pytest.raises(MissingFileError, match="claim results:/one/none does not exist"):
            sweep.read("none")
        assert_frame_equal(Ledger(sweep).load(), source.load())
        changes: list[Callable[[], None]] = [
            *(lambda: sweep.write("a", b""), lambda: sweep.delete(FIGURE), sweep.check_writable)
        ]
        for change in changes:
            with pytest.raises(StorageError, match="for reading only"):
                change()
        fetch(sweep, target)
        go_on(source, RUNS[4])
        fetch(sweep, target)
    assert_same(source, Ledger(target))


def get(address: str, path: str, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=PATIENCE_SECONDS)
    connection.request(method, path)
    response = connection.getresponse()
    found = response.status, response.read()
    connection.close()
    return found


def test_the_server_gives_nothing_outside_its_folder_and_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "claim" / "one").mkdir(parents=True)
    (tmp_path / "claim" / "one" / "inside").write_text("fine")
    (tmp_path / "claim" / "one" / ".hidden").write_text("secret")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "claim" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "claim" / "folder").symlink_to(tmp_path)
    (tmp_path / "claim" / "near").symlink_to("one/inside")
    os.mkfifo(tmp_path / "claim" / "pipe")
    with served(tmp_path / "claim") as address:
        assert get(address, "/file?path=one/inside") == (200, b"fine")
        assert get(address, "/file?path=near") == (200, b"fine")
        for path in (
            *("../secret", "one/../../secret", "%2e%2e/secret", "/etc/passwd", "one//inside", "./one/inside"),
            *("link", "folder/secret", "one/.hidden", "one/inside%00", "..%2fsecret"),
        ):
            status, body = get(address, f"/file?path={path}")
            assert status == 400, path
            assert b"fine" not in body
        for path in ("none", "one", "pipe", ""):
            assert get(address, f"/file?path={path}")[0] == 404, path
        for folder in ("..", "folder", "/"):
            assert get(address, f"/list?folder={folder}")[0] == 400, folder
            assert get(address, f"/folders?folder={folder}")[0] == 400, folder
        listed = json.loads(get(address, "/list?folder=")[1])["files"]
        assert [file["path"] for file in listed] == ["near"]
        assert json.loads(get(address, "/folders?folder=")[1]) == {"folders": ["one"]}
        assert get(address, "/elsewhere")[0] == 404
        for method in ("PUT", "POST", "DELETE", "PATCH"):
            assert get(address, "/file?path=one/inside", method)[0] == 501
    assert (tmp_path / "claim" / "one" / "inside").read_text() == "fine"


@contextmanager
def served_here(root: Path) -> Iterator[str]:
    """The server in a thread of this process."""
    root.mkdir(exist_ok=True)
    with FileServer(root) as server:
        server.timeout, left = 0.05, threading.Event()

        def serve() -> None:
            while not left.is_set():
                server.handle_request()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            left.set()
            thread.join()


def test_a_file_that_cannot_be_read_is_an_error_and_one_that_changes_is_no_muddle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served_here(tmp_path / "claim") as address:
        (tmp_path / "claim" / "a").write_bytes(b"content")
        claim = ClaimStorage(address, "claim results")
        with monkeypatch.context() as patched:
            patched.setattr(file_server, "_sha256", _io_error)
            with pytest.raises(StorageError, match=r"cannot read claim results:/a: Input/output error"):
                claim.read("a")
        assert claim.read("a") == b"content"

        def grow(file: BinaryIO) -> str:
            (tmp_path / "claim" / "a").write_bytes(b"content and more")
            return base64.b64encode(hashlib.sha256(b"content").digest()).decode()

        def shrink(file: BinaryIO) -> str:
            (tmp_path / "claim" / "a").write_bytes(b"cont")
            return base64.b64encode(hashlib.sha256(b"content").digest()).decode()

        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=PATIENCE_SECONDS)
        for happening, whole in ((grow, True), (shrink, False)):
            (tmp_path / "claim" / "a").write_bytes(b"content")
            with monkeypatch.context() as patched:
                patched.setattr(file_server, "_sha256", happening)
                connection.request("GET", "/file?path=a")
                response = connection.getresponse()
                if whole:
                    assert response.read() == b"content"
                else:
                    with pytest.raises(http.client.IncompleteRead):
                        response.read()
        connection.close()


def test_large_files_come_without_a_silence_in_which_they_are_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_server, "HASHED_BYTES", 4)
    monkeypatch.setattr(file_server, "CHUNK_BYTES", 3)
    with served_here(tmp_path / "claim") as address:
        for content in (b"four", b"and more"):
            (tmp_path / "claim" / "a").write_bytes(content)
            connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=PATIENCE_SECONDS)
            connection.request("GET", "/file?path=a")
            response = connection.getresponse()
            assert (response.getheader("Content-Digest") is not None) == (len(content) == 4)
            connection.close()
            assert ClaimStorage(address, "claim results").read("a") == content


def cut_short(monkeypatch: pytest.MonkeyPatch, size: int, happening: Callable[[int], object] = lambda _: None) -> None:
    """Have connections break after `size` bytes of a file, and something happen at each, which is given its number."""
    plain, number = file_server._Handler._send_content, count()

    def send(self: Any, file: BinaryIO, left: int) -> None:
        plain(self, file, min(left, size))
        self.close_connection = True
        happening(next(number))

    monkeypatch.setattr(file_server._Handler, "_send_content", send)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are large from four bytes on, and no longer young."""
    monkeypatch.setattr(file_server, "HASHED_BYTES", 3)
    monkeypatch.setattr(file_server, "YOUNG_SECONDS", 0.0)
    monkeypatch.setattr(claim_storage, "CHUNK_BYTES", 1)
    monkeypatch.setattr(claim_storage, "PAUSE_SECONDS", (0.0, 0.0))


@pytest.mark.usefixtures("large")
def test_a_large_file_goes_on_where_its_connection_broke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, asked = bytes(range(3 * claim_storage.ATTEMPTS)), []
    plain = http.client.HTTPConnection.request

    def request(self: http.client.HTTPConnection, method: str, url: str, headers: dict[str, str]) -> None:
        asked.append(headers.get("Range"))
        plain(self, method, url, headers=headers)

    monkeypatch.setattr(http.client.HTTPConnection, "request", request)
    with served_here(tmp_path / "claim") as address:
        (tmp_path / "claim" / "a").write_bytes(content)
        cut_short(monkeypatch, 2)
        assert ClaimStorage(address, "claim results").read("a") == content
        assert asked == [None, *(f"bytes={start}-" for start in range(2, len(content), 2))]
        asked.clear()
        cut_short(monkeypatch, 0)
        with pytest.raises(StorageError, match=r"cannot read claim results:/a: the reader pod"):
            ClaimStorage(address, "claim results").read("a")
        assert asked == [None] * claim_storage.ATTEMPTS


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("same_inode", [False, True], ids=["replaced", "written into"])
def test_a_file_that_changes_between_two_tries_comes_as_one_of_its_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_inode: bool
) -> None:
    with served_here(tmp_path / "claim") as address:
        path, new = tmp_path / "claim" / "a", tmp_path / "new"
        path.write_bytes(b"old " * 4)
        os.utime(path, (1, 1))  # the clock of files is coarse

        def change(number: int) -> None:
            if number == 1:
                (path if same_inode else new).write_bytes(b"new " * 4)
                if not same_inode:
                    new.replace(path)

        cut_short(monkeypatch, 6, change)
        assert ClaimStorage(address, "claim results").read("a") == b"new " * 4


@pytest.mark.usefixtures("large")
def test_the_rest_is_given_of_the_very_version_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served_here(tmp_path / "claim") as address:
        (tmp_path / "claim" / "a").write_bytes(b"content")

        def ask(**headers: str) -> tuple[int, str | None, bytes]:
            connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=PATIENCE_SECONDS)
            connection.request("GET", "/file?path=a", headers={key.replace("_", "-"): headers[key] for key in headers})
            response = connection.getresponse()
            found = response.status, response.getheader("ETag"), response.read()
            connection.close()
            return found

        status, tag, content = ask()
        assert (status, content) == (200, b"content")
        assert tag
        assert ask(Range="bytes=3-", If_Range=tag) == (206, tag, b"tent")
        for headers in (
            *({"Range": "bytes=3-"}, {"Range": "bytes=3-", "If_Range": '"another"'}, {"If_Range": tag}),
            *({"Range": f"bytes={span}", "If_Range": tag} for span in ("7-", "99-", "-3", "0-3", "x")),
        ):
            assert ask(**headers) == (200, tag, b"content"), headers
        monkeypatch.setattr(file_server, "YOUNG_SECONDS", PATIENCE_SECONDS * 10)
        assert ask(Range="bytes=3-", If_Range=tag) == (200, None, b"content")


def test_a_listing_that_names_files_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = ClaimStorage("http://127.0.0.1:9", "claim results").child("one")
    for path in ("/etc/passwd", "one/phase/../../out", "one/sweep.json", "one/phase/", "one/phase/.fetched.json"):
        listed = json.dumps({"files": [{"path": path, "size": 1, "modified": 0}]}).encode()
        monkeypatch.setattr(claim_storage, "_exchange", lambda *_, listed=listed: (200, listed))
        with pytest.raises(StorageError, match="no name of a file"):
            sweep.list("phase")


def _io_error(file: BinaryIO) -> str:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_the_server_leaves_when_nobody_asks_and_starts_light(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "orchestrator.k8s.fetching.file_server", str(tmp_path), "--port", "0"]
    result = subprocess.run(
        [*command, "--idle-minutes", "0.01"], cwd=ROOT, timeout=PATIENCE_SECONDS, check=True, capture_output=True
    )
    assert result.stdout.startswith(b"http://127.0.0.1:")
    code = "import sys, orchestrator.k8s.fetching.file_server\nprint(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert not {"torch", "ray", "pyarrow", "polars", "pydantic", "numpy", "click"} & set(loaded.split())
    result = subprocess.run([*command[:3], str(tmp_path / "none")], cwd=ROOT, check=False, capture_output=True)
    assert (result.returncode, b"cannot" in result.stderr) == (1, True)


def test_broken_connections_and_damaged_answers_are_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "claim").mkdir()
    (tmp_path / "claim" / "a").write_bytes(b"content")
    monkeypatch.setattr(claim_storage, "PAUSE_SECONDS", (0.0, 0.0))
    plain, troubles = http.client.HTTPResponse.read, ["damaged", "cut", "damaged"]

    def read(self: http.client.HTTPResponse, *arguments: Any) -> bytes:
        content = plain(self, *arguments)
        trouble = troubles.pop(0) if troubles else ""
        if trouble == "cut":
            raise http.client.IncompleteRead(content[:2])
        return b"c0ntent" if trouble else content

    with served(tmp_path / "claim") as address:
        claim = ClaimStorage(address, "claim results")
        monkeypatch.setattr(http.client.HTTPResponse, "read", read)
        assert claim.read("a") == b"content"
        assert troubles == []
        troubles += ["damaged"] * 100
        with pytest.raises(StorageError, match=r"results:/a: the reader pod .*not what was sent.*same command again"):
            claim.read("a")
    monkeypatch.undo()
    monkeypatch.setattr(claim_storage, "PAUSE_SECONDS", (0.0, 0.0))
    with pytest.raises(StorageError, match=r"cannot list claim results: the reader pod does not answer any more"):
        claim.list()
