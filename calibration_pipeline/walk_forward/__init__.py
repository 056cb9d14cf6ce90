"""Walk-forward recalibration of forecasts that are no scenarios: fits by fold, states by race, forecasts."""
