"""Sources of seasons: each returns the same frames, and names the races that it leaves out."""

from calibration_pipeline.sources.base import SeasonData, Source, SourceError

__all__ = ["SeasonData", "Source", "SourceError"]
