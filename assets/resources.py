"""Resources of the assets: the settings, the source and the IO manager."""

import datetime
from pathlib import Path
from typing import Any

from calibration_pipeline.analysis.provenance import provenance, setting_values
from calibration_pipeline.seasons import span
from calibration_pipeline.sources.base import Source, SourceError
from calibration_pipeline.sources.names import read_nicknames
from calibration_pipeline.sources.nascar_feed.source import NascarFeedSource
from calibration_pipeline.sources.simulated.source import SimulatedSource
from calibration_pipeline.sources.tables.source import TablesSource
from calibration_pipeline.tracks import load_tracks

from .settings import Settings, SettingsError, project_folder
from .storage.io_manager import StoredManager

FEED_CACHE = Path("data") / "feed_cache"


def build_source(settings: Settings) -> Source:
    """Return the source that the settings name; nothing is read yet."""
    tracks = load_tracks(settings.series, settings.tracks)
    names = read_nicknames(settings.nicknames)
    if settings.source == "nascar_feed":
        return NascarFeedSource(
            settings.feed_url, tracks, project_folder() / FEED_CACHE, series=settings.series, nicknames=names
        )
    if settings.source == "tables":
        return TablesSource(
            str(settings.results), settings.laps, tracks, settings.series, settings.columns, nicknames=names
        )
    return SimulatedSource(settings.season_list, tracks, seed=settings.seed)


def with_seasons(settings: Settings) -> Settings:
    """Return the settings with the seasons up to now that the source's files hold, where none are set.

    Raises
    ------
    SettingsError
        If the source cannot be read or has no season.
    """
    if settings.seasons or settings.default_seasons:
        return settings
    try:
        this_year = datetime.datetime.now(datetime.UTC).year
        seasons = [season for season in build_source(settings).seasons if season <= this_year]
    except SourceError as error:
        raise SettingsError(str(error)) from error
    if not seasons:
        raise SettingsError("The source has no season with a finished race: choose with --seasons.")
    return settings.model_copy(update={"seasons": span(seasons)})


def build_resources(settings: Settings) -> dict[str, Any]:
    """Return the resources of the asset graph by key."""
    return {
        "settings": settings,
        "source": build_source(settings),
        "io_manager": StoredManager(
            settings.store_path, setting_values(settings, settings.season_list), provenance(settings)
        ),
    }


def run_tags(settings: Settings) -> dict[str, str]:
    """Return the tags of every run: source, series, seasons and seed."""
    return {
        "calibration/source": settings.source,
        "calibration/series": settings.series,
        "calibration/seasons": span(settings.season_list),
        "calibration/seed": str(settings.seed),
    }
