"""`python -m tests.chaos --rounds 50`: exit code 0 where nothing was lost, 1 otherwise."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from tests.chaos import places
from tests.chaos.report import as_document, as_text
from tests.chaos.session import ON_TINY_DISK, WEIGHTS, Session, schedule
from tests.chaos.sweep import marked_processes


def main() -> int:
    """Play, report."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(WEIGHTS), help="comma-separated; by default all")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no round after so long")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all that happened there")
    arguments = parser.parse_args()
    kinds = arguments.kinds.split(",")
    unknown = [kind for kind in kinds if kind not in WEIGHTS]
    if unknown:
        parser.error(f"unknown kind {unknown[0]!r}; allowed are {', '.join(WEIGHTS)}")
    reason = places.why_no_tiny_disk()
    if reason and set(kinds) & set(ON_TINY_DISK):
        kinds = [kind for kind in kinds if kind not in ON_TINY_DISK]
        print(f"left out: {', '.join(ON_TINY_DISK)}, as {reason}")
    folder = Path(tempfile.mkdtemp(prefix="bo-sweep-chaos-"))
    deadline = time.monotonic() + 60 * arguments.minutes
    session = Session(folder, arguments.seed, tell=lambda line: print(line, flush=True), deadline=deadline)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        session.play(schedule(arguments.rounds, kinds, random.Random(arguments.seed)))
    finally:  # also where this is stopped
        for process in marked_processes(folder):
            with suppress(psutil.Error):
                process.kill()
    document = as_document(session)
    print(as_text(document))
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2))
    if session.problems:
        print(f"\nWhat launches said in rounds with problems, and their sweeps: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
