"""The assets in the order of the data flow, one module for each group of the UI."""
