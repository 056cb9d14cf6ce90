"""The check of the report: every race that has finished is in its results."""

import dagster as dg

from calibration_pipeline.io.escaping import escape_text
from calibration_pipeline.sources.base import SourceError, describe_missing

from ..orchestration.finished_races import CHECK, missing_races
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
        last = settings.season_list[-1]
        try:
            finished = build_source(settings).finished_races(last)
        except SourceError as error:  # the report is good; whether it is the newest is not known
            return dg.AssetCheckResult(
                passed=False,
                severity=dg.AssetCheckSeverity.WARN,
                description=escape_text(f"Not known: the source could not be asked. {error}"),
                metadata={"season": last},
            )
        missing = missing_races(settings, {last: finished})
        return dg.AssetCheckResult(
            passed=not missing,
            severity=dg.AssetCheckSeverity.WARN,
            description=escape_text(describe_missing(missing)),
            metadata={"season": last, "missing": sum(map(len, missing.values()))},
        )

    return every_finished_race
