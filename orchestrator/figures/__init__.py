"""Printed figures of what the analysis gives."""
