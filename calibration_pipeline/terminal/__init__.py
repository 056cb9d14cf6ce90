"""Tables and lines that the command prints."""
