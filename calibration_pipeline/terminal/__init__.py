"""Terminal output of the commands: tables and lines."""
