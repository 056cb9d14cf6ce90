"""Simulated seasons: laws, careers, calendar and races of a made-up series whose truth is known."""
