"""A publisher beside a launch: a process of its own, which the launch starts, leaves alone, and tells about at its end.

It is in a session of its own, so that Ctrl-C ends the launch and not what publishes its last runs. It ends by itself
when the launch has ended and all is published.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from orchestrator.ledger import Ledger
from orchestrator.publishing.folder import LOG, default_folder
from orchestrator.storage import StorageError

FINISH_SECONDS = 20.0
"""How long a launch waits at its end for what is still to be published."""
_LOOK_SECONDS = 0.2
_MOST_LINES = 5


@dataclass
class BackgroundPublisher:
    """A publisher that runs. `log` has all that it says."""

    process: subprocess.Popen[bytes]
    log: Path
    _from: int
    """Where in the log its own words begin."""

    def words(self) -> list[str]:
        """The last lines of what it has said, troubles among them."""
        try:
            said = self.log.read_bytes()[self._from :].decode(errors="replace")
        except OSError:
            return []
        return [line for line in said.splitlines() if line.strip()][-_MOST_LINES:]

    def finish(self, seconds: float = FINISH_SECONDS) -> list[str]:
        """Wait for its end, for so long at most; lines for the user. It goes on if it is not done by then."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        if self.process.poll() is None:
            going_on = f"Publishing to W&B goes on by itself (process {self.process.pid}); its words are in {self.log}"
            return [*self.words(), going_on]
        return self.words()


def start_publisher(
    ledger: Ledger, storage: str, *, arguments: tuple[str, ...] = (), folder: Path | None = None
) -> BackgroundPublisher:
    """Start `bo-sweep wandb publish SWEEP --follow` for a sweep under way. The key stays in the environment.

    Args:
        storage: what --storage was.
        arguments: more options of the command, such as --project and its value.

    Raises:
        StorageError: its folder cannot be written.
    """
    where = (folder or default_folder(ledger.storage)).absolute()
    log = where / LOG
    command = [sys.executable, "-m", "orchestrator.cli", "wandb", "publish", ledger.name, "--storage", storage]
    try:
        where.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as stream:
            begins = stream.tell()
            process = subprocess.Popen(
                [*command, "--follow", "--dir", str(where), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
    except OSError as error:
        raise StorageError(f"cannot write {log}: {error.strerror or error}") from error
    return BackgroundPublisher(process, log, begins)
