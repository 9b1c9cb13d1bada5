"""The ledger: whole files or none, rows before the end that claims them, the later attempt counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.ledger import Ledger, LedgerError, Manifest, StorageError, open_ledger
from search_spaces.catalog import load_space
from search_spaces.runs import Run, expand
from workers.schema import ROW_COLUMNS, ROWS

RUNS = expand(load_space("digits-grid", ["seeds=1", "widths=2"]))


def row(run: Run, evaluation: int, test_error: float = 0.5) -> dict[str, Any]:
    values: dict[str, Any] = {column.name: 0 for column in ROW_COLUMNS}
    return values | {"run_id": run.run_id, "evaluation": evaluation, "test_error": test_error, "memorised": None}


def end(run: Run, status: str = "done") -> dict[str, Any]:
    return {"run_id": run.run_id, "status": status, "seconds": 1.0, "mask_hash": "m", "subset_hash": "s"}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "sweep")
    ledger.write_manifest(Manifest("sweep", load_space("digits-grid"), launches=1, created="2026-01-01"))
    ledger.add_runs(RUNS, "width", 1)
    return ledger


def test_the_table_has_every_hyperparameter_beside_every_row(ledger: Ledger) -> None:
    ledger.write_rows("pack-0", 1, [row(RUNS[1], 0), row(RUNS[1], 1)])
    ledger.write_ends("pack-0", 1, [end(RUNS[1])])
    table = ledger.load()
    assert table["evaluation"].to_list() == [0, 1]
    first = table.row(0, named=True)
    assert first["noise_rate"] == 0.2
    assert first["ratio"] == 400 / 500
    assert (first["parameters"], first["samples"], first["width"], first["seed"]) == (400, 500, 2, 0)
    assert (first["optimizer"], first["status"], first["mask_hash"]) == ("adam", "done", "m")
    assert first["memorised"] is None


def test_the_table_comes_as_polars_pyarrow_or_pandas(ledger: Ledger) -> None:
    ledger.write_rows("pack-0", 1, [row(RUNS[0], 0)])
    frame, arrow, pandas = ledger.load(), ledger.load("pyarrow"), ledger.load("pandas")
    assert isinstance(arrow, pa.Table)
    assert frame.columns == arrow.column_names == list(pandas.columns)
    assert frame["status"].to_list() == ["running"]


def test_units_stand_in_the_files(ledger: Ledger) -> None:
    ledger.write_rows("pack-0", 1, [row(RUNS[0], 0)])
    (path,) = ledger.paths.rows.iterdir()
    schema = pq.read_schema(path)
    assert schema.equals(ROWS)
    assert schema.field("test_error").metadata[b"unit"] == b"fraction in [0, 1]"
    assert schema.field("wall_seconds").metadata[b"unit"] == b"s"


def test_the_later_attempt_counts_whatever_was_written_first(ledger: Ledger) -> None:
    ledger.write_rows("a", 2, [row(RUNS[0], 0, 0.2), row(RUNS[0], 1, 0.2)])
    ledger.write_rows("b", 1, [row(RUNS[0], i, 0.1) for i in range(3)])
    assert ledger.load()["test_error"].to_list() == [0.2, 0.2, 0.1]
    ledger.write_ends("a", 2, [end(RUNS[0])])
    ledger.write_ends("b", 1, [end(RUNS[0], "failed")])
    assert ledger.statuses() == {RUNS[0].run_id: "done"}


@given(
    writes=st.lists(st.tuples(st.integers(1, 4), st.lists(st.integers(0, 5), max_size=4)), max_size=6),
    data=st.data(),
)
def test_any_order_of_files_gives_the_same_table(
    writes: list[tuple[int, list[int]]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A row is its attempt's: whichever files hold it, and in whatever order they come, the latest attempt is read."""
    expected: dict[int, int] = {}
    for attempt, evaluations in writes:
        for evaluation in evaluations:
            expected[evaluation] = max(attempt, expected.get(evaluation, 0))
    for order in (writes, data.draw(st.permutations(writes))):
        ledger = Ledger(tmp_path_factory.mktemp("sweep"))
        for i, (attempt, evaluations) in enumerate(order):
            if evaluations:
                ledger.write_rows(f"file-{i}", attempt, [row(RUNS[0], e, attempt / 10) for e in evaluations])
        table = ledger.load()
        assert dict(zip(table["evaluation"], table["attempt"], strict=True)) == expected
        assert table["test_error"].to_list() == [expected[e] / 10 for e in sorted(expected)]
        assert ledger.count_rows() == len(expected)


def test_a_damaged_file_is_named_and_never_read_as_data(ledger: Ledger) -> None:
    ledger.write_rows("pack-0", 1, [row(RUNS[0], 0)])
    (path,) = ledger.paths.rows.iterdir()
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StorageError, match=path.name):
        ledger.load()


def test_a_foreign_file_is_named(ledger: Ledger) -> None:
    ledger.paths.rows.mkdir()
    pl.DataFrame({"a": [1]}).write_parquet(ledger.paths.rows / "foreign.parquet")
    with pytest.raises(StorageError, match=r"foreign\.parquet"):
        ledger.load()


def test_nothing_half_written_is_left_when_writing_fails(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        ledger.write_rows("pack-0", 1, [row(RUNS[0], 0)])
    assert list(ledger.paths.rows.iterdir()) == []


def test_a_missing_sweep_lists_those_that_are_there(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="Sweeps there: sweep"):
        open_ledger(ledger.paths.folder.parent, "other")


def test_a_manifest_is_read_back_or_refused(ledger: Ledger) -> None:
    assert ledger.manifest().space == load_space("digits-grid")
    text = ledger.paths.manifest.read_text()
    ledger.paths.manifest.write_text(text[:50])
    with pytest.raises(LedgerError, match="damaged"):
        ledger.manifest()
    ledger.paths.manifest.write_text(text.replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(LedgerError, match="newer"):
        ledger.manifest()


def test_runs_are_recorded_once(ledger: Ledger) -> None:
    ledger.add_runs(RUNS, "width", 2)
    assert len(list(ledger.paths.runs.iterdir())) == 1
    ledger.add_runs(expand(load_space("digits-grid", ["seeds=2", "widths=2"])), "width", 3)
    assert [pq.read_table(path).num_rows for path in sorted(ledger.paths.runs.iterdir())] == [3, 3]
