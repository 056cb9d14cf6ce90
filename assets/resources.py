"""What assets are given besides their inputs: the settings, the source and the compiled tracks."""

from pathlib import Path
from typing import Any

from assets.settings import Settings, project_folder
from assets.storage import io_managers
from calibration_pipeline.sources.base import Source
from calibration_pipeline.sources.nascar_feed import NascarFeedSource
from calibration_pipeline.sources.simulated import SimulatedSource
from calibration_pipeline.tracks import compile_constraints

FEED_CACHE = Path("data") / "feed_cache"


def build_source(settings: Settings) -> Source:
    """Return the source that the settings name; nothing is read yet."""
    tracks = compile_constraints()
    if settings.source == "nascar_feed":
        return NascarFeedSource(settings.feed_url, tracks, cache_dir=project_folder() / FEED_CACHE)
    return SimulatedSource(settings.season_list, tracks, seed=settings.seed)


def build_resources(settings: Settings) -> dict[str, Any]:
    """Return the resources of the asset graph by key."""
    return {
        "settings": settings,
        "source": build_source(settings),
        **io_managers(settings.store_path),
    }
