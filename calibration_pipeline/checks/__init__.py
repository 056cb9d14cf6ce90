"""Properties of stored values that no contract enforces, and what is implausible in them."""
