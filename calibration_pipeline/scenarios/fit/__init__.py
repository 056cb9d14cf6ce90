"""Fits of the causal network to earlier races, one for each fold."""
