"""Verdicts: their estimates by market, and the rules."""
