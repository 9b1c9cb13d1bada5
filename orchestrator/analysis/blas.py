"""Linear algebra on one thread: for the small matrices of the analysis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within it, or within a function that it decorates, BLAS keeps to one thread.

    On a machine that trains, threads that wait for each other take twenty times as long for matrices this small. And
    sums in one order give the same bytes whatever the number of cores.
    """
    import scipy.linalg  # noqa: F401  (its BLAS has to be loaded before it can be limited)
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield
