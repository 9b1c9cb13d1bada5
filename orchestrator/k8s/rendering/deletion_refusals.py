"""What KubeRay refuses in the rules by which the parts of a RayJob are deleted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

ORDER = ("DeleteWorkers", "DeleteCluster", "DeleteSelf")
"""From the inside to the outside: nothing may go before what it holds."""


def deletion_refusals(spec: Mapping[str, Any]) -> Iterator[str]:
    """Problems of `shutdownAfterJobFinishes`, `ttlSecondsAfterFinished` and `deletionStrategy` of a RayJob's spec."""
    shutdown, ttl = bool(spec.get("shutdownAfterJobFinishes")), spec.get("ttlSecondsAfterFinished") or 0
    if ttl < 0:
        yield f"ttlSecondsAfterFinished {ttl}: must be at least 0"
    if ttl > 0 and not shutdown:
        yield f"ttlSecondsAfterFinished {ttl} needs shutdownAfterJobFinishes: true"
    strategy = spec.get("deletionStrategy")
    if strategy is None:
        return
    if shutdown:
        yield (
            "shutdownAfterJobFinishes and deletionStrategy are two ways to clean up: leave deletionStrategy out (Kueue "
            "takes only the first)"
        )
    ends = {name: (strategy.get(name) or {}).get("policy") for name in ("onSuccess", "onFailure") if name in strategy}
    rules = strategy.get("deletionRules") or []
    if ends and rules:
        yield "deletionStrategy has both deletionRules and onSuccess or onFailure: use deletionRules alone"
    elif not ends and not rules:
        yield "deletionStrategy is empty: give deletionRules, or leave it out"
    elif ends and (len(ends) < 2 or None in ends.values()):
        yield "deletionStrategy needs a policy under onSuccess and one under onFailure"
    policies = [*filter(None, ends.values()), *(rule.get("policy") for rule in rules)]
    inner = sorted({policy for policy in policies if policy in ORDER[:2]})
    if spec.get("clusterSelector") and inner:
        yield f"{' and '.join(inner)} cannot go with clusterSelector, whose cluster belongs to others"
    if (spec.get("rayClusterSpec") or {}).get("enableInTreeAutoscaling") and "DeleteWorkers" in inner:
        yield "DeleteWorkers cannot go with autoscaling"
    yield from _rules(rules)


def _rules(rules: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    seconds: dict[tuple[str, str], dict[str, int]] = {}
    for number, rule in enumerate(rules):
        where = f"deletionStrategy.deletionRules.{number}"
        condition = rule.get("condition") or {}
        states = [(name, condition[name]) for name in ("jobStatus", "jobDeploymentStatus") if condition.get(name)]
        if len(states) != 1:
            yield f"{where}: give one of jobStatus and jobDeploymentStatus"
            continue
        ttl = condition.get("ttlSeconds") or 0
        if ttl < 0:
            yield f"{where}: ttlSeconds {ttl} must be at least 0"
        at = seconds.setdefault(states[0], {})
        if rule.get("policy") in at:
            yield f"{where}: there is a rule for {rule.get('policy')} at {' '.join(states[0])} already"
            continue
        at[str(rule.get("policy"))] = ttl
    for state, times in seconds.items():
        for before, after in pairwise([policy for policy in ORDER if policy in times]):
            if times[after] < times[before]:
                yield (
                    f"deletionStrategy at {' '.join(state)}: {after} after {times[after]} s would come before {before} "
                    f"after {times[before]} s: give it at least as long"
                )
