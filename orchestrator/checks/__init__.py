"""Checks of the environment, one function a check. `orchestrator.doctor` puts them in order and runs them."""
