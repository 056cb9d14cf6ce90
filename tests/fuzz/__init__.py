"""Fuzzing of everything that reads what others wrote: `make fuzz`; docs/fuzzing.md tells what came of it."""
