"""Seasons from a table of results and a table of laps."""
