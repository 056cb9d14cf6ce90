"""Benchmarks of time and memory, beside other tools and lower bounds: docs/performance.md."""
