"""The check of the report: every race that has finished is in its results."""

import dagster as dg

from calibration_pipeline.io.escaping import escape_text
from calibration_pipeline.seasons import span
from calibration_pipeline.sources.base import SourceError
from calibration_pipeline.sources.news import RECENT_SEASONS, Races, describe_missing, missing_races

from ..orchestration.sensors import CHECK
from ..resources import build_source
from ..settings import Settings


def build_check(report: dg.AssetKey) -> dg.AssetChecksDefinition:
    """Return the check of the report: every race that has finished is in its results.

    Parameters
    ----------
    report : dagster.AssetKey
    """

    @dg.asset_check(
        asset=report,
        name=CHECK,
        description="Every race that has finished, as the source has it, is in the results of the report.",
    )
    def every_finished_race(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
        recent, finished, problem = settings.season_list[-RECENT_SEASONS:], dict[int, Races](), ""
        try:
            source = build_source(settings)
            finished = {season: source.finished_races(season) for season in recent}
        except SourceError as error:
            problem = f"Not known whether races have finished since: {error}"
        missing = missing_races(settings.store_path, finished)
        return dg.AssetCheckResult(
            passed=not (problem or missing),
            severity=dg.AssetCheckSeverity.WARN,
            description=escape_text(problem or describe_missing(missing)),
            metadata={"seasons": span(recent), "missing": sum(map(len, missing.values()))},
        )

    return every_finished_race
