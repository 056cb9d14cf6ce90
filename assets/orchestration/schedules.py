"""The schedule after race weekends, and the freshness of a running season's assets."""

import datetime
from typing import Any

import dagster as dg

from ..resources import run_tags
from ..settings import Settings

TIME_ZONE = "America/New_York"
AFTER_RACE_WEEKENDS = "0 6 * * 1"
DEADLINE = "0 12 * * 1"
RACE_WEEKEND = datetime.timedelta(hours=36)


def find_deadline(settings: Settings) -> dg.FreshnessPolicy | None:
    """Return the deadline of a running season's assets, Monday noon after a race weekend; else None."""
    is_running = settings.season_list[-1] == datetime.datetime.now(datetime.UTC).year
    return dg.FreshnessPolicy.cron(DEADLINE, RACE_WEEKEND, TIME_ZONE) if is_running else None


def build_schedule(
    ingest: Any, seasons: dg.PartitionsDefinition, settings: Settings
) -> dg.ScheduleDefinition:
    """Return the schedule `after_race_weekend` of the job `ingest`."""
    status = dg.DefaultScheduleStatus.RUNNING if settings.automation else dg.DefaultScheduleStatus.STOPPED

    @dg.schedule(
        job=ingest,
        cron_schedule=AFTER_RACE_WEEKENDS,
        execution_timezone=TIME_ZONE,
        description="Mondays, 6:00 in New York: ingests the last season again, with its official results.",
        default_status=status,
    )
    def after_race_weekend() -> dg.RunRequest:
        return dg.RunRequest(partition_key=seasons.get_partition_keys()[-1], tags=run_tags(settings))

    return after_race_weekend
