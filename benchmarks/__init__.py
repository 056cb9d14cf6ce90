"""Benchmarks of cost and of forecast quality; each command writes benchmarks/results/."""
