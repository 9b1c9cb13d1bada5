"""A process of its own that connects to a Ray cluster and prints what it has, as JSON.

Of its own, because Ray tells why it cannot connect only on stderr, tries for a minute, and may end the process.
"""

from __future__ import annotations

import json
import logging
import sys


def main(address: str) -> None:
    """Connect and print nodes, CPUs, GPUs."""
    import ray

    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    totals = {kind: sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU")}
    print(json.dumps({"nodes": len(nodes), "cpus": totals["CPU"], "gpus": totals["GPU"]}))


if __name__ == "__main__":
    main(sys.argv[1])
