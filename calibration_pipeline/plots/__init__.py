"""Figures: each function draws a frame on the axes that it is given."""
