"""Who runs the search space, where, and what came out: plan, executor, ledger, phase analysis, command line."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - pip would have refused, but the code of a Ray job comes without pip
    found = ".".join(map(str, sys.version_info[:2]))
    raise SystemExit(f"bo-sweep needs Python 3.11 or later; {sys.executable} is Python {found}")
