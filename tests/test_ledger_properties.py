"""Any interleaving of attempts, crashes, compactions and readers gives the same table."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import compaction
from orchestrator.compaction import compact
from orchestrator.ledger import Ledger, Manifest
from orchestrator.local_storage import LocalStorage
from orchestrator.storage import StorageError
from orchestrator.verify import verify
from search_spaces.catalog import load_space
from search_spaces.runs import Run, expand
from search_spaces.schedule import count_evaluations
from tests.test_ledger import RUNS, end, files, row

write, delete = LocalStorage.write, LocalStorage.delete
EVALUATIONS = 4
"""Planned for every run here."""


@dataclass
class Model:
    """What a ledger must say: kept in plain dictionaries, beside the real one."""

    rows: dict[tuple[str, int, int], float] = field(default_factory=dict)
    ends: dict[str, tuple[int, str, int]] = field(default_factory=dict)

    def table(self) -> dict[tuple[str, int], float]:
        """The rule of snapshot.py, said once more and more slowly."""
        found: dict[tuple[str, int], tuple[int, float]] = {}
        for (run_id, evaluation, attempt), value in self.rows.items():
            last, _, claimed = self.ends.get(run_id, (10**9, "", 10**9))
            if attempt > last or evaluation >= claimed:
                continue
            before = found.get((run_id, evaluation))
            if before is None or before[0] < attempt:
                found[run_id, evaluation] = (attempt, value)
        return {key: value for key, (_, value) in found.items()}


class CrashError(Exception):
    """A process that dies in the middle of something."""


operations = st.lists(
    st.tuples(
        st.sampled_from(["train", "train", "train", "zombie", "compact", "crash while compacting", "two compactions"]),
        st.integers(0, len(RUNS) - 1),
        st.integers(0, EVALUATIONS),
        st.sampled_from(["killed", "end", "end", "diverged", "failed"]),
        st.integers(0, 6),
    ),
    max_size=12,
)


@given(operations)
@settings(max_examples=60)
def test_any_interleaving_gives_the_same_table(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int, str, int]]
) -> None:
    ledger, model = Ledger(tmp_path_factory.mktemp("sweep")), Model()
    attempt = 0
    for number, (what, which, start, fate, step) in enumerate(steps):
        run = RUNS[which]
        if what in ("train", "zombie"):
            attempt += 1
            mine = attempt if what == "train" else max(1, attempt - 1 - step)
            _train(ledger, model, run, mine, start, fate, stem=f"{number:03d}")
        elif what == "compact":
            compact(ledger)
        elif what == "two compactions":
            _compact_twice_at_once(ledger)
        else:
            _crash_while_compacting(ledger, after=step)
        assert _table(ledger) == model.table()
    compact(ledger)
    assert _table(ledger) == model.table()
    assert len(ledger.storage.list("rows")) <= compaction.FEW_SETTLED + 2


def _train(ledger: Ledger, model: Model, run: Run, attempt: int, start: int, fate: str, stem: str) -> None:
    """Evaluations from `start` on, as after a checkpoint, in two parts; then maybe an end."""
    held = {e for (run_id, e, a) in model.rows if run_id == run.run_id and a < attempt}
    start = min(start, next(e for e in range(EVALUATIONS + 1) if e not in held))
    stop = {"killed": EVALUATIONS - 1, "diverged": max(start + 1, 2), "failed": EVALUATIONS - 1}.get(fate, EVALUATIONS)
    done = list(range(start, min(stop, EVALUATIONS)))
    for half, part in enumerate((done[: len(done) // 2], done[len(done) // 2 :])):
        if part:
            rows = [row(run, e, 10 * attempt + e, attempt) for e in part if (run.run_id, e, attempt) not in model.rows]
            ledger.write_rows(f"{stem}-{half}", rows)
            model.rows |= {(run.run_id, r["evaluation"], attempt): r["test_error"] for r in rows}
    if fate == "killed":
        return
    status = {"end": "done"}.get(fate, fate)
    claimed = None if status == "failed" else stop if status == "diverged" else EVALUATIONS
    if (model.ends.get(run.run_id) or (0,))[0] == attempt:
        return  # one attempt ends once
    ledger.write_ends(stem, [end(run, status, claimed, attempt)])
    if attempt > (model.ends.get(run.run_id) or (0,))[0]:
        model.ends[run.run_id] = (attempt, status, 10**9 if claimed is None else claimed)


def _table(ledger: Ledger) -> dict[tuple[str, int], float]:
    rows = ledger.snapshot(["test_error"]).rows().collect()
    keys = list(zip(rows["run_id"].to_list(), rows["evaluation"].to_list(), strict=True))
    assert len(keys) == len(set(keys)), "a row is there twice"
    return dict(zip(keys, rows["test_error"].to_list(), strict=True))


def _crash_while_compacting(ledger: Ledger, after: int) -> None:
    """The process dies when it has written or deleted `after` files."""
    left = after

    def counted(original: Any) -> Any:
        def call(*arguments: Any) -> Any:
            nonlocal left
            if left == 0:
                raise CrashError
            left -= 1
            return original(*arguments)

        return call

    storage = ledger.storage
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(storage), "write", lambda self, *a: counted(lambda *b: write(self, *b))(*a))
        patch.setattr(type(storage), "delete", lambda self, *a: counted(lambda *b: delete(self, *b))(*a))
        with suppress(CrashError):
            compact(ledger)


def _compact_twice_at_once(ledger: Ledger) -> None:
    """Another compaction runs, from its first to its last step, just before this one deletes anything."""
    original = compaction._delete
    nested = False

    def delete_later(*arguments: Any, **options: Any) -> None:
        nonlocal nested
        if not nested:
            nested = True
            compact(ledger)
        original(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "_delete", delete_later)
        compact(ledger)


def test_a_reader_sees_the_same_table_throughout_writing_and_compaction(tmp_path: Path) -> None:
    """Readers in one thread, compactions in another, while runs end: what ended is always there, whole."""
    ledger = Ledger(tmp_path / "sweep")
    runs = expand(load_space("digits-grid"))
    stop = threading.Event()
    problems: list[str] = []
    ended: list[str] = []

    def read_on() -> None:
        while not stop.is_set():
            before = list(ended)
            try:
                statuses = Ledger(tmp_path / "sweep").statuses()
            except StorageError as error:
                problems.append(str(error))
                return
            problems.extend(run_id for run_id in before if statuses.get(run_id) != "done")

    def compact_on() -> None:
        while not stop.is_set():
            compact(Ledger(tmp_path / "sweep"))

    threads = [threading.Thread(target=target) for target in (read_on, read_on, compact_on)]
    for thread in threads:
        thread.start()
    try:
        for run in runs:
            ledger.write_rows(f"rows-{run.run_id}", [row(run, e) for e in range(3)])
            ledger.write_ends(f"ends-{run.run_id}", [end(run, evaluations=3)])
            ended.append(run.run_id)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not problems
    compact(ledger)
    assert set(ledger.statuses().values()) == {"done"}
    assert len(files(ledger, "rows")) <= compaction.FEW_SETTLED + 1


def whole_sweep(path: Path) -> Ledger:
    """A sweep in which every planned run is done."""
    space = load_space("digits-grid", ["seeds=1", "widths=[2,4]"])
    ledger = Ledger(path)
    ledger.write_manifest(Manifest("sweep", space, 1, "2026-01-01"))
    ledger.add_runs(expand(space), "width", 1_000_000)
    for run in expand(space):
        planned = count_evaluations(run.recipe, run.evaluation, run.samples)
        ledger.write_rows(f"rows-{run.run_id}", [row(run, e) for e in range(planned)])
        facts = {"mask_hash": f"mask of {run.noise.rate}", "subset_hash": "subset"}
        ledger.write_ends(f"ends-{run.run_id}", [end(run, evaluations=planned) | facts])
    return ledger


@pytest.mark.parametrize("compacted", [False, True])
def test_verify_proves_coverage(tmp_path: Path, compacted: bool) -> None:
    ledger = whole_sweep(tmp_path / "sweep")
    if compacted:
        compact(ledger)
    found = verify(ledger)
    assert found.problems == []
    assert found.is_complete
    assert found.counts["covered"] == found.counts["planned"] == 6


def test_verify_names_what_is_wrong(tmp_path: Path) -> None:
    ledger = whole_sweep(tmp_path / "sweep")
    space = ledger.manifest().space
    first, second, third, fourth, *_ = expand(space)
    by_run = {path.name[5:21]: path for path in files(ledger, "rows")}
    by_run[first.run_id].unlink()
    content = bytearray(by_run[second.run_id].read_bytes())
    content[40] ^= 4
    by_run[second.run_id].write_bytes(bytes(content))
    ledger.write_ends("more", [end(third, evaluations=1, attempt=2)])
    ledger.write_rows("more", [row(third, 0, attempt=2)])
    (tmp_path / "sweep" / "rows" / "notes.txt").write_text("mine")
    found = verify(ledger)
    text = "\n".join(found.problems)
    for part in (
        first.run_id,
        by_run[second.run_id].name,
        "notes.txt",
        "not a file of this ledger",
        "done with another number of rows than planned: " + third.run_id,
        "mask_hash differs",
    ):
        assert part in text
    assert f"there exactly once: {fourth.run_id}" not in text
    assert not found.is_clean
    assert found.counts["covered"] == 3


def test_verify_sees_a_bit_flip_in_a_compacted_file(tmp_path: Path) -> None:
    ledger = whole_sweep(tmp_path / "sweep")
    compact(ledger)
    (path,) = files(ledger, "rows")
    assert path.name.startswith("settled-")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    assert any(path.name in problem for problem in verify(ledger).problems)
    with pytest.raises(StorageError, match=path.name):
        ledger.load()


def test_compaction_keeps_the_tidy_table_to_the_bit(tmp_path: Path) -> None:
    ledger = whole_sweep(tmp_path / "sweep")
    before = ledger.load()
    report = compact(ledger)
    assert report.before > report.after
    assert [len(files(ledger, folder)) for folder in ("rows", "ends", "runs")] == [1, 1, 1]
    assert ledger.load().equals(before)
    assert compact(ledger).after == report.after
    assert isinstance(before, pl.DataFrame)
