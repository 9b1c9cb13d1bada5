"""A launch as a user's command makes it, in a fresh process with a Ray of its own, and where its time went."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring.children import Child, read_request, write_answer
from benchmarks.measuring.probe import TRAINER, PackTimes, read_times
from orchestrator.data_check import check_data
from orchestrator.launch_plan import LaunchOptions, plan_launch
from orchestrator.plan import Plan
from orchestrator.storage import open_storage
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
    """From the first to the last evaluation of a pack beside that: taking rows in, ledger files."""
    between: float
    """Between two packs of a worker: the coordinator's answer, and what is written before it is asked."""
    tail: float
    """Idle until the last worker is done."""
    winding_up: float
    """From there until `launch` has returned: Tune's end, the ledger read, Ray's end."""

    @property
    def once_up(self) -> float:
        return self.total - self.start_up


def plan_once(space: SearchSpace, data_folder: Path, scratch: Path) -> Plan:
    """What such a launch is going to do; data that can be made on the spot are made."""
    plan = plan_launch(space, LaunchOptions(open_storage(scratch / "sweeps"), space.name, data_folder))
    check_data(plan.packs, data_folder)
    return plan


def launch_once(space: SearchSpace, data_folder: Path, scratch: Path) -> SlotSeconds:
    """Launch all of `space` into an empty storage."""
    storage = open_storage(scratch / "sweeps")
    options = LaunchOptions(storage, space.name, data_folder, trainer=TRAINER)
    started = time.monotonic()
    slots, returned = Child("benchmarks.measuring.launched", (space, options), scratch / "launch").result()
    return account(started, returned, slots, read_times(data_folder))


def account(started: float, returned: float, slots: int, packs: Sequence[PackTimes]) -> SlotSeconds:
    """Add up the seconds of all slots. A slot whose worker never came counts as up from the first worker on, idle."""
    by_process: dict[int, list[PackTimes]] = {}
    for pack in packs:
        by_process.setdefault(pack.process, []).append(pack)
    last = max(pack.left for pack in packs)
    up = sorted(members[0].ready for members in by_process.values())[:slots]
    up += [up[0]] * (slots - len(up))
    training = sum(pack.training for pack in packs)
    committing = sum(pack.left - pack.ready - pack.training for pack in packs)
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
        training_cpu=sum(pack.training_cpu for pack in packs),
        committing=committing,
        between=between,
        tail=total - start_up - winding_up - training - committing - between,
        winding_up=winding_up,
    )


def main() -> None:
    """The child: launch; answers the number of slots and when `launch` had returned."""
    space, options = read_request()
    from orchestrator.launch import launch

    plan = launch(space, options).plan
    returned = time.monotonic()
    if not plan.is_complete:
        raise SystemExit(f"only {plan.count('done')} of {len(plan.runs)} runs are done: {plan.statuses}")
    write_answer((plan.lanes.most_slots, returned))


if __name__ == "__main__":
    main()
