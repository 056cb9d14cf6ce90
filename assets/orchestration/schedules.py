"""Schedules after race weekends and on mornings of a running season, and the freshness of its assets."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from ..resources import run_tags
from ..settings import Settings
from .jobs import INGEST, NEXT_RACE

TIME_ZONE = "America/New_York"
AFTER_RACE_WEEKENDS = "0 6 * * 1"
DEADLINE = "0 12 * * 1"
RACE_WEEKEND = datetime.timedelta(hours=36)
EVERY_MORNING = "0 7 * * *"


def is_running(settings: Settings) -> bool:
    """Return whether the last season is this year's, so that races of it are still to come."""
    return settings.season_list[-1] == datetime.date.today().year


def find_deadline(settings: Settings) -> dg.FreshnessPolicy | None:
    """Return the deadline of a running season's assets, Monday noon after a race weekend; else None."""
    return dg.FreshnessPolicy.cron(DEADLINE, RACE_WEEKEND, TIME_ZONE) if is_running(settings) else None


def build_schedules(
    jobs: Mapping[str, Any], seasons: dg.PartitionsDefinition, forecasters: Sequence[str], settings: Settings
) -> list[dg.ScheduleDefinition]:
    """Return the schedules: ingestion after race weekends, and the next race's forecast in a running season.

    `forecasters` are those whose forecasts are scenarios.
    """
    status = dg.DefaultScheduleStatus.RUNNING if settings.automation else dg.DefaultScheduleStatus.STOPPED
    results = settings.store_path / "race_results"

    @dg.schedule(
        name="after_race_weekend",
        job=jobs[INGEST.name],
        cron_schedule=AFTER_RACE_WEEKENDS,
        execution_timezone=TIME_ZONE,
        description="Mondays, 6:00 in New York: ingests the last season again, with its official results.",
        default_status=status,
    )
    def after_race_weekend() -> dg.RunRequest:
        return dg.RunRequest(partition_key=seasons.get_partition_keys()[-1], tags=run_tags(settings))

    @dg.schedule(
        name="every_morning",
        job=jobs[NEXT_RACE.name],
        cron_schedule=EVERY_MORNING,
        execution_timezone=TIME_ZONE,
        description="Every morning of a running season: forecasts the next race with its newest entry list.",
        default_status=status,
    )
    def every_morning(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        if not is_running(settings):
            return dg.SkipReason("No season is running.")
        if not results.exists():
            return dg.SkipReason("No season has been ingested yet.")
        day = "/".join([*settings.key_prefix, f"{context.scheduled_execution_time:%Y-%m-%d}"])
        tags = run_tags(settings)
        return [dg.RunRequest(f"{day}/{name}", partition_key=name, tags=tags) for name in forecasters]

    return [after_race_weekend, every_morning]
