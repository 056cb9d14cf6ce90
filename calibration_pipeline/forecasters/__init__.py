"""Readers of users' forecasts, one module a form."""
