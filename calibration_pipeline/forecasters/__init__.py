"""Readers of the forecasts of users' forecasters."""
