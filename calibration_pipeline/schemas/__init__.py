"""Pandera contracts of every stored value."""
