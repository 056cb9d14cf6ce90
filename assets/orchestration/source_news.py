"""News of the source: its present data of a season against what was stored."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import dagster as dg
import polars as pl
from polars.exceptions import PolarsError

from calibration_pipeline.io.escaping import escape_text
from calibration_pipeline.sources.base import SourceError, describe_missing

from ..resources import build_source
from ..settings import Settings

REPORT = "calibration_report"
CHECK = "every_finished_race"
RECENT_SEASONS = 2
"""Last seasons in which the source may still add or correct races; a table may anywhere."""
Races = Mapping[int, str]
"""race_id → label."""


class News(NamedTuple):
    """The source's present data of a season: their version, and finished races without stored results."""

    version: str
    missing: Races


def stored_races(settings: Settings, season: int) -> set[int] | None:
    """Return the races of a season that have stored results, None where the season is not stored."""
    path = settings.store_path / "race_results" / f"{season}.parquet"
    if not path.exists():
        return None
    try:
        return set(pl.read_parquet(path.read_bytes(), columns=["race_id"])["race_id"])
    except PolarsError:  # `Lineage.file_fault` names a damaged file, and its season is read again
        return set()


def read_news(settings: Settings, others: Collection[int] = ()) -> tuple[dict[int, News], dict[int, Races]]:
    """Return the news of the stored seasons that the source may have changed, and the finished races.

    Parameters
    ----------
    settings : Settings
    others : collection of int
        Other seasons whose finished races are returned as well.

    Raises
    ------
    SourceError
        If the source cannot be read.
    """
    source = build_source(settings)
    seasons = settings.season_list
    recent = seasons if settings.source == "tables" else seasons[-RECENT_SEASONS:]
    stored = [season for season in recent if stored_races(settings, season) is not None]
    finished: dict[int, Races] = {
        season: source.finished_races(season) for season in sorted({*stored, *others})
    }
    missing = missing_races(settings, finished)
    return {season: News(source.version(season), missing.get(season, {})) for season in stored}, finished


def last_finished_races(settings: Settings) -> tuple[dict[int, Races], str]:
    """Return the finished races of the last season, and a message where the source cannot be asked."""
    last = settings.season_list[-1]
    try:
        return {last: build_source(settings).finished_races(last)}, ""
    except SourceError as error:
        return {}, f"Not known whether races of {last} have finished since: {error}"


def missing_races(settings: Settings, finished: Mapping[int, Races]) -> dict[int, dict[int, str]]:
    """Return the finished races that have no stored results, by season; complete seasons are not in it.

    Parameters
    ----------
    settings : Settings
    finished : mapping
        season → race_id → label.
    """
    missing = {}
    for season, races in finished.items():
        stored: Collection[int] = stored_races(settings, season) or ()
        if lacks := {race: label for race, label in races.items() if race not in stored}:
            missing[season] = lacks
    return missing


def evaluate_missing(report: dg.AssetKey, missing: Mapping[int, Races]) -> dg.AssetCheckEvaluation:
    """Return the evaluation of the report's check when races have finished since."""
    return dg.AssetCheckEvaluation(
        asset_key=report,
        check_name=CHECK,
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        description=escape_text(describe_missing(missing)),
        metadata={"missing": sum(map(len, missing.values()))},
    )
