"""A sweep loses nothing: a few rounds of chaos. `make chaos` plays many more, of all kinds, at random.

Lost hosts are in test_namespaces.py, and stores that refuse writes in test_launch_s3.py.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import polars as pl
import pytest

from tests.chaos import places
from tests.chaos.checks import check, check_complete, check_found, unlike
from tests.chaos.damage import KINDS, damage
from tests.chaos.report import as_document, as_text
from tests.chaos.session import ON_TINY_DISK, WEIGHTS, Session, schedule
from tests.chaos.sweep import SMALL, Place


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Holds the undisturbed sweep, which all rounds are compared with."""
    made = Session(tmp_path_factory.mktemp("chaos"), seed=1, size=SMALL)
    made.play([])
    return made


def play(session: Session, *kinds: str) -> None:
    """Play rounds of these kinds; nothing may be lost, and every sweep must come to its end."""
    played = Session(session.folder, session.seed, session.size, reference=session.reference)
    played.play(kinds)
    assert played.problems == []
    assert len(played.rounds) == len(kinds)
    assert played.sweeps >= 1
    assert "0 problems" in as_text(as_document(played))


@pytest.mark.chaos
def test_kills_of_drivers_heads_and_workers_lose_nothing(session: Session) -> None:
    play(session, "driver", "gcs", "interrupt", "worker")


@pytest.mark.chaos
@pytest.mark.skipif(bool(places.why_no_tiny_disk()), reason=places.why_no_tiny_disk() or "")
def test_a_disk_that_fills_or_forbids_writing_loses_nothing(session: Session) -> None:
    play(session, "full-disk", "permission")


@pytest.fixture
def copied(session: Session, tmp_path: Path) -> Place:
    """A copy of the undisturbed sweep."""
    shutil.copytree(session.folder / "undisturbed", tmp_path / "s")
    return places.folder(tmp_path / "s")


@pytest.mark.chaos
@pytest.mark.parametrize("kind", KINDS)
def test_every_damage_is_found_and_never_read_as_data(kind: str, session: Session, copied: Place) -> None:
    finished = dict(copied.ledger.ends().select("run_id", "attempt").iter_rows())
    for seed in range(3):
        damaged = damage(copied, random.Random(seed), kind)
        assert damaged is not None
        assert check_found(copied.ledger, damaged, finished.keys()) == []
        shutil.rmtree(copied.url)
        shutil.copytree(session.folder / "undisturbed", copied.url)


@pytest.mark.chaos
def test_the_checks_see_what_is_wrong(session: Session, copied: Place) -> None:
    assert session.reference is not None
    reference, finished = session.reference.table, set(session.reference.table["run_id"])
    assert check(copied.ledger, reference, finished) == []
    assert check_complete(copied.ledger, reference) == []
    changed = reference.with_columns(pl.col("test_error") + 1e-12)
    assert unlike(changed, reference)
    assert unlike(reference.head(-1), reference)
    assert unlike(reference.filter(pl.col("run_id") != reference["run_id"][0]), reference) == []
    assert check(copied.ledger, reference, finished | {"another"})
    (end, *_) = copied.ledger.storage.list("ends")
    copied.ledger.storage.delete(end.path)
    assert check(copied.ledger, reference, finished)
    assert check_complete(copied.ledger, reference)


def test_a_schedule_has_every_kind_and_is_the_same_for_the_same_seed() -> None:
    planned = schedule(50, list(WEIGHTS), random.Random(0))
    assert planned == schedule(50, list(WEIGHTS), random.Random(0))
    assert len(planned) == 50
    assert set(planned) == set(WEIGHTS)
    assert len(schedule(7, list(WEIGHTS), random.Random(0))) == 7
    assert planned.count("worker") > planned.count("cluster-gcs")
    assert set(ON_TINY_DISK) <= set(WEIGHTS)
