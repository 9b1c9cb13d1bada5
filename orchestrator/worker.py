"""A worker: pulls packs, trains them, and makes durable what comes out, until there is nothing left to pull.

Rows wait in the sink and become durable together; then ends are acknowledged, and only then checkpoints may go on from
there. A worker that is told to stop saves every run in training and leaves. Where several processes train together,
this is the first one, and the others follow it (group_worker.py).
"""

from __future__ import annotations

import gc
import importlib
import os
import platform
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from orchestrator import paths
from orchestrator.failures import Failure, failure_of, is_lost_peer
from orchestrator.ledger import Ledger
from orchestrator.logs import logged_to
from orchestrator.messages import Beat, Job, Orders
from orchestrator.provenance import versions
from orchestrator.sink import Sink
from orchestrator.storage import MissingFileError, Storage, StorageError
from search_spaces.runs import Run

if TYPE_CHECKING:
    import torch

    from workers.group import Group
    from workers.placement import Placement

BEAT_SECONDS = 1.0
CHECKPOINT_SHARE = 0.02
"""Checkpoints of big models are saved less often, so that they take at most this share of the time."""


@dataclass(frozen=True)
class WorkerSettings:
    """Everything a worker needs beside its packs.

    Attributes:
        storage: the sweep's folder, reachable from the worker.
        data_folder: where betons are on the worker.
        launch: number of the launch.
        gpus, threads: what each of its processes has.
        engine: that trains the networks of a pack, "auto" for the faster one.
        usual_pack: runs that the packs of the sweep have, where nothing cuts them.
        compile: whether networks go through torch.compile.
        cuda_graphs: whether steps on GPUs are replayed as CUDA graphs.
        checkpoint_seconds: how often runs in training are saved.
        trainer: "module:function" with the signature of workers.train.train_pack.
    """

    storage: Storage
    data_folder: Path
    launch: int
    gpus: float = 0.0
    threads: int = 1
    engine: Literal["auto", "sequential", "fused"] = "auto"
    usual_pack: int = 1
    compile: bool = False
    cuda_graphs: bool = False
    checkpoint_seconds: float = 60.0
    trainer: str = "workers.train:train_pack"

    def load_trainer(self) -> Callable[..., Generator[Any]]:
        """The function that trains a pack."""
        module, _, name = self.trainer.partition(":")
        trainer: Callable[..., Generator[Any]] = getattr(importlib.import_module(module), name)
        return trainer

    def placement(self, group: Group) -> Placement:
        """How packs are trained in a process of `group`; on GPUs its CPUs decode images."""
        from workers.placement import Placement

        return Placement(
            group=group,
            decode_threads=self.threads if self.gpus else 1,
            compile=self.compile,
            engine=None if self.engine == "auto" else self.engine,
            cuda_graphs=self.cuda_graphs,
            usual_pack=self.usual_pack,
        )

    def device(self) -> torch.device:
        """The device of this process, with its CPU threads set."""
        import torch

        torch.set_num_threads(self.threads)
        return torch.device("cuda", torch.cuda.current_device()) if self.gpus else torch.device("cpu")


class Boss(Protocol):
    """The coordinator as one worker sees it (see coordinator.py)."""

    def pull(self) -> Orders: ...
    def beat(self, beat: Beat) -> bool: ...
    def acknowledge(self, ended: Sequence[tuple[str, str]]) -> None: ...
    def finished(self, failure: Failure | None) -> None: ...
    def paused(self) -> None: ...
    def goodbye(self) -> None: ...
    def report_trouble(self, message: str) -> None: ...


class BrokenGroupError(RuntimeError):
    """The processes of a group are not in step any more, and have to be started anew. What failed has been told."""


def run_worker(settings: WorkerSettings, boss: Boss, group: Group | None = None) -> None:
    """Work until the boss has nothing more. Storage that stays unwritable is reported as trouble, not raised.

    Raises:
        BrokenGroupError: a pack failed in a group; the boss knows.
    """
    from workers.group import ALONE

    worker = Worker(settings, boss, group or ALONE)
    with worker.beating(), logged_to(worker.sink, lambda: worker.current):
        try:
            worker.sink.check_shared()
            while True:
                orders = boss.pull()
                if orders.job is not None:
                    worker.train(orders.job)
                    continue
                worker.flush()
                if not orders.wait_seconds:
                    break
                time.sleep(orders.wait_seconds)
        except StorageError as error:
            boss.report_trouble(str(error))
        except BrokenGroupError:
            boss.goodbye()
            raise
        worker.group.told(None)
    boss.goodbye()


@dataclass
class Current:
    """What is in training right now."""

    runs: tuple[Run, ...] = ()
    attempt: int = 0


class Worker:
    """The state of one worker process."""

    def __init__(self, settings: WorkerSettings, boss: Boss, group: Group) -> None:
        import torch

        self.settings, self.boss, self.group = settings, boss, group
        self.device = settings.device()
        self.device_name = torch.cuda.get_device_name(self.device) if settings.gpus else platform.machine()
        self.train_pack = settings.load_trainer()
        self.placement = settings.placement(group)
        self.node = socket.gethostname()
        self.sink = Sink(Ledger(settings.storage), settings.launch, f"{self.node}/{os.getpid()}")
        self.saver = Saver(settings.storage, settings.checkpoint_seconds)
        self.current = Current()
        self.progress = Beat()
        self.must_stop = False

    def train(self, job: Job) -> None:
        """Train a job and tell the boss how it went."""
        self.current = Current(job.pack.runs, job.attempt)
        self.progress = Beat()
        try:
            stopped = self._train(job)
        except StorageError:
            raise
        except Exception as error:  # whatever a run raises is that run's result, not the end of the sweep
            if self.group.size > 1 and is_lost_peer(error):
                raise  # not this run's fault: the whole worker counts as lost
            failure: Failure | None = failure_of(error)
            assert failure
            self._log("error", f"{failure.signature}: {error}", level="error")
            if len(job.pack.runs) == 1 and failure.kind != "transient":
                self.sink.add([], [failure.end(job.pack.runs[0], job.attempt) | self._provenance()], job.attempt)
                failure = None
            self.flush()
            self.boss.finished(failure)
            if self.group.size > 1:
                raise BrokenGroupError(str(error)) from error
            self._free_memory()
        else:
            if stopped:
                self.boss.paused()
            else:
                self.boss.finished(None)
                if self.sink.is_due:
                    self.flush()
        finally:
            self.current = Current()

    def _free_memory(self) -> None:
        """Give back what a failed pack held, before a smaller one is tried."""
        import torch

        gc.collect()
        if self.settings.gpus:
            torch.cuda.empty_cache()

    def _train(self, job: Job) -> bool:
        """Train all runs of a job; returns whether it was stopped, with all that was reached saved."""
        from workers.checkpoint import group_by_progress

        checkpoints = self._checkpoints(job) if job.may_resume else {}
        for runs, resume in group_by_progress(job.pack.runs, checkpoints):
            self.current = Current(runs, job.attempt)
            self._log("resumed" if resume else "started", f"in a pack of {len(runs)} on {self.device_name}")
            self.saver.restart()
            left = {run.run_id for run in runs}
            self.group.told((runs, resume))
            training = self.train_pack(
                runs,
                self.settings.data_folder,
                self.device,
                resume=resume,
                pause=self._wants_pause,
                placement=self.placement,
            )
            for progress in training:
                stops = True
                try:
                    self._take(progress, runs, job.attempt)
                    left -= {end.run_id for end in progress.ended}
                    must_stop = self.must_stop
                    if must_stop or self.saver.is_due:
                        self.flush()
                        self._save(progress)
                    elif self.sink.is_due:
                        self.flush()
                    stops = must_stop and bool(left)
                finally:  # the others wait to hear it, whatever happens here
                    self.group.told(stops)
                if stops:
                    training.close()
                    return True
        return False

    def _wants_pause(self) -> bool:
        return self.must_stop or self.sink.is_due or self.saver.is_due

    def _take(self, progress: Any, runs: Sequence[Run], attempt: int) -> None:
        """Take in what an evaluation gave."""
        by_id = {run.run_id: run for run in runs}
        last = {row["run_id"]: row for row in progress.rows}
        ends = []
        for end in progress.ended:
            run = by_id[end.run_id]
            images = round(last[end.run_id]["epoch"] * run.samples) if run.recipe.optimizer != "gradient-flow" else 0
            gpu_seconds = end.seconds * self.settings.gpus * self.group.size
            provenance = {"images": images, "gpu_seconds": gpu_seconds, "pack_size": len(runs), **self._provenance()}
            ends.append(vars(end) | provenance)
            message = f"{end.evaluations} evaluations, {end.seconds:.1f} s"
            self.sink.log(end.status, message, run_id=end.run_id, attempt=attempt)
        self.sink.add(progress.rows, ends, attempt)
        speed = sum(row["images_per_second"] for row in progress.rows)
        self.progress.share_done = progress.share_done
        self.progress.images_per_second = speed or self.progress.images_per_second

    def _provenance(self) -> dict[str, Any]:
        return {"device": self.device_name, "node": self.node, "versions": versions()}

    def flush(self) -> None:
        """Make durable what waits, tell which runs ended, and drop the checkpoints of those."""
        ended = self.sink.flush()
        self.boss.acknowledge([(end["run_id"], end["status"]) for end in ended])
        self.saver.forget([end["run_id"] for end in ended])

    def _save(self, progress: Any) -> None:
        try:
            saved = self.saver.save(progress.checkpoints())
        except StorageError as error:  # rows are safe; the run would begin a little earlier, no more
            self._log("checkpoint failed", str(error), level="warning")
            return
        for run_id in saved:
            self.sink.log("checkpointed", "", run_id=run_id, attempt=self.current.attempt)

    def _checkpoints(self, job: Job) -> dict[str, Any]:
        """Checkpoints of the job's runs, of those that have a usable one."""
        from workers.checkpoint import CheckpointError, load_checkpoint

        found = {}
        for run in job.pack.runs:
            try:
                checkpoint = load_checkpoint(self.settings.storage.read(paths.checkpoint(run.run_id)), run)
                self.saver.known.add(run.run_id)
                held = job.held.get(run.run_id, checkpoint.evaluations)
                if held < checkpoint.evaluations:
                    raise CheckpointError(
                        f"it is of evaluation {checkpoint.evaluations}; the ledger holds {held} before"
                    )
                found[run.run_id] = checkpoint
            except MissingFileError:
                continue
            except CheckpointError as error:
                self.sink.log(
                    "checkpoint refused", str(error), run_id=run.run_id, attempt=self.current.attempt, level="warning"
                )
        return found

    def _log(self, event: str, message: str, *, level: str = "info") -> None:
        for run in self.current.runs:
            self.sink.log(event, message, run_id=run.run_id, attempt=self.current.attempt, level=level)

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Tell the boss every second that this worker lives, and hear from it whether to stop."""
        stop = threading.Event()

        def beat_on() -> None:
            while not stop.wait(BEAT_SECONDS):
                self.progress.gpu_use = gpu_use() if self.settings.gpus else None
                if self.boss.beat(self.progress):
                    self.must_stop = True

        thread = threading.Thread(target=beat_on, name="beat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


@dataclass
class Saver:
    """Saves runs in training now and then, each over its last checkpoint, and drops checkpoints of runs that ended."""

    storage: Storage
    interval_seconds: float
    known: set[str] = field(default_factory=set)
    """Runs that have a checkpoint in storage."""
    _cost_seconds: float = 0.0
    _last: float = field(default_factory=time.monotonic)

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self._last >= max(self.interval_seconds, self._cost_seconds / CHECKPOINT_SHARE)

    def restart(self) -> None:
        """Count from now."""
        self._last = time.monotonic()

    def save(self, checkpoints: dict[str, bytes]) -> list[str]:
        """Write the checkpoints (by run id); their rows must be durable. Raises StorageError."""
        started = time.monotonic()
        self._last = started
        for run_id, content in checkpoints.items():
            self.storage.write(paths.checkpoint(run_id), content)
            self.known.add(run_id)
        self._last = time.monotonic()
        self._cost_seconds = self._last - started
        return list(checkpoints)

    def forget(self, run_ids: Sequence[str]) -> None:
        """Drop what is there of runs whose ends are durable; what cannot be dropped now, the next launch drops."""
        for run_id in self.known.intersection(run_ids):
            try:
                self.storage.delete(paths.checkpoint(run_id))
            except StorageError:
                continue
            self.known.discard(run_id)


def gpu_use() -> float | None:
    """Share of the last moments in which the current GPU computed, where the driver tells."""
    import torch

    try:
        return torch.cuda.utilization() / 100
    except Exception:  # without NVML's Python binding there is nothing to tell
        return None
