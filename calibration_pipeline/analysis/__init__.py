"""Settings of an analysis, and which of them a stored value depends on."""
