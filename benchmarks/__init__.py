"""Benchmarks: what the project costs and what its forecasts are worth, each a command."""
