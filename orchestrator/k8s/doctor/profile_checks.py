"""Checks of a cluster for what a profile asks of it: quotas, nodes, claims, the queue."""

from __future__ import annotations

from collections import Counter

from orchestrator.checks.finding import Finding, failed, ok, skipped, warning
from orchestrator.k8s.client.api import Api, ForbiddenError, NotFoundError
from orchestrator.k8s.client.resources import KUEUE
from orchestrator.k8s.doctor.quotas import applies, needs_of
from orchestrator.k8s.names import GPU_PRODUCT, GPU_RESOURCE
from orchestrator.k8s.profile import ClusterProfile
from orchestrator.k8s.submitting.node_check import check_nodes
from orchestrator.k8s.values import amount_of
from orchestrator.k8s.watching.observed import labels_of


def check_quota(api: Api, profile: ClusterProfile) -> Finding:
    """What the sweep asks for fits into the namespace's quotas, and into what is left of them now."""
    try:
        quotas = [quota for quota in api.list("ResourceQuota") if applies(quota, profile.priority_class)]
    except ForbiddenError:
        return skipped("you may not read quotas", "bo-sweep k8s status tells when one refuses pods")
    needs, over, full = needs_of(profile), [], []
    for quota in quotas:
        status = quota.get("status") or {}
        for key, hard in (status.get("hard") or {}).items():
            need, used = needs.get(key), (status.get("used") or {}).get(key, "0")
            if need is None:
                continue
            told = f"{key}: {_readable(key, need)} asked, {used} of {hard} used ({quota['metadata']['name']})"
            if need > amount_of(hard):
                over.append(told)
            elif need > amount_of(hard) - amount_of(used):
                full.append(told)
    remedy = "ask for less (workers.nodes, workers.gpus, workers.cpus, workers.memory), or have the quota raised"
    if over:
        return failed(f"more than a quota allows: {'; '.join(over)}", remedy)
    if full:
        return warning(f"not all fits at present: {'; '.join(full)}", f"wait until others have finished, or {remedy}")
    return ok(f"fits into {len(quotas)} quotas" if quotas else "no quota")


def check_node_kinds(api: Api, profile: ClusterProfile) -> Finding:
    """The nodes that the sweep asks for are there, now or on demand."""
    try:
        nodes = api.list("Node")
    except ForbiddenError:
        return skipped("you may not list nodes", "bo-sweep k8s status tells when none takes a pod")
    kinds = Counter(
        f"{labels_of(node).get(GPU_PRODUCT, 'GPUs')} x {gpus}" if gpus not in ("", "0") else "no GPU"
        for node in nodes
        for gpus in [str(((node.get("status") or {}).get("allocatable") or {}).get(GPU_RESOURCE, ""))]
    )
    there = ", ".join(f"{count} with {kind}" for kind, count in sorted(kinds.items())) or "none"
    mistakes: list[str] = []
    notes: list[str] = []
    check_nodes(api, profile, mistakes, notes)
    if mistakes or notes:
        remedy = (
            "correct the profile (workers.gpu_product, workers.node_selector, workers.nodes, cpus, memory, scratch)"
        )
        return (failed if mistakes else warning)("; ".join(mistakes + notes), remedy)
    return ok(there)


def check_results(api: Api, profile: ClusterProfile) -> Finding:
    """The claim for results is there, bound, and writable from many nodes; object stores are tried by launches."""
    results = profile.results
    if results.claim is None:
        return ok(f"{results.url}: pods reach it, or a launch tells why not")
    return _claim(api, results.claim, "results.claim", "ReadWriteMany", is_made=results.size is not None)


def check_data(api: Api, profile: ClusterProfile) -> Finding:
    """The claim with data sets is there and bound."""
    if profile.data is None:
        return ok("none; digits and the Gaussian mixture need none")
    if profile.data.claim is None:
        return ok(f"{profile.data.host_path} of each node (not looked at)")
    return _claim(api, profile.data.claim, "data.claim", "ReadOnlyMany", is_made=False)


def check_queue(api: Api, profile: ClusterProfile) -> Finding:
    """The queue takes jobs in."""
    if profile.queue is None:
        return ok("none: pods are made at once")
    tells = "bo-sweep k8s status tells when a launch is not admitted"
    try:
        queue = api.get("LocalQueue", profile.queue)
    except ForbiddenError:
        return skipped("you may not read queues", tells)
    except NotFoundError:
        if api.has_group(KUEUE):
            return skipped(f"this Kueue is of another version; whether {profile.queue!r} is there is not known", tells)
        return failed("Kueue is not installed", "leave `queue` out of the profile, or have Kueue installed")
    if queue is None:
        return failed(f"there is no queue {profile.queue!r}", "kubectl get localqueues tells those there are")
    for condition in (queue.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "Active" and condition.get("status") == "False":
            return failed(f"{profile.queue} is not active: {condition.get('message')}", "ask its administrator")
    status = queue.get("status") or {}
    return ok(
        f"{profile.queue}: {status.get('admittedWorkloads', 0)} admitted, {status.get('pendingWorkloads', 0)} wait"
    )


def _claim(api: Api, name: str, field: str, mode: str, *, is_made: bool) -> Finding:
    try:
        claim = api.get("PersistentVolumeClaim", name)
    except ForbiddenError:
        return skipped("you may not read claims", "bo-sweep k8s status tells when one is missing")
    if claim is None:
        if is_made:
            return ok(f"the claim {name!r} is made at the first launch")
        return failed(f"there is no claim {name!r} ({field})", "create it, or correct the profile: kubectl get pvc")
    phase = (claim.get("status") or {}).get("phase")
    modes = (claim.get("spec") or {}).get("accessModes") or []
    if phase == "Lost":
        return failed(f"the claim {name!r} has lost its volume", "an administrator looks at it")
    if "ReadWriteMany" not in modes and mode not in modes:
        found = f"the claim {name!r} is {', '.join(modes)}, not {mode}: one node only can use it"
        return warning(found, f"on several nodes use a claim with {mode} ({field})")
    if phase != "Bound":
        return warning(
            f"the claim {name!r} is {phase}", "it is bound when the first pod uses it, or kubectl describe pvc"
        )
    size = ((claim.get("status") or {}).get("capacity") or {}).get("storage", "")
    return ok(f"the claim {name!r} is bound, {size} {', '.join(modes)}")


def _readable(key: str, amount: float) -> str:
    return f"{amount / 2**30:.0f}Gi" if "memory" in key or "storage" in key else f"{amount:g}"
