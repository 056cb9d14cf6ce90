"""NUTS runs, their draws and their convergence, for every model."""
