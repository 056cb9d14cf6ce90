"""Settings of an analysis, which of them a stored value depends on, and why a value is outdated."""
