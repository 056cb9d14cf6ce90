"""Readers of the forecasts of users' forecasters."""


class ForecasterError(ValueError):
    """Error of a forecaster's file that cannot be used; one line names file, rule and values."""
