"""Fetch: a whole ledger here, whatever happens there: while it grows and is compacted, and where the way is bad."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from polars.testing import assert_frame_equal

from orchestrator import paths
from orchestrator.compaction import compact
from orchestrator.fetch import fetch
from orchestrator.fetch_target import open_target
from orchestrator.lease import Lease, LeaseHeldError
from orchestrator.ledger import Ledger, LedgerError, Manifest
from orchestrator.local_storage import LocalStorage
from orchestrator.parts import DamagedPartsError
from orchestrator.storage import Storage, StorageError, StoredFile, open_storage
from orchestrator.verify import verify
from search_spaces.catalog import load_space
from search_spaces.runs import Run, expand
from tests.test_ledger import end, row
from tests.waiting import PATIENCE_SECONDS

ROOT = Path(__file__).resolve().parent.parent
SPACE = load_space("digits-grid", ["seeds=2", "widths=[2,4]"])
RUNS = expand(SPACE)
FIGURE = "phase/overview.png"


def sweep_in(storage: Storage, created: str = "2026-01-01", runs: int = 3) -> Ledger:
    """A sweep that has begun: `runs` runs are done, the next one has a row, a checkpoint and no end."""
    ledger = Ledger(storage)
    ledger.write_manifest(Manifest("one", SPACE, 1, created))
    ledger.add_runs(RUNS, "width", 1_000_000)
    for run in RUNS[:runs]:
        train(ledger, run)
    ledger.write_rows("under-way", [row(RUNS[runs], 0)])
    ledger.write_logs("launch", [{"level": "info", "event": "begun", "message": "", "worker": "w", "attempt": 1}])
    storage.write(paths.checkpoint(RUNS[runs].run_id), b"state")
    storage.write(FIGURE, b"figure")
    storage.write("phase/nested/deep/table.csv", b"1,2")
    storage.write("damaged/rows-old.parquet", b"broken")
    return ledger


def train(ledger: Ledger, run: Run, attempt: int = 1) -> None:
    """Rows, as many as attempts, then the end that claims them, as a worker writes them."""
    stem = f"pack-{run.run_id}-{attempt}"
    ledger.write_rows(stem, [row(run, evaluation, attempt / 100, attempt) for evaluation in range(attempt)])
    ledger.write_ends(stem, [end(run, "done", attempt, attempt)])


def go_on(ledger: Ledger, *runs: Run, attempt: int = 2) -> None:
    """What a launch does between two looks: more runs end, then all is compacted."""
    for run in runs:
        train(ledger, run, attempt)
    compact(ledger)


def assert_same(source: Ledger, target: Ledger) -> None:
    """They say the same, and consist of the same files."""
    assert_frame_equal(target.load(), source.load())
    assert target.manifest() == source.manifest()
    assert_frame_equal(target.logs(), source.logs())
    for folder in (paths.RUNS, paths.ROWS, paths.ENDS, paths.LOGS):
        names = [[(file.path, file.size) for file in each.storage.list(folder)] for each in (source, target)]
        assert names[0] == names[1]


def assert_whole(ledger: Ledger) -> None:
    """Every end has its rows, every row its hyperparameters, every file its content."""
    assert set(ledger.statuses().values()) == {"done"}
    problems = verify(ledger).problems
    assert [problem for problem in problems if "number of rows than planned" not in problem] == []  # one a run, here


class Meddled(LocalStorage):
    """A folder where something happens just before the n-th file is read; with `listing`, before the n-th listing."""

    def __init__(self, root: Path, happening: Callable[[], object], number: int, *, listing: bool = False) -> None:
        super().__init__(str(root))
        self.happening, self.number, self.listing = happening, number, listing
        self._lock = threading.Lock()

    def _count(self) -> None:
        with self._lock:
            self.number -= 1
            if self.number == 0:
                self.happening()

    def read(self, path: str) -> bytes:
        if not self.listing and path != paths.MANIFEST:
            self._count()
        return super().read(path)

    def list(self, folder: str = "") -> list[StoredFile]:
        if self.listing:
            self._count()
        return super().list(folder)


@pytest.fixture
def target(tmp_path: Path) -> Storage:
    return open_storage(tmp_path / "here").child("one")


# A whole copy, from every kind of storage


def test_a_sweep_is_copied_and_then_only_what_is_new(storage: Storage, target: Storage) -> None:
    source = sweep_in(storage)
    first = fetch(storage, target)
    here = Ledger(target)
    assert_same(source, here)
    assert target.read(FIGURE) == b"figure"
    assert target.read("phase/nested/deep/table.csv") == b"1,2"
    assert target.folders() == ["ends", "logs", "phase", "rows", "runs"]
    assert (first.unchanged, first.removed) == (0, 0)
    again = fetch(storage, target)
    assert (again.files, again.unchanged, again.removed) == (2, first.files - 2, 0)  # the manifest and the space
    go_on(source, RUNS[4])
    third = fetch(storage, target)
    assert_same(source, here)
    assert third.removed > 0
    found = verify(here)
    assert found.counts["rows"] == 6
    assert found.counts == verify(source).counts


def test_checkpoints_come_only_when_asked_for_and_go_with_their_runs(tmp_path: Path, target: Storage) -> None:
    source = sweep_in(open_storage(tmp_path / "there" / "one"))
    path = paths.checkpoint(RUNS[3].run_id)
    fetch(source.storage, target)
    assert not target.exists(path)
    fetch(source.storage, target, checkpoints=True)
    assert target.read(path) == b"state"
    source.storage.write(path, b"later")
    fetch(source.storage, target, checkpoints=True)
    assert target.read(path) == b"later"
    source.storage.delete(path)
    assert fetch(source.storage, target, checkpoints=True).removed == 1
    assert not target.exists(path)


def test_figures_are_as_they_are_there_and_those_drawn_here_stay(tmp_path: Path, target: Storage) -> None:
    source = sweep_in(open_storage(tmp_path / "there" / "one"))
    fetch(source.storage, target)
    target.write("phase/mine.pdf", b"drawn here")
    source.storage.write(FIGURE, b"redraw")  # of the same size
    os.utime(tmp_path / "there" / "one" / FIGURE, (1, 1))
    source.storage.delete("phase/nested/deep/table.csv")
    assert fetch(source.storage, target).removed == 1
    assert target.read(FIGURE) == b"redraw"
    assert target.read("phase/mine.pdf") == b"drawn here"
    assert not target.exists("phase/nested/deep/table.csv")


@pytest.mark.parametrize(("large", "most"), [(1, 1), (1 << 30, 8)])
def test_small_files_come_side_by_side_and_large_ones_one_by_one(
    tmp_path: Path, target: Storage, monkeypatch: pytest.MonkeyPatch, large: int, most: int
) -> None:
    monkeypatch.setattr("orchestrator.transfer.LARGE_BYTES", large)
    at_once, seen = threading.Semaphore(most), []

    class Watched(LocalStorage):
        def read(self, path: str) -> bytes:
            assert at_once.acquire(blocking=False), "too many at once"
            try:
                seen.append(threading.current_thread().name)
                return super().read(path)
            finally:
                at_once.release()

    source = sweep_in(open_storage(tmp_path / "there" / "one"))
    fetch(Watched(source.storage.url), target)
    assert_same(source, Ledger(target))
    assert any(name.startswith("transfer") for name in seen) == (most > 1)


# While the sweep goes on


@pytest.mark.parametrize("listing", [False, True], ids=["between readings", "between listings"])
@pytest.mark.parametrize("number", range(1, 10))
def test_a_compaction_in_the_midst_is_not_noticed(tmp_path: Path, target: Storage, number: int, listing: bool) -> None:
    source = sweep_in(open_storage(tmp_path / "there" / "one"))
    meddled = Meddled(tmp_path / "there" / "one", lambda: go_on(source, RUNS[5]), number, listing=listing)
    fetch(meddled, target)
    assert meddled.number <= 0, "it has not happened"
    here = Ledger(target)
    assert_whole(here)
    assert set(here.statuses()) >= {run.run_id for run in RUNS[:3]}
    fetch(source.storage, target)
    assert_same(source, here)


@pytest.mark.parametrize(("number", "listing"), [(1, False), *((number, True) for number in range(1, 10))])
def test_rows_of_before_a_fetch_are_in_it_though_they_move(
    tmp_path: Path, target: Storage, number: int, listing: bool
) -> None:
    """All else is here already, so that nothing but the one new part can vanish."""
    source = sweep_in(open_storage(tmp_path / "there" / "one"))
    compact(source)
    fetch(source.storage, target)
    source.write_rows("more", [row(RUNS[3], 1)])
    fetch(Meddled(tmp_path / "there" / "one", lambda: compact(source), number, listing=listing), target)
    here = Ledger(target)
    assert_whole(here)
    assert here.load().filter(run_id=RUNS[3].run_id)["evaluation"].to_list() == [0, 1]


@pytest.mark.parametrize("number", range(1, 10))
def test_an_end_that_supersedes_another_in_the_midst_leaves_no_run_lost(
    tmp_path: Path, target: Storage, number: int
) -> None:
    """The rows of the first attempt go with the compaction, so its end must not be all that is fetched."""
    source = sweep_in(open_storage(tmp_path / "there" / "one"))
    fetch(source.storage, target)
    again = Meddled(tmp_path / "there" / "one", lambda: go_on(source, RUNS[0]), number, listing=True)
    fetch(again, target)
    assert_whole(Ledger(target))


def test_a_copy_made_while_another_thread_trains_and_compacts_is_always_whole(tmp_path: Path, target: Storage) -> None:
    source = sweep_in(open_storage(tmp_path / "there" / "one"))

    def train_all() -> None:
        for number, run in enumerate(RUNS[4:]):
            train(source, run)
            if number % 3 == 2:
                compact(source)

    with ThreadPoolExecutor(1) as executor:
        training = executor.submit(train_all)
        done = 0
        while not training.done():
            fetch(source.storage, target)
            assert_whole(Ledger(target))
            found = Ledger(target).statuses()
            assert len(found) >= done
            done = len(found)
        training.result()
    fetch(source.storage, target)
    assert_same(source, Ledger(target))


# Killed, cut and damaged


class Dying(LocalStorage):
    """A folder that takes `writes` more files."""

    def __init__(self, url: str, writes: int) -> None:
        super().__init__(url)
        self.writes = writes

    def write(self, path: str, content: Any) -> None:
        if self.writes == 0:
            raise StorageError("killed")
        self.writes -= 1
        super().write(path, content)

    def delete(self, path: str) -> None:
        if self.writes == 0:
            raise StorageError("killed")
        super().delete(path)


def test_a_fetch_killed_at_any_write_is_completed_by_the_next(
    tmp_path: Path, target: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.transfer.SIDE_BY_SIDE", 1)
    source = sweep_in(open_storage(tmp_path / "there" / "one"))
    went_on = open_storage(tmp_path / "later" / "one")
    fetch(source.storage, went_on)
    fetch(source.storage, target)
    killed = 0
    for writes in range(40):
        fresh = open_storage(tmp_path / "fresh" / str(writes))
        try:
            fetch(source.storage, Dying(fresh.url, writes))
        except StorageError:
            killed += 1
            assert not Ledger(fresh).exists(), "it is not whole, so it must not look like a sweep"
        else:
            break
        fetch(source.storage, fresh)
        assert_same(source, Ledger(fresh))
    assert killed > 10
    before = Ledger(target).statuses()
    go_on(source, RUNS[4])
    for writes in range(40):
        try:
            fetch(source.storage, Dying(target.url, writes))
        except StorageError:
            assert Ledger(target).statuses().items() >= before.items(), "what was there must stay readable"
        else:
            break
    assert_same(source, Ledger(target))


def test_what_hangs_does_not_hold_up_the_end(tmp_path: Path, target: Storage) -> None:
    """After a failure as after Ctrl-C: a reader pod that is gone only then breaks the connections to it."""
    source = sweep_in(open_storage(tmp_path / "there" / "one"))
    released, waited = threading.Event(), []

    class Hanging(LocalStorage):
        def read(self, path: str) -> bytes:
            if path.startswith("logs/"):
                raise StorageError("out of order")
            if path.startswith("rows/"):
                waited.append(released.wait(PATIENCE_SECONDS))
            return super().read(path)

    try:
        with pytest.raises(StorageError, match="out of order"):
            fetch(Hanging(source.storage.url), target)
        assert waited == []
    finally:
        released.set()


class Faulty(LocalStorage):
    """A folder whose files arrive damaged the first `times` they are read."""

    def __init__(self, url: str, times: int) -> None:
        super().__init__(url)
        self.times: dict[str, int] = {}
        self.most = times

    def read(self, path: str) -> bytes:
        content = super().read(path)
        self.times[path] = self.times.get(path, 0) + 1
        return content[:-1] if path.startswith("rows/") and self.times[path] <= self.most else content


def test_a_damaged_transfer_is_repeated_and_what_is_damaged_there_is_told(tmp_path: Path, target: Storage) -> None:
    source = sweep_in(open_storage(tmp_path / "there" / "one"))
    fetch(Faulty(source.storage.url, 2), target)
    assert_same(source, Ledger(target))
    other = open_storage(tmp_path / "other")
    with pytest.raises(DamagedPartsError, match="4 damaged files") as caught:
        fetch(Faulty(source.storage.url, 1000), other)
    assert "rows/under-way" in str(caught.value)
    assert not Ledger(other).exists()
    assert other.list("rows") == other.list("ends") == []
    (tmp_path / "there" / "one" / "rows" / "notes.txt").write_text("foreign")
    with pytest.raises(DamagedPartsError, match=r"notes\.txt: not a file of this ledger"):
        fetch(source.storage, target)


def test_an_end_that_is_damaged_there_is_told_and_not_left_out(tmp_path: Path, target: Storage) -> None:
    """Without it the copy would be whole to look at, with a run less in its figures."""
    source = sweep_in(open_storage(tmp_path / "there" / "one"))
    path = source.storage.local_path(source.storage.list("ends")[0].path)
    assert path is not None
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(DamagedPartsError, match=f"ends/{path.name}"):
        fetch(source.storage, target)
    assert not Ledger(target).exists()


@pytest.mark.parametrize("killed", [False, True])
def test_checkpoints_that_have_come_do_not_come_again_where_the_rest_did_not(
    tmp_path: Path, target: Storage, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    monkeypatch.setattr("orchestrator.transfer.LARGE_BYTES", 1)  # one after the other
    if killed:
        monkeypatch.setattr("orchestrator.fetch.LARGE_BYTES", 1)
    source = sweep_in(open_storage(tmp_path / "there" / "one"))
    names = sorted(paths.checkpoint(run.run_id) for run in RUNS[3:6])
    for name in names:
        source.storage.write(name, b"state")
    seen: list[str] = []

    class Cut(LocalStorage):
        def read(self, path: str) -> bytes:
            seen.append(path)
            if path == names[2] and seen.count(path) == 1:
                shutil.copytree(f"{target.local_path()}", tmp_path / "killed" / "one")
                raise StorageError("cut off")
            return super().read(path)

    cut = Cut(source.storage.url)
    with pytest.raises(StorageError, match="cut off"):
        fetch(cut, target, checkpoints=True)
    here = open_storage(tmp_path / "killed" / "one") if killed else target
    fetch(cut, here, checkpoints=True)
    assert [seen.count(name) for name in names] == [1, 1, 2]
    assert [here.read(name) for name in names] == [b"state"] * 3


def test_a_copy_that_was_damaged_here_is_put_right(tmp_path: Path, target: Storage) -> None:
    source = sweep_in(open_storage(tmp_path / "there" / "one"))
    fetch(source.storage, target)
    path = target.local_path(target.list("rows")[0].path)
    assert path is not None
    path.write_bytes(b"cut")
    path = target.local_path(paths.MANIFEST)
    assert path is not None
    path.write_bytes(b"{")
    fetch(source.storage, target)
    assert_same(source, Ledger(target))


# Folders that must not be touched


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_another_sweep_of_that_name_is_refused(tmp_path: Path, target: Storage) -> None:
    source = sweep_in(open_storage(tmp_path / "there" / "one"))
    sweep_in(target, created="2025-12-24")
    before = files_below(tmp_path / "here")
    with pytest.raises(ValueError, match=r"another sweep of that name, begun 2025-12-24.*--to"):
        fetch(source.storage, target)
    assert files_below(tmp_path / "here") == before


def test_a_copy_that_has_grown_here_is_refused(tmp_path: Path, target: Storage) -> None:
    source = sweep_in(open_storage(tmp_path / "there" / "one"))
    fetch(source.storage, target)
    train(Ledger(target), RUNS[7])
    go_on(source, RUNS[4])
    table = Ledger(target).load()
    with pytest.raises(ValueError, match=r"2 parts that .* does not have \(rows/.*launched or compacted here.*--to"):
        fetch(source.storage, target)
    assert_frame_equal(Ledger(target).load(), table)


def test_a_copy_by_other_means_is_taken_on(tmp_path: Path, target: Storage) -> None:
    source = sweep_in(open_storage(tmp_path / "there" / "one"))
    for path, content in files_below(tmp_path / "there" / "one").items():
        target.write(path, content)
    found = fetch(source.storage, target)
    assert found.unchanged > found.files
    assert_same(source, Ledger(target))


def test_a_folder_in_use_is_refused(tmp_path: Path, target: Storage) -> None:
    source = sweep_in(open_storage(tmp_path / "there" / "one"))
    fetch(source.storage, target)
    with Lease(target), pytest.raises(LeaseHeldError, match=r"being launched by .*--to"):
        fetch(source.storage, target)
    with open_target(target, source.storage, "2026-01-01"), pytest.raises(LeaseHeldError, match="another bo-sweep fe"):
        fetch(source.storage, target)
    fetch(source.storage, target)


def test_what_is_no_place_for_a_copy_is_refused(tmp_path: Path, target: Storage, environment: None) -> None:
    source = sweep_in(open_storage(tmp_path / "there" / "one"))
    with pytest.raises(ValueError, match="where the sweep is already"):
        fetch(source.storage, open_storage(tmp_path / "there" / "." / "one"))
    with pytest.raises(ValueError, match="no folder of this machine"):
        fetch(source.storage, open_storage("s3://bucket/one"))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"cannot be written: .*--to"):
        fetch(source.storage, open_storage(tmp_path / "file" / "one"))
    with pytest.raises(LedgerError, match="no sweep 'none'"):
        fetch(open_storage(tmp_path / "there" / "none"), target)
    assert not (tmp_path / "here").exists()


def test_an_object_with_a_name_that_leads_out_is_not_copied(tmp_path: Path, target: Storage) -> None:
    class Odd(LocalStorage):
        def list(self, folder: str = "") -> list[StoredFile]:
            files = super().list(folder)
            return [*files, StoredFile("phase/../../../../out", 1, 0.0)] if folder == "phase" else files

    source = sweep_in(open_storage(tmp_path / "there" / "one"))
    with pytest.raises(StorageError, match="no path of a file"):
        fetch(Odd(source.storage.url), target)


def test_a_launch_that_begins_here_meanwhile_keeps_its_manifest(tmp_path: Path, target: Storage) -> None:
    """Its attempts are numbered by how often it was launched, so a manifest from elsewhere would repeat numbers."""
    source = sweep_in(open_storage(tmp_path / "there" / "one"))
    fetch(source.storage, target)
    before = target.read(paths.MANIFEST)
    source.write_manifest(Manifest("one", SPACE, 7, "2026-01-01"))
    lease = Lease(target)
    begins = Meddled(tmp_path / "there" / "one", lease.__enter__, 1, listing=True)
    try:
        with pytest.raises(LeaseHeldError, match=r"being launched by .*--to"):
            fetch(begins, target)
    finally:
        lease.__exit__()
    assert target.read(paths.MANIFEST) == before
    source.storage.write("phase/new.png", b"to be read after the parts")
    was_over = Meddled(tmp_path / "there" / "one", lambda: train(Ledger(target), RUNS[7]), 1)
    with pytest.raises(ValueError, match=r"2 parts that .* does not have"):
        fetch(was_over, target)
    assert target.read(paths.MANIFEST) == before


def test_what_a_killed_fetch_has_left_half_written_is_removed(tmp_path: Path, target: Storage) -> None:
    source = sweep_in(open_storage(tmp_path / "there" / "one"))
    fetch(source.storage, target)
    half = [f"rows/.settled-1.0123456789abcdef.parquet.4711.{'a' * 16}.tmp", f".sweep.json.4711.{'b' * 16}.tmp"]
    for path in (*half, "rows/.mine.tmp"):
        target.write(path, b"half")
        os.utime(f"{target.local_path(path)}", (1, 1))
    under_way = f"rows/.settled-2.0123456789abcdef.parquet.4711.{'c' * 16}.tmp"
    target.write(under_way, b"half")
    fetch(source.storage, target)
    assert [target.exists(path) for path in half] == [False, False]
    assert target.exists("rows/.mine.tmp")
    assert target.exists(under_way)


def test_a_part_that_has_changed_here_at_the_same_size_comes_anew(tmp_path: Path, target: Storage) -> None:
    source = sweep_in(open_storage(tmp_path / "there" / "one"))
    fetch(source.storage, target)
    for folder in (paths.ROWS, paths.ENDS):
        path = target.local_path(target.list(folder)[0].path)
        assert path is not None
        path.write_bytes(bytes(path.stat().st_size))
    fetch(source.storage, target)
    assert_same(source, Ledger(target))


def test_a_folder_that_leads_into_itself_is_not_followed_for_ever(tmp_path: Path, target: Storage) -> None:
    source = sweep_in(open_storage(tmp_path / "there" / "one"))
    (tmp_path / "there" / "one" / "phase" / "again").symlink_to(".")
    with pytest.raises(StorageError, match=r"phase/again/.* leads into itself"):
        fetch(source.storage, target)


def test_a_full_disk_and_a_folder_of_somebody_else_are_told_with_the_right_option(
    tmp_path: Path, target: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = sweep_in(open_storage(tmp_path / "there" / "one"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match=r"No space left on device\. Free space.*--to") as told:
            fetch(source.storage, target)
    assert "--storage" not in str(told.value)
    fetch(source.storage, target)
    lock = target.local_path(".fetched.lock")
    assert lock is not None
    lock.unlink()
    lock.mkdir()  # stands for a file that may not be opened: root may open all
    with pytest.raises(StorageError, match=r"cannot lock .*: Is a directory.*--to"):
        fetch(source.storage, target)
    lock.rmdir()
    with monkeypatch.context() as patched:
        patched.setattr("fcntl.flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks available")))
        with pytest.raises(StorageError, match=r"cannot lock .*: No locks available"):
            fetch(source.storage, target)
