"""From a ledger to W&B, by a process of its own: training never calls W&B, and the ledger stays the only truth."""
