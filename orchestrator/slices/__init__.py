"""Slices of one sweep, from its ledger to figures: double descent, curves, contrasts."""
