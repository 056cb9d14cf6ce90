"""The check of the report: every race that has finished is in its results."""

import dagster as dg

from calibration_pipeline.io.escaping import escape_text
from calibration_pipeline.sources.base import describe_missing

from ..orchestration.source_news import CHECK, last_finished_races, missing_races
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
        finished, problem = last_finished_races(settings)
        missing = missing_races(settings, finished)
        return dg.AssetCheckResult(
            passed=not (problem or missing),
            severity=dg.AssetCheckSeverity.WARN,
            description=escape_text(problem or describe_missing(missing)),
            metadata={"season": settings.season_list[-1], "missing": sum(map(len, missing.values()))},
        )

    return every_finished_race
