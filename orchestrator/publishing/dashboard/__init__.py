"""Workspace and report of a sweep on W&B, in code: planned without a network, then created or updated."""
