"""The plain loop that everything is held against: packs one after another in one single-threaded process, no Ray, no
ledger.

Two cores that are both busy are slower each than one that is busy alone (shared caches, memory and clock). So the fair
loop for a launch on k slots is k loop processes side by side, each with its share of the packs; what counts is the
sum of their seconds. A single loop on an otherwise idle machine is measured beside it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring.children import Child, read_request, write_answer
from orchestrator.estimate import guess_seconds
from search_spaces.packs import Pack


@dataclass(frozen=True)
class LoopSeconds:
    """Seconds of all loops side by side, summed; imports are not counted."""

    wall: float
    cpu: float
    """Of these, those on a CPU: what other work on the machine takes away is not in them."""


def run_loops(packs: Sequence[Pack], data_folder: Path, scratch: Path, *, processes: int) -> LoopSeconds:
    """Train `packs` in `processes` loops side by side, each with its share of them."""
    shares = [share for share in share_out(packs, processes) if share]
    children = [
        Child("benchmarks.measuring.loop", (share, data_folder), scratch / f"loop-{number}", waits=True)
        for number, share in enumerate(shares)
    ]
    for child in children:
        child.wait_until_ready()
    for child in children:
        child.go()
    taken = [child.result() for child in children]
    return LoopSeconds(wall=sum(wall for wall, _ in taken), cpu=sum(cpu for _, cpu in taken))


def share_out(packs: Sequence[Pack], shares: int) -> list[list[Pack]]:
    """Cut packs into shares of about equal expected length: the longest first, each to the share with the least."""

    def seconds(pack: Pack) -> float:
        return sum(guess_seconds(run, gpus=0) for run in pack.runs)

    cut: list[list[Pack]] = [[] for _ in range(shares)]
    filled = [0.0] * shares
    for pack in sorted(packs, key=seconds, reverse=True):
        least = filled.index(min(filled))
        cut[least].append(pack)
        filled[least] += seconds(pack)
    return cut


def main() -> None:
    """The child: import, say so, wait, loop."""
    packs, data_folder = read_request()
    import torch

    from workers.train import train_pack

    torch.set_num_threads(1)
    print("ready", flush=True)
    sys.stdin.readline()
    started, cpu_before = time.perf_counter(), time.process_time()
    for pack in packs:
        for _ in train_pack(pack.runs, data_folder, torch.device("cpu")):
            pass
    write_answer((time.perf_counter() - started, time.process_time() - cpu_before))


if __name__ == "__main__":
    main()
