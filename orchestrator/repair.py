"""What a launch puts right before it plans: damaged files are moved away, and what they held is trained again."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestrator import paths
from orchestrator.ledger import ATTEMPTS_PER_LAUNCH, DamagedManifestError, Ledger, LedgerError
from orchestrator.ledger_schema import LOGS, RUNS
from orchestrator.parts import Damage, consistently, list_parts, read_all
from orchestrator.snapshot import examine
from orchestrator.storage import MissingFileError


@dataclass
class Repairs:
    """What was found. `resumable` are runs that have a checkpoint and no end, with the evaluations in the ledger."""

    moved: list[Damage] = field(default_factory=list)
    resumable: dict[str, int] = field(default_factory=dict)


def repair(ledger: Ledger) -> Repairs:
    """Move damaged and foreign files to `damaged/`, and drop checkpoints of runs that ended, the leftovers of a kill.

    To be called under the lease.

    Raises:
        StorageError: storage cannot be read or written.
    """
    found = Repairs()
    snapshot, damages = examine(ledger.storage)
    for folder, schema in ((paths.RUNS, RUNS), (paths.LOGS, LOGS)):
        files = list_parts(ledger.storage, folder)
        damages += consistently(lambda: read_all(ledger.storage, files, schema))[1]  # noqa: B023 - called at once
    for damage in damages:
        _move_away(ledger, damage.path)
        found.moved.append(damage)
    ended = set(snapshot.ends["run_id"].to_list())
    held = dict(snapshot.counts.iter_rows())
    for file in ledger.storage.list(paths.CHECKPOINTS):
        run_id = file.path.rpartition("/")[2].removesuffix(".pt")
        if run_id in ended:
            ledger.storage.delete(file.path)
        else:
            found.resumable[run_id] = held.get(run_id, 0)
    return found


def next_launch_number(ledger: Ledger) -> int:
    """One more than any launch that left a trace, even where the manifest is lost or damaged."""
    try:
        return ledger.manifest().launches + 1
    except LedgerError as error:
        if ledger.exists() and not isinstance(error, DamagedManifestError):
            raise  # of another version
        snapshot, _ = examine(ledger.storage)
        attempts = [frame["attempt"].max() for frame in (snapshot.ends, snapshot.rows().collect())]
        latest = max((int(attempt) for attempt in attempts if attempt is not None), default=0)  # type: ignore[arg-type]
        return latest // ATTEMPTS_PER_LAUNCH + 1


def _move_away(ledger: Ledger, path: str) -> None:
    """Copied, then deleted: at no moment is it nowhere."""
    try:
        content = ledger.storage.read(path)
    except MissingFileError:
        return
    ledger.storage.write(f"{paths.DAMAGED}/{path.replace('/', '-')}", content)
    ledger.storage.delete(path)
