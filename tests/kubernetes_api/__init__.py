"""A Kubernetes API server for tests: the real protocol on the loopback interface, no cluster behind it."""

from tests.kubernetes_api.faults import Fault
from tests.kubernetes_api.server import FakeCluster

__all__ = ["FakeCluster", "Fault"]
