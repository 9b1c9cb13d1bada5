"""Whether the nodes of a profile can hold the workers of a space, told before anything is submitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.k8s.profile import ClusterProfile
from orchestrator.k8s.values import amount_of
from orchestrator.slots import Hardware, count_slots, process_bytes
from search_spaces.memory import run_bytes
from search_spaces.runs import Run, expand
from search_spaces.shapes import Shape, shape_for
from search_spaces.spec import SearchSpace


def capacity(
    space: SearchSpace, profile: ClusterProfile, most_workers: int | None = None
) -> tuple[list[str], list[str]]:
    """What the nodes cannot hold, each with what to change; and notes on what will stand idle.

    Every process must fit into one node, and a worker of several processes into all nodes together.

    Raises:
        ValueError: (RatioError, CellError) a space that has no such runs.
    """
    workers = profile.workers
    node = Hardware(workers.cpus, workers.gpus, amount_of(workers.memory) / workers.cpus)
    by_shape: dict[Shape, list[Run]] = {}
    for run in {(run.width, run.samples): run for run in expand(space)}.values():
        by_shape.setdefault(shape_for(run, space.resources), []).append(run)
    by_shape = dict(sorted(by_shape.items()))
    each = {shape: count_slots(Shape(1, shape.cpus, shape.gpus), node) for shape in by_shape}
    lacking = {shape: runs for shape, runs in by_shape.items() if each[shape] * workers.nodes < shape.processes}
    problems = [_lacking(lacking, each, profile)] if lacking else []
    for shape in by_shape.keys() - lacking.keys():
        if not shape.gpus:
            problems += _too_large(by_shape[shape], shape, node, each[shape], profile, most_workers)
    held = {shape: runs for shape, runs in by_shape.items() if shape not in lacking}
    return problems, _idle(space, held, each, profile)


def _lacking(lacking: Mapping[Shape, Sequence[Run]], each: Mapping[Shape, int], profile: ClusterProfile) -> str:
    """The shapes that the nodes do not hold, and what would make them fit."""
    workers = profile.workers
    asked = ", and ".join(f"{shape} for each worker of {_widths(runs)}" for shape, runs in lacking.items())
    changes = []
    if workers.gpus < max(shape.gpus for shape in lacking):
        changes.append(
            "give nodes GPUs (--gpus-per-node, workers.gpus), or train on CPUs (--gpus-per-run 0 --set "
            "resources.cpus_per_worker=1)"
        )
    cpus = max(shape.cpus for shape in lacking)
    if workers.cpus < cpus:
        changes.append(
            f"give nodes {cpus:g} CPUs (workers.cpus), or lower --set resources.cpus_per_worker={workers.cpus}"
        )
    if not changes:
        nodes = max(-(-shape.processes // each[shape]) for shape in lacking)
        changes.append(f"give {nodes} nodes (--nodes, workers.nodes)")
    nodes_have = (
        f"{workers.nodes} node{'s' if workers.nodes > 1 else ''} with {workers.cpus} CPUs and {workers.gpus} GPUs"
    )
    return f"the space asks for {asked}; {nodes_have} cannot hold that. To change: {'; '.join(changes)}"


def _too_large(
    runs: Sequence[Run], shape: Shape, node: Hardware, fitting: int, profile: ClusterProfile, most_workers: int | None
) -> list[str]:
    """Runs that do not fit into what a process on the CPUs of a node has of its memory."""
    nodes = profile.workers.nodes
    slots = fitting * nodes // shape.processes
    processes = min(fitting, -(-min(slots, most_workers or slots) * shape.processes // nodes))
    room = process_bytes(Shape(1, shape.cpus, 0), node, processes, 0.0)
    large = [run for run in runs if run_bytes(run, shape.processes) > room]
    if not large:
        return []
    most = max(run_bytes(run, shape.processes) for run in large)
    return [
        f"a process holds up to {most / 1e9:,.1f} GB for {_widths(large)}; one of {processes} on a node with "
        f"{profile.workers.memory} has {max(0.0, room) / 1e9:,.1f} GB. Give nodes more (workers.memory), processes "
        "more CPUs (--set resources.cpus_per_worker), or use fewer (--workers)"
    ]


def _idle(
    space: SearchSpace, shapes: Mapping[Shape, Sequence[Run]], each: Mapping[Shape, int], profile: ClusterProfile
) -> list[str]:
    """What of the GPUs will stand idle."""
    workers = profile.workers
    notes = []
    if workers.gpus and shapes and not any(shape.gpus for shape in shapes):
        notes.append(
            f"{space.name} trains on CPUs: the {workers.gpus} GPUs of each node will stand idle. Use a profile without "
            "GPUs, or --gpus-per-run 0.25"
        )
    used = {shape: each[shape] * shape.gpus for shape in shapes if shape.gpus}
    short = {shape: gpus for shape, gpus in used.items() if gpus + shape.gpus <= workers.gpus}
    if short:
        shape = min(short, key=lambda shape: short[shape])
        notes.append(
            f"the {workers.cpus} CPUs of a node feed {short[shape]:g} of its {workers.gpus} GPUs, at {shape.cpus:g} "
            f"CPUs for each process ({_widths(shapes[shape])}). Give nodes more CPUs (workers.cpus), or lower --set "
            f"resources.cpus_per_worker={max(1, workers.cpus // workers.gpus)}"
        )
    return notes


def _widths(runs: Sequence[Run]) -> str:
    widths = list(dict.fromkeys(str(run.width) for run in runs))
    return f"width{'s' if len(widths) > 1 else ''} {', '.join(widths)}"
