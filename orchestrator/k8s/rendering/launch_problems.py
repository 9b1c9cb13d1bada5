"""What speaks against a launch on a cluster, told before anything is submitted."""

from __future__ import annotations

from orchestrator.budget import Budget, parse_duration
from orchestrator.entry_point import LaunchRequest
from orchestrator.k8s.names import GPU_PRODUCT, label_problems
from orchestrator.k8s.profile import ClusterProfile
from orchestrator.k8s.rendering.capacity import capacity
from orchestrator.k8s.rendering.scheduling import selector_problems
from search_spaces.runs import expand
from search_spaces.selectors import check_selectors, parse_selector


def capacity_problems(request: LaunchRequest, profile: ClusterProfile) -> tuple[list[str], list[str]]:
    """What the nodes cannot hold; and notes on what will stand idle."""
    try:
        return capacity(request.space, profile, request.workers)
    except ValueError as error:
        return [str(error)], []


def request_problems(request: LaunchRequest) -> list[str]:
    """What the launch would refuse once it runs."""
    problems = []
    try:
        wall = parse_duration(request.max_wall) if request.max_wall else None
        Budget(request.max_gpu_hours, wall, request.max_runs).check(request.space.resources)
    except ValueError as error:
        problems.append(str(error))
    try:
        check_selectors([parse_selector(text) for text in request.cells], expand(request.space))
    except ValueError as error:
        problems.append(str(error))
    if request.refine is None:
        alone = (("--budget", request.budget), ("--precision", request.precision))
        if lonely := [name for name, value in alone if value is not None]:
            problems.append(f"{' and '.join(lonely)}: only with --refine, for example --refine err_last=0.2")
    else:
        from orchestrator.refine.target import parse_target

        try:
            parse_target(request.refine, request.space, budget=request.budget, precision=request.precision)
        except ValueError as error:
            problems.append(str(error))
    return problems


def launch_notes(request: LaunchRequest, profile: ClusterProfile) -> list[str]:
    """What a launch will do otherwise than one may think."""
    if request.wandb and profile.wandb is None:
        return [
            "the profile names no key of W&B (wandb.secret, wandb.key), so nothing gets there while the sweep runs. "
            f"Afterwards bo-sweep wandb publish {request.sweep} does it from the ledger"
        ]
    return []


def profile_problems(request: LaunchRequest, profile: ClusterProfile) -> list[str]:
    """What the profile lacks for this space, or says twice."""
    problems = selector_problems(profile)
    for where, labels in (
        ("workers.node_selector", profile.workers.node_selector),
        ("head.node_selector", profile.head.node_selector),
        ("spot.node_selector", profile.spot.node_selector if profile.spot else {}),
        ("workers.gpu_product", {GPU_PRODUCT: profile.workers.gpu_product or ""}),
        ("service_account_annotations", dict.fromkeys(profile.service_account_annotations, "")),
    ):
        problems += label_problems(labels, where)
    dataset = request.space.dataset
    if profile.data is None and not dataset.described.embedded:
        problems.append(
            f"{dataset.name} does not come with bo-sweep, and the profile names no place for it: give data.claim (or "
            f"data.host_path), a volume with {dataset.name}/train.beton and {dataset.name}/test.beton as bo-sweep "
            "prepare leaves them"
        )
    return problems
