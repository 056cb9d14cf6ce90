"""Joint events: language of expressions, parser, files, counts, test of independence."""
