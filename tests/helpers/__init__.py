"""Servers, simulated data and comparisons that several test modules share."""
