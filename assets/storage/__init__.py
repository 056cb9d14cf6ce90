"""IO managers and what they record with each materialization."""
