"""Launches of small sweeps in processes of their own, and what they left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import polars as pl
import psutil
from click.testing import CliRunner, Result

from orchestrator.cli import main
from orchestrator.lease import current_claim
from orchestrator.ledger import Ledger
from orchestrator.storage import open_storage
from orchestrator.verify import verify
from tests.waiting import PATIENCE_SECONDS
from workers.schema import TIMING_COLUMNS

TINY = (
    "--no-figures",
    *("--set", "widths=[2, 4]", "--set", "noise.rates=[0, 0.4]", "--set", "recipe.epochs=4"),
    *("--set", "evaluation.points=6", "--seeds", "2"),
)
"""8 runs in 4 packs, a second or two each."""
LONGER = (
    *(*TINY, "--set", "recipe.epochs=40", "--set", "evaluation.points=40", "--seeds", "2"),
    *("--set", "resources.checkpoint_seconds=0.2"),
)
"""8 runs in 4 packs of a second or more, which are saved all the time."""
ONE_WORKER = ("--workers", "1")
"""Where it does not matter that there are more: each takes seconds to start."""


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "orchestrator.cli", *map(str, arguments)]


def bo_sweep(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=2 * PATIENCE_SECONDS)


def bo_sweep_here(*arguments: str | Path) -> Result:
    """The same in this process, of commands that only read: each process takes seconds to start."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def launch(
    storage: Path | str, data: Path, *arguments: str, space: str = "digits-grid"
) -> subprocess.CompletedProcess[str]:
    return bo_sweep("launch", space, "--storage", storage, "--data", data, *arguments)


@contextmanager
def running(command: list[str], environment: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process group in the background, of which nothing stays, however the test ends."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def launching(
    storage: Path | str, data: Path, *arguments: str | Path, space: str = "digits-grid"
) -> AbstractContextManager[subprocess.Popen[str]]:
    """`bo-sweep launch` in the background."""
    return running(command("launch", space, "--storage", storage, "--data", data, *arguments))


def creeping(
    sign: Path, storage: Path | str, data: Path, *arguments: str | Path, space: str = "digits-grid"
) -> AbstractContextManager[subprocess.Popen[str]]:
    """`launching`, which hardly gets on while the file `sign` is there: it is made here."""
    sign.touch()
    words = command("launch", space, "--storage", storage, "--data", data, *arguments)
    return running(words, os.environ | creeping_at(sign))


def creeping_at(sign: Path) -> dict[str, str]:
    """The environment of workers that hardly get on while a file is there: see creeping/sitecustomize.py."""
    path = (str(Path(__file__).with_name("creeping")), os.environ.get("PYTHONPATH", ""))
    return {"BO_SWEEP_TEST_CREEPS": str(sign), "PYTHONPATH": os.pathsep.join(filter(None, path))}


def commands_below(process: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    """The processes that one started, by their command lines; some are gone again by then."""
    found = {}
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):
            found[" ".join(child.cmdline())] = child
    return found


def end_of(process: subprocess.Popen[str]) -> str:
    """What a process wrote to stderr, once it has ended."""
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    return errors


def table(storage: Path, name: str = "digits-grid") -> pl.DataFrame:
    """The whole table without what differs from one execution to the next."""
    return Ledger(storage / name).load().drop(*TIMING_COLUMNS, "attempt", "pack_size").sort("run_id", "evaluation")


def assert_verified(storage: Path, name: str = "digits-grid") -> None:
    """Every planned evaluation is there exactly once."""
    found = verify(Ledger(storage / name))
    assert found.problems == []
    assert found.is_complete


def in_training(process: subprocess.Popen[str], storage: Path | str, name: str = "digits-grid") -> bool:
    """Whether workers are at it: their progress stands in the lease."""
    assert process.poll() is None, process.communicate()
    claim = current_claim(open_storage(storage).child(name))
    return bool(claim and any(each["share_done"] > 0 for each in claim.progress.get("running", [])))


def has_saved(process: subprocess.Popen[str], storage: Path | str, name: str = "digits-grid") -> bool:
    """Whether runs in training have been saved; what is saved of runs that end is dropped. Sooner seen than a lease."""
    assert process.poll() is None, process.communicate()
    return any(True for _ in open_storage(storage).child(name).list("checkpoints"))
