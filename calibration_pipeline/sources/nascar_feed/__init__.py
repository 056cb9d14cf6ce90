"""Seasons of NASCAR's public feed: documents, cache, reader, frames."""
