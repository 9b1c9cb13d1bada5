"""Sweeps that a Ray cluster carries out by itself: sent to its job API, watched and stopped from anywhere."""
