"""Tables on the terminal, drawn with Rich from stored values."""
