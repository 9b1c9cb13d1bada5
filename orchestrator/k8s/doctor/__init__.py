"""Whether a cluster has what a profile asks of it."""
