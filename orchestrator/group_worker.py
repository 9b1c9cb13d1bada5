"""A worker of several processes, on one node or several: Ray Train starts them and joins them to a process group.

The first one pulls packs, keeps the ledger and beats, like any worker (worker.py); the others train along with it and
do as it says. A process that dies or raises takes the whole worker with it, and Tune starts another in its place.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

from orchestrator.boss import RayBoss, node_id, tell_failure
from orchestrator.failures import failure_of, is_lost_peer
from orchestrator.worker import WorkerSettings, run_worker
from search_spaces.shapes import TOKEN_CPU, Shape


def run_group(settings: WorkerSettings, coordinator: Any, slot: int, lane: int, shape: Shape) -> None:
    """Start the processes of a worker and wait for them to end.

    Raises:
        ray.train.TrainingFailedError: one of them died or raised.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    each = {"CPU": shape.cpus - TOKEN_CPU, "GPU": shape.gpus}  # the driver may be on the node of any of them
    with tempfile.TemporaryDirectory(prefix="bo-sweep-train-", ignore_cleanup_errors=True) as scratch:
        TorchTrainer(
            _process,
            train_loop_config={"settings": settings, "coordinator": coordinator, "slot": slot, "lane": lane},
            scaling_config=ScalingConfig(
                num_workers=shape.processes,
                use_gpu=bool(shape.gpus),
                resources_per_worker={name: amount for name, amount in each.items() if amount},
                placement_strategy="PACK",
            ),
            torch_config=TorchConfig(backend="nccl" if shape.gpus else "gloo"),
            run_config=RunConfig(storage_path=scratch, failure_config=FailureConfig(max_failures=0)),
        ).fit()


def _process(config: dict[str, Any]) -> None:
    """One of the processes, with the default process group up and its GPU current."""
    from workers.group import join_group

    settings, coordinator, slot = config["settings"], config["coordinator"], config["slot"]
    group = join_group()
    nodes = group.everyones(node_id())
    first = group.told(os.getpid())
    if group.rank == 0:
        gpus = settings.gpus * group.size
        boss = RayBoss(coordinator, slot, lane=config["lane"], gpus=gpus, peers=tuple(nodes[1:]))
        run_worker(settings, boss, group)
        return
    try:
        follow(settings, group)
    except Exception as error:
        if not is_lost_peer(error):
            tell_failure(coordinator, slot, first, failure_of(error))
        raise


def follow(settings: WorkerSettings, group: Any) -> None:
    """Train along with the first process until it says that there is nothing more."""
    train_pack, device, placement = settings.load_trainer(), settings.device(), settings.placement(group)
    while (pack := group.told()) is not None:
        runs, resume = pack
        training = train_pack(runs, settings.data_folder, device, resume=resume, placement=placement)
        for _ in training:
            if group.told():
                training.close()
                break
