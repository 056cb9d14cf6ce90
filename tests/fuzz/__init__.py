"""Fuzzing of everything that reads foreign files: `make fuzz`; docs/fuzzing.md has the results."""
