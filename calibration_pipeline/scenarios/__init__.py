"""Scenarios of races: the causal network, its fits, the ensembles drawn from it."""

from calibration_pipeline.scenarios.narrative import SkeletonNarrative

__all__ = ["SkeletonNarrative"]
