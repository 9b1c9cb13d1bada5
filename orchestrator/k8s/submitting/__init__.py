"""Bringing a launch into a cluster: checked before anything is created, and followed to its end."""
