"""Races that have finished, as the source has them, against the stored results."""

from collections.abc import Mapping

import dagster as dg
import polars as pl

from calibration_pipeline.io.escaping import escape_text
from calibration_pipeline.sources.base import SourceError, describe_missing

from ..resources import build_source
from ..settings import Settings

REPORT = "calibration_report"
CHECK = "every_finished_race"
Races = Mapping[int, str]
"""race_id → label."""


def stored_races(settings: Settings, season: int) -> set[int]:
    """Return the races of a season that have stored results."""
    path = settings.store_path / "race_results" / f"{season}.parquet"
    if not path.exists():
        return set()
    return set(pl.read_parquet(path.read_bytes(), columns=["race_id"])["race_id"])


def last_finished_races(settings: Settings) -> tuple[dict[int, Races], str]:
    """Return the finished races of the last season, and a message where the source cannot be asked."""
    last = settings.season_list[-1]
    try:
        return {last: build_source(settings).finished_races(last)}, ""
    except SourceError as error:  # stored partitions can be brought up to date all the same
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
        stored = stored_races(settings, season)
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
