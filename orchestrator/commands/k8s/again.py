"""Command lines that go on with the same sweep on the same cluster."""

from __future__ import annotations

import shlex

from orchestrator.commands.k8s.options import ConnectionChoice


def k8s_again(command: str, sweep: str, cluster: ConnectionChoice) -> str:
    """`bo-sweep k8s COMMAND SWEEP` with the options by which the cluster was reached."""
    return there_again(cluster, "k8s", command, *([sweep] if sweep else []))


def there_again(cluster: ConnectionChoice, *words: str) -> str:
    """`bo-sweep WORDS` with the options by which the cluster was reached."""
    options = {
        "--profile": cluster.profile,
        "--kubeconfig": cluster.kubeconfig,
        "--context": cluster.context,
        "--namespace": cluster.namespace,
    }
    given = [part for name, value in options.items() if value is not None for part in (name, str(value))]
    return shlex.join(["bo-sweep", *words, *given])
