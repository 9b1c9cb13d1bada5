"""Commands for sweeps on Kubernetes."""
