"""Seasons of NASCAR's public feed: documents, cache, reader, rounds, frames."""

from calibration_pipeline.sources.nascar_feed.source import NascarFeedSource

__all__ = ["NascarFeedSource"]
