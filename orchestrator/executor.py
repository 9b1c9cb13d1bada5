"""The executor: keeps workers busy through Ray Tune. Disposable; all that counts is in the ledger.

Tune sees one trial a worker, for as long as there are packs: each pulls them from the coordinator, an actor beside this
process. So Tune's cost of a trial, imports and FFCV's compilation are paid once a worker, and the memory of this
process does not grow with the number of packs. Trials restart when their process dies, and wait for nodes to come.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.boss import RayBoss
from orchestrator.coordinator import Coordinator
from orchestrator.group_worker import bundles, run_group
from orchestrator.head import (
    CONNECT_SECONDS,
    OWN_HEAD_SECONDS,
    SHARED_HEAD_SECONDS,
    ClusterLostError,
    HeadWatch,
    answers,
    own_head_lives,
)
from orchestrator.lanes import Lanes
from orchestrator.messages import State, WorkerFacts
from orchestrator.ray_environment import RAY_ENVIRONMENT
from orchestrator.slots import Hardware, local_hardware
from orchestrator.worker import WorkerSettings, run_worker
from search_spaces.packs import Pack
from search_spaces.runs import Run

OBJECT_STORE_BYTES = 256 * 2**20
LOOK_SECONDS = 0.5
"""Between two looks at the coordinator."""
ANSWER_SECONDS = 30.0
"""A coordinator that does not answer for so long is gone, and with it the cluster."""
LAST_LINES = 120
"""Of a dead worker's stderr: the stacks of all threads, and what came before them."""
SPARE_SLOTS = 2
"""Workers per slot that Tune may start when nodes are added to the cluster."""


@contextmanager
def cluster(address: str | None, interrupt: Callable[[], None]) -> Iterator[Hardware]:
    """Connect to the Ray cluster at `address`, or start one here on all CPUs; yields its hardware.

    Args:
        address: of a running cluster.
        interrupt: raises KeyboardInterrupt in the main thread; called when the cluster's head is gone.

    Raises:
        ConnectionError: no cluster answers at `address`, or (ClusterLostError) it is gone.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in RAY_ENVIRONMENT.items()})
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address:
        check_address(address)
        options["address"] = address
        package_root = Path(__file__).resolve().parent.parent
        if not _comes_with_job(package_root):
            modules = [str(package_root / name) for name in ("orchestrator", "workers", "search_spaces")]
            options["runtime_env"] = {"py_modules": modules}
    else:
        options |= {
            "address": "local",  # never a cluster that RAY_ADDRESS names, or that someone left running on this machine
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "num_cpus": local_hardware().cpus,
        }
    if address:
        watch = HeadWatch(lambda: answers(ray.get_runtime_context().gcs_address), SHARED_HEAD_SECONDS, interrupt)
    else:
        watch = HeadWatch(own_head_lives(), OWN_HEAD_SECONDS, interrupt)
    try:
        with ExitStack() as watched:
            if not address:
                watched.enter_context(watch)
            with _without_rays_sigterm_handler():
                _connect(options)
            if address:
                watched.enter_context(watch)
            logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what fails is told by us, from the ledger
            yield _hardware(ray.nodes())
    finally:
        ray.shutdown()
        watch.close()


def _comes_with_job(package_root: Path) -> bool:
    """Whether this is the driver of a Ray job that has our packages in its working folder: its workers get that too."""
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    return bool((job.get("runtime_env") or {}).get("working_dir")) and Path.cwd() == package_root


def _connect(options: dict[str, Any]) -> None:
    import ray

    try:
        ray.init(**options)
    except Exception as error:  # Ray raises many kinds, down to plain Exception
        reason = str(error).partition("\n")[0]
        if options["address"] == "local":
            raise ClusterLostError(
                f"no Ray cluster could be started here: {reason}. Launch again; if it stays so: bo-sweep doctor"
            ) from error
        raise ClusterLostError(
            f"cannot join the Ray cluster: {reason}. If it asks for a token, set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN (or have it in ~/.ray/auth_token). More with: bo-sweep doctor --address "
            f"{options['address']}"
        ) from error


@contextmanager
def _without_rays_sigterm_handler() -> Iterator[None]:
    """Put our handler of SIGTERM back after `ray.init`, which installs one that raises SystemExit."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as exit_:
        raise KeyboardInterrupt from exit_
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def run_on_worker(function: Callable[..., None], *arguments: Any) -> None:
    """Call `function` once on the connected cluster; what it raises is raised here."""
    import ray

    try:
        ray.get(ray.remote(num_cpus=0)(function).remote(*arguments))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None


def check_address(address: str) -> None:
    """Raise ConnectionError if nothing listens at a `host:port`; Ray itself would go on trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # "auto" and the like
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ConnectionError(
            f"no Ray cluster answers at {address}: {error}. Give the address that `ray start --head` prints, or leave "
            "--address out to start one here"
        ) from error


def _hardware(nodes: Sequence[dict[str, Any]]) -> Hardware:
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    cpus = sum(node.get("CPU", 0.0) for node in resources)
    gpus = sum(node.get("GPU", 0.0) for node in resources)
    memory = min((node["memory"] / node["CPU"] for node in resources if node.get("CPU")), default=0.0)
    return Hardware(cpus, gpus, memory)


class Execution:
    """The workers of one launch, from the first pack to the last.

    Args:
        packs: in the order wanted.
        settings: of every worker, but for what its shape says.
        lanes: what the runs are trained on.
        elastic: whether workers may be added when the cluster grows.
        first_attempt: number of the first attempt of this launch.
        work: expected seconds of a run.
        resumable: runs that have a checkpoint, with their evaluations in the ledger.
    """

    def __init__(
        self,
        packs: Sequence[Pack],
        settings: WorkerSettings,
        *,
        lanes: Lanes,
        elastic: bool,
        first_attempt: int,
        work: Callable[[Run], float],
        resumable: Mapping[str, int],
    ) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(num_cpus=0, max_concurrency=1, scheduling_strategy=here)(Coordinator)
        self._coordinator = actor.remote(list(packs), first_attempt, work, dict(resumable), lanes.number, lanes.slots)
        self._settings, self._lanes = settings, lanes.lanes
        used = dict.fromkeys(lanes.number(pack.runs[0]) for pack in packs)  # in the order in which they are wanted
        spare = SPARE_SLOTS if elastic else 1
        self._slots = [number for number in used for _ in range(lanes.lanes[number].slots * spare)]
        """The number of the lane of each slot."""

    def look(self) -> State:
        """How it stands. Raises ClusterLostError where nobody answers."""
        import ray

        try:
            state: State = ray.get(self._coordinator.state.remote(), timeout=ANSWER_SECONDS)
        except (ray.exceptions.RayError, TimeoutError) as error:
            raise ClusterLostError(f"the Ray cluster is gone: {error}".splitlines()[0]) from error
        for facts in state.deaths:
            self._coordinator.worker_failed.remote(f"{facts.host}, process {facts.process}")
        return state

    def drain(self) -> None:
        """Hand out nothing more; workers save what they have and leave."""
        self._coordinator.drain.remote()

    def forgive_lost_nodes(self) -> None:
        """Tell the coordinator which nodes are gone: what was lost with them is no run's fault."""
        import ray

        gone = [node["NodeID"] for node in ray.nodes() if not node["Alive"]]
        if gone:
            self._coordinator.nodes_gone.remote(gone)

    def last_words(self, facts: WorkerFacts | None) -> str:
        """The last lines that a dead worker wrote to stderr, where its node still lives."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if facts is None or not facts.stderr:
            return ""
        there = NodeAffinitySchedulingStrategy(facts.node_id, soft=False)
        read = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(last_lines)
        try:
            return str(ray.get(read.remote(facts.stderr), timeout=ANSWER_SECONDS))
        except (ray.exceptions.RayError, TimeoutError):
            return ""

    def confirm_given_up(self, run_ids: Sequence[str]) -> None:
        """Tell that the ends of given-up runs are durable."""
        self._coordinator.confirm_given_up.remote(list(run_ids))

    def run_to_the_end(self) -> None:
        """Keep workers running until the coordinator has nothing more for them; to be called in the main thread."""
        while not self.look().is_over:
            self._run_workers()

    def _run_workers(self) -> None:
        from ray import tune
        from ray.tune.progress_reporter import TrialProgressCallback

        coordinator, lanes, slots = self._coordinator, self._lanes, self._slots
        settings = [
            replace(self._settings, gpus=lane.shape.gpus, threads=max(1, int(lane.shape.cpus))) for lane in lanes
        ]

        def trial(config: dict[str, Any]) -> None:
            slot, number = config["slot"], slots[config["slot"]]
            shape = lanes[number].shape
            if shape.processes > 1:
                run_group(settings[number], coordinator, slot, number, shape)
            else:
                run_worker(settings[number], RayBoss(coordinator, slot, lane=number, gpus=shape.gpus))

        def resources(config: dict[str, Any]) -> tune.PlacementGroupFactory:
            return tune.PlacementGroupFactory(bundles(lanes[slots[config["slot"]]].shape), strategy="PACK")

        class Losses(TrialProgressCallback):  # type: ignore[misc]
            """Tells the coordinator at once that a worker died, even if its successor has to wait for a node.

            In the place of Tune's own callback, which prints a line for every trial that ends.
            """

            def on_trial_result(self, *arguments: Any, **info: Any) -> None: ...

            on_trial_complete = on_trial_result

            def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
                coordinator.lost.remote(trial.config["slot"])

            on_trial_error = on_trial_recover

            def __getstate__(self) -> dict[str, Any]:
                return {}

        class Over(tune.Stopper):  # type: ignore[misc]
            """Ends trials that wait for a node when nothing is left for them."""

            def __init__(self, look: Callable[[], State]) -> None:
                self._look, self._next = look, 0.0

            def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
                return False

            def stop_all(self) -> bool:
                if time.monotonic() < self._next:
                    return False
                self._next = time.monotonic() + 2.0
                return self._look().is_over

            def __getstate__(self) -> dict[str, Any]:
                return {"_look": None, "_next": 0.0}

        with tempfile.TemporaryDirectory(prefix="bo-sweep-tune-", ignore_cleanup_errors=True) as scratch:
            tuner = tune.Tuner(
                tune.with_resources(trial, resources),
                param_space={"slot": tune.grid_search(list(range(len(slots))))},
                tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=len(slots)),
                run_config=tune.RunConfig(
                    storage_path=scratch,
                    name="workers",
                    verbose=0,
                    callbacks=[Losses()],
                    stop=Over(self.look),
                    failure_config=tune.FailureConfig(max_failures=-1),
                ),
            )
            tuner.fit()


def last_lines(path: str) -> str:
    """The end of a text file."""
    with open(path, errors="replace", encoding="utf-8") as file:
        return "".join(deque(file, LAST_LINES))
