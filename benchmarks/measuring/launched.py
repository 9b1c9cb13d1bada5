"""A launch as a user's command makes it, in a fresh process with a Ray of its own, and where its time went."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from benchmarks.measuring.children import Child, read_request, write_answer
from benchmarks.measuring.probe import TrialTimes, read_times
from orchestrator.launch import LaunchOptions
from search_spaces.spec import SearchSpace


@dataclass(frozen=True)
class SlotSeconds:
    """Where the slot seconds of one launch went; the parts sum to `total`, and to `once_up` without `start_up`."""

    total: float
    """From the start of the command to its end, times slots."""
    start_up: float
    """Until each worker had imported everything for its first pack."""
    training: float
    """Inside of the same `train_pack` that the plain loop calls."""
    training_cpu: float
    """Of `training`, the seconds on a CPU; no part of the sum."""
    committing: float
    """In a trial beside that: ledger files, reports."""
    between: float
    """Between two trials of a worker."""
    tail: float
    """Idle until the last worker is done."""
    winding_up: float
    """From there until `launch` has returned: Tune's end, the ledger read, Ray's end."""

    @property
    def once_up(self) -> float:
        return self.total - self.start_up


def launch_once(space: SearchSpace, data_folder: Path, scratch: Path) -> SlotSeconds:
    """Launch all of `space` into an empty storage."""
    options = LaunchOptions(storage=scratch / "sweeps", name=space.name, data_folder=data_folder)
    started = time.monotonic()
    slots, returned = Child("benchmarks.measuring.launched", (space, options), scratch / "launch").result()
    return account(started, returned, slots, read_times(options.storage / options.name))


def account(started: float, returned: float, slots: int, trials: Sequence[TrialTimes]) -> SlotSeconds:
    """Add up the seconds of all slots. A slot whose worker never came counts as up from the first worker on, idle."""
    by_process: dict[int, list[TrialTimes]] = {}
    for trial in trials:
        by_process.setdefault(trial.process, []).append(trial)
    last = max(trial.left for trial in trials)
    up = sorted(members[0].ready for members in by_process.values())[:slots]
    up += [up[0]] * (slots - len(up))
    training = sum(trial.training for trial in trials)
    committing = sum(trial.left - trial.ready - trial.training for trial in trials)
    between = sum(
        after.ready - before.left for members in by_process.values() for before, after in itertools.pairwise(members)
    )
    total = slots * (returned - started)
    start_up = sum(moment - started for moment in up)
    winding_up = slots * (returned - last)
    return SlotSeconds(
        total=total,
        start_up=start_up,
        training=training,
        training_cpu=sum(trial.training_cpu for trial in trials),
        committing=committing,
        between=between,
        tail=total - start_up - winding_up - training - committing - between,
        winding_up=winding_up,
    )


def main() -> None:
    """The child: launch with the probe in place; answers the number of slots and when `launch` had returned."""
    space, options = read_request()
    from benchmarks.measuring import probe
    from orchestrator import executor
    from orchestrator.launch import launch

    with mock.patch.object(executor, "train_packs", probe.train_packs):
        plan = launch(space, options)
    returned = time.monotonic()
    if not plan.is_complete:
        raise SystemExit(f"only {plan.count('done')} of {len(plan.runs)} runs are done: {plan.statuses}")
    write_answer((plan.slots, returned))


if __name__ == "__main__":
    main()
