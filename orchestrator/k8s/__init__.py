"""Sweeps on Kubernetes: what is submitted to KubeRay, and how it is watched, stopped and fetched."""
