"""Asset checks of stored values."""
