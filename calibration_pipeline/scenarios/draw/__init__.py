"""Scenarios drawn from a fitted network: ensembles, interventions, starting grids."""
