"""The ledger: whole files or none, rows before the end that claims them, the later attempt counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.ledger import DamagedManifestError, Ledger, LedgerError, Manifest, as_table, open_ledger
from orchestrator.parts import DamagedPartsError
from search_spaces.catalog import load_space
from search_spaces.runs import Run, expand
from workers.schema import ROW_COLUMNS, ROWS

RUNS = expand(load_space("digits-grid", ["seeds=1", "widths=2"]))


def row(run: Run, evaluation: int, test_error: float = 0.5, attempt: int = 1) -> dict[str, Any]:
    values: dict[str, Any] = {column.name: 0 for column in ROW_COLUMNS}
    values |= {"run_id": run.run_id, "evaluation": evaluation, "test_error": test_error, "memorised": None}
    return values | {"attempt": attempt}


def end(run: Run, status: str = "done", evaluations: int | None = None, attempt: int = 1) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "attempt": attempt,
        "status": status,
        "evaluations": evaluations,
        "seconds": 1.0,
        "mask_hash": "m",
        "subset_hash": "s",
    }


def settle(ledger: Ledger, *runs: Run, status: str = "done", seconds: float = 1.0) -> None:
    """Write one evaluation and an end for each of `runs`."""
    stem = f"settled-by-test-{len(ledger.storage.list('ends'))}"
    ledger.write_rows(stem, [row(run, 0) for run in runs])
    evaluations = None if status == "failed" else 1
    ledger.write_ends(stem, [end(run, status, evaluations) | {"seconds": seconds} for run in runs])


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "sweep")
    ledger.write_manifest(Manifest("sweep", load_space("digits-grid"), launches=1, created="2026-01-01"))
    ledger.add_runs(RUNS, "width", 1)
    return ledger


def files(ledger: Ledger, folder: str) -> list[Path]:
    path = ledger.storage.local_path(folder)
    assert path is not None
    return sorted(path.iterdir())


def test_the_table_has_every_hyperparameter_beside_every_row(ledger: Ledger) -> None:
    ledger.write_rows("pack-0", [row(RUNS[1], 0), row(RUNS[1], 1)])
    ledger.write_ends("pack-0", [end(RUNS[1], evaluations=2)])
    table = ledger.load()
    assert table["evaluation"].to_list() == [0, 1]
    first = table.row(0, named=True)
    assert first["noise_rate"] == 0.2
    assert first["ratio"] == 400 / 500
    assert (first["parameters"], first["samples"], first["width"], first["seed"]) == (400, 500, 2, 0)
    assert (first["optimizer"], first["status"], first["mask_hash"]) == ("adam", "done", "m")
    assert first["memorised"] is None


def test_the_table_comes_as_polars_pyarrow_or_pandas(ledger: Ledger) -> None:
    ledger.write_rows("pack-0", [row(RUNS[0], 0)])
    frame, arrow, pandas = ledger.load(), ledger.load("pyarrow"), ledger.load("pandas")
    assert isinstance(arrow, pa.Table)
    assert frame.columns == arrow.column_names == list(pandas.columns)
    assert frame["status"].to_list() == ["running"]


def test_units_stand_in_the_files(ledger: Ledger) -> None:
    ledger.write_rows("pack-0", [row(RUNS[0], 0)])
    (path,) = files(ledger, "rows")
    schema = pq.read_schema(path)
    assert schema.equals(ROWS)
    assert schema.field("test_error").metadata[b"unit"] == b"fraction in [0, 1]"
    assert schema.field("wall_seconds").metadata[b"unit"] == b"s"


def test_the_later_attempt_counts_whatever_was_written_first(ledger: Ledger) -> None:
    ledger.write_rows("a", [row(RUNS[0], 0, 0.2, 2), row(RUNS[0], 1, 0.2, 2)])
    ledger.write_rows("b", [row(RUNS[0], i, 0.1) for i in range(3)])
    assert ledger.load()["test_error"].to_list() == [0.2, 0.2, 0.1]
    ledger.write_ends("a", [end(RUNS[0], evaluations=3, attempt=2)])
    ledger.write_ends("b", [end(RUNS[0], "failed")])
    assert ledger.statuses() == {RUNS[0].run_id: "done"}


def test_rows_of_a_later_attempt_wait_for_its_end(ledger: Ledger) -> None:
    """A zombie or a retry that is under way does not mix with what an end claims."""
    ledger.write_rows("a", [row(RUNS[0], i, 0.1) for i in range(3)])
    ledger.write_ends("a", [end(RUNS[0], evaluations=3)])
    ledger.write_rows("b", [row(RUNS[0], i, 0.2, 2) for i in range(2)])
    assert ledger.load()["test_error"].to_list() == [0.1, 0.1, 0.1]
    ledger.write_ends("b", [end(RUNS[0], "diverged", evaluations=2, attempt=2)])
    assert ledger.load()["test_error"].to_list() == [0.2, 0.2]
    assert ledger.statuses() == {RUNS[0].run_id: "diverged"}


def test_a_resumed_run_has_its_first_rows_from_the_attempt_before(ledger: Ledger) -> None:
    ledger.write_rows("a", [row(RUNS[0], i, 0.1) for i in range(3)])
    ledger.write_rows("b", [row(RUNS[0], i, 0.2, 2) for i in range(2, 4)])  # from a checkpoint after evaluation 1
    ledger.write_ends("b", [end(RUNS[0], evaluations=4, attempt=2)])
    assert ledger.load()["test_error"].to_list() == [0.1, 0.1, 0.2, 0.2]
    assert ledger.statuses() == {RUNS[0].run_id: "done"}


def test_an_end_whose_rows_are_gone_counts_as_lost(ledger: Ledger) -> None:
    ledger.write_rows("a", [row(RUNS[0], 0)])
    ledger.write_rows("b", [row(RUNS[0], 1)])
    ledger.write_ends("b", [end(RUNS[0], evaluations=2)])
    assert ledger.statuses() == {RUNS[0].run_id: "done"}
    files(ledger, "rows")[0].unlink()
    assert ledger.statuses() == {RUNS[0].run_id: "lost"}
    assert ledger.load()["status"].to_list() == ["lost"]


@pytest.mark.parametrize("damage", ["cut short", "one bit", "emptied", "another file"])
def test_a_damaged_file_is_named_and_never_read_as_data(ledger: Ledger, damage: str) -> None:
    ledger.write_rows("pack-0", [row(RUNS[0], 0)])
    ledger.write_rows("pack-1", [row(RUNS[1], 0)])
    path, other = files(ledger, "rows")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    contents = {
        "cut short": path.read_bytes()[:-20],
        "one bit": bytes(content),
        "emptied": b"",
        "another file": other.read_bytes(),
    }
    path.write_bytes(contents[damage])
    with pytest.raises(DamagedPartsError, match=path.name):
        ledger.load()
    with pytest.raises(DamagedPartsError, match=path.name):
        ledger.statuses()


def test_all_damaged_and_foreign_files_are_named_at_once(ledger: Ledger) -> None:
    ledger.write_rows("pack-0", [row(RUNS[0], 0)])
    ledger.write_ends("pack-0", [end(RUNS[0], evaluations=1)])
    pl.DataFrame({"a": [1]}).write_parquet(files(ledger, "rows")[0].with_name("foreign.parquet"))
    (path,) = files(ledger, "ends")
    path.write_bytes(b"PAR1")
    with pytest.raises(DamagedPartsError, match=r"(?s)2 damaged files.*foreign\.parquet|foreign\.parquet.*") as caught:
        ledger.load()
    assert path.name in str(caught.value)
    assert "same launch again" in str(caught.value)


def test_a_part_with_other_columns_is_not_read_as_nulls(ledger: Ledger) -> None:
    from orchestrator.parts import write_part

    write_part(ledger.storage, "rows", "odd", as_table([row(RUNS[0], 0)], ROWS).drop_columns(["test_error"]))
    with pytest.raises(DamagedPartsError, match="lacks test_error"):
        ledger.load()


def test_ends_from_before_there_was_a_column_are_read_with_nulls(ledger: Ledger) -> None:
    from orchestrator.ledger_schema import ENDS
    from orchestrator.parts import write_part

    ledger.write_rows("pack-0", [row(RUNS[0], 0)])
    older = as_table([end(RUNS[0], evaluations=1)], ENDS).drop_columns(["engine"])
    write_part(ledger.storage, "ends", "older", older)
    ledger.write_rows("pack-1", [row(RUNS[1], 0)])
    ledger.write_ends("pack-1", [end(RUNS[1], evaluations=1) | {"engine": "fused"}])
    assert set(ledger.ends()["engine"]) == {None, "fused"}
    assert len(ledger.load()) == 2


def test_a_missing_sweep_lists_those_that_are_there(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="Sweeps there: sweep"):
        open_ledger(tmp_path, "other")


def test_a_manifest_is_read_back_or_refused(ledger: Ledger, tmp_path: Path) -> None:
    assert ledger.manifest().space == load_space("digits-grid")
    path = tmp_path / "sweep" / "sweep.json"
    text = path.read_text()
    path.write_text(text[:50])
    with pytest.raises(DamagedManifestError, match="damaged"):
        ledger.manifest()
    path.write_text(text.replace('"schema_version": 2', '"schema_version": 3'))
    with pytest.raises(LedgerError, match="newer"):
        ledger.manifest()
    path.write_text(text.replace('"schema_version": 2', '"schema_version": 1'))
    with pytest.raises(LedgerError, match=r"0\.1\.0"):
        ledger.manifest()


def test_the_resolved_space_lies_beside_as_yaml(ledger: Ledger, tmp_path: Path) -> None:
    assert expand(load_space(str(tmp_path / "sweep" / "space.yaml"))) == expand(load_space("digits-grid"))


def test_runs_are_recorded_once(ledger: Ledger) -> None:
    ledger.add_runs(RUNS, "width", 2)
    assert len(files(ledger, "runs")) == 1
    ledger.add_runs(expand(load_space("digits-grid", ["seeds=2", "widths=2"])), "width", 3_000_000)
    assert sorted(pq.read_table(path).num_rows for path in files(ledger, "runs")) == [3, 3]
    assert ledger.runs().height == 6


def test_a_table_from_rows_is_that_of_pylist() -> None:
    rows = [row(RUNS[0], 0), row(RUNS[1], 1, float("nan")), {"run_id": "x", "epoch": float("inf")}]
    assert as_table(rows, ROWS).equals(pa.Table.from_pylist(rows, schema=ROWS)) or str(
        as_table(rows, ROWS).to_pylist()
    ) == str(pa.Table.from_pylist(rows, schema=ROWS).to_pylist())
