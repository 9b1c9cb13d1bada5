"""Who runs the search space, where, and what came out: plan, executor, ledger, phase analysis, command line."""
