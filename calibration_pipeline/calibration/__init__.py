"""Calibration: tabulated likelihoods, inference, and what makes recalibrated tables coherent."""
