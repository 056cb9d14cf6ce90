"""Simulated seasons: laws, careers, calendar and races of an invented series whose truth is known."""
