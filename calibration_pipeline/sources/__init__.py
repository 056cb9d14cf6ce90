"""Where seasons come from: every source yields the same frames, and says what it left out."""

from calibration_pipeline.sources.base import SeasonData, Source, SourceError

__all__ = ["SeasonData", "Source", "SourceError"]
