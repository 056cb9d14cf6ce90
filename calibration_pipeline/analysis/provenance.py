"""Provenance: attributes of every NetCDF file, and the settings that each asset depends on.

The attributes hold versions, settings and the hash of the tracks, no time and no place: the same inputs
give the same file, to the bit.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

from calibration_pipeline.analysis.settings import AnalysisSettings
from calibration_pipeline.events.files import judged_events
from calibration_pipeline.forecasters.folder import NETWORK, find_forecasters, forecaster_version
from calibration_pipeline.io.addresses import without_credentials
from calibration_pipeline.io.stored_values import SCHEMA_VERSION
from calibration_pipeline.scenarios.folds import default_fold_races
from calibration_pipeline.schemas.partition_keys import split_key
from calibration_pipeline.seasons import span
from calibration_pipeline.sources.names import read_nicknames
from calibration_pipeline.tracks import load_tracks

LIBRARIES = ("arviz", "h5netcdf", "jax", "jaxlib", "netCDF4", "numpy", "numpyro", "polars", "xarray")
VALUE_SETTINGS = ("fold_races", "network", "scenarios", "seed", "series", "source")
"""The settings that say how values are computed; the others say where from, or where."""


def setting_values(settings: AnalysisSettings, seasons: Sequence[int]) -> dict[str, Any]:
    """Return the settings that values depend on, by the names that assets declare; no credentials.

    `source` stands for what the source reads, `tracks` for the track catalogue, `nicknames` for the table of
    other spellings.

    Parameters
    ----------
    settings : AnalysisSettings
    seasons : sequence of int
        The seasons in force, in order.
    """
    return {
        "source": _source_values(settings, seasons[0]),
        "tracks": load_tracks(settings.series, settings.tracks).content_hash,
        "nicknames": read_nicknames(settings.nicknames).content_hash,
        "seasons": list(seasons),
        "seed": settings.seed,
        "scenarios": settings.scenarios,
        "network": settings.network,
        "fold_races": settings.fold_races or default_fold_races(len(seasons)) or "a season",
        "forecaster": settings.shown_forecaster,
        "forecasters": without_credentials(settings.forecasters or ""),
        "margin": settings.margin,
        "forecaster_files": _forecaster_values(settings),
        "events": [str(event) for event in judged_events(settings.events)],
        "eras": list(settings.era_starts),
    }


def settings_of(values: Mapping[str, Any], names: Iterable[str], partition: str | None) -> dict[str, Any]:
    """Return the values of the settings that a partition depends on; of `forecaster_files` its forecaster's.

    Parameters
    ----------
    values : mapping
        As `setting_values` returns them.
    names : iterable of str
    partition : str or None
    """
    chosen = {name: values.get(name) for name in names}
    if partition is not None and "forecaster_files" in chosen:
        chosen["forecaster_files"] = values["forecaster_files"].get(split_key(partition)[0])
    return chosen


def _forecaster_values(settings: AnalysisSettings) -> dict[str, str]:
    """Return a digest of each user's forecaster: its files, and the nicknames that match its drivers."""
    known = find_forecasters(settings.forecasters)
    nicknames = read_nicknames(settings.nicknames).content_hash
    return {
        name: sha256(f"{forecaster_version(files)} {nicknames}".encode()).hexdigest()[:12]
        for of_form in known.by_form.values()
        for name, files in of_form.items()
    }


def _source_values(settings: AnalysisSettings, first_season: int) -> dict[str, Any]:
    if settings.source == "simulated":
        return {"seed": settings.seed, "first_season": first_season}
    nicknames = {"nicknames": read_nicknames(settings.nicknames).content_hash}
    if settings.source == "nascar_feed":
        return nicknames | {"feed_url": without_credentials(settings.feed_url)}
    return nicknames | {
        "results": without_credentials(settings.results or ""),
        "laps": without_credentials(settings.laps or ""),
        "columns": without_credentials(settings.columns or ""),
    }


def provenance(settings: AnalysisSettings) -> dict[str, str]:
    """Return all attributes but an asset's own code_version.

    project_version, library_versions, settings (JSON) and tracks_hash (SHA-256 of the track catalogue).

    Parameters
    ----------
    settings : AnalysisSettings
    """
    return {
        "project_version": version("calibration-pipeline"),
        "library_versions": ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
        "settings": json.dumps(settings.model_dump(include=set(VALUE_SETTINGS)), sort_keys=True),
        "tracks_hash": load_tracks(settings.series, settings.tracks).content_hash,
    }


def shown_settings(
    settings: AnalysisSettings, seasons: Sequence[int], fold_races: int | None
) -> dict[str, str]:
    """Return the settings that a report names, in words and without credentials.

    Parameters
    ----------
    settings : AnalysisSettings
    seasons : sequence of int
        The seasons in force, in order.
    fold_races : int or None
        Races of a fold; None for a season.
    """
    shown = settings.shown_forecaster  # it reads the forecasters' folder
    address = next(iter(settings.source_addresses), None)
    of_tables = {"Table of laps": settings.laps, "Column names": settings.columns}
    return {
        "Source": settings.source,
        "Series": settings.series,
        "Source address": shown_address(address, "none, simulated"),
        **{name: shown_address(file, "none") for name, file in of_tables.items() if file is not None},
        "Seasons": span(seasons),
        "Races per fold": str(fold_races or "a season"),
        "Forecaster": shown,
        "Forecasters of": shown_address(settings.forecasters, "the causal network alone"),
        **({} if settings.forecasters is None else {"Method for the margin of odds": settings.margin}),
        "Network": settings.network,
        "Joint events of": shown_address(settings.events, "the default ones"),
        "First seasons of eras": ", ".join(map(str, settings.era_starts)) or "none",
        "Scenarios a race": str(settings.scenarios) if shown == NETWORK else "as issued",
        "Seed": str(settings.seed),
        "Track constraints, SHA-256": load_tracks(settings.series, settings.tracks).content_hash,
        "Nicknames, SHA-256": read_nicknames(settings.nicknames).content_hash,
        "Schema version of stored files": SCHEMA_VERSION,
    }


def shown_address(address: str | None, otherwise: str) -> str:
    """Return an address for publication: a local file's name, or host and path without credentials.

    Examples
    --------
    >>> shown_address("https://user:secret@feed.example/cacher?token=1", "none")
    'https://feed.example/cacher'
    >>> shown_address("/home/me/cup.csv", "none"), shown_address(None, "none")
    ('cup.csv', 'none')
    """
    if address is None:
        return otherwise
    if "://" not in address:
        return PurePath(address).name
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
