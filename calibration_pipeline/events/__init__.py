"""The language of joint events: expressions, text, files, counts, independence."""
