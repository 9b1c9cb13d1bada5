"""A W&B server for tests, on loopback: what wandb 0.31 asks of the real one, and the ways in which that one fails.

    with FakeWandb() as server:
        server.inject(Fault("status", on="file_stream", times=2, status=429))
        ...  # processes whose environment has server.environment()
        assert [row["epoch"] for row in server.run("team/sweeps/abc").rows] == [0.0, 1.0]

`python -m tests.wandb_server` serves from a process of its own.
"""

from tests.wandb_server.faults import Fault
from tests.wandb_server.server import FakeWandb
from tests.wandb_server.state import Run, View

__all__ = ["FakeWandb", "Fault", "Run", "View"]
