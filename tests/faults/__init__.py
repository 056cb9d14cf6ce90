"""Faults injected into whole runs; docs/faults.md has the results."""
