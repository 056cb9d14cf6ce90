"""A later current date for a run of the pipeline and its worker processes.

The import of this module sets the date of the process; an environment variable holds the number of years.
Worker processes are forked from a server that has imported the module.
"""

import datetime
import os
import time
from types import SimpleNamespace

import dagster._time

from assets import resources, settings
from assets.flow import ingest
from assets.orchestration import schedules
from benchmarks.performance.pipeline_run import LATER


def seconds_later() -> float:
    """Return the offset of this process's date from the true date, seconds."""
    return int(os.environ.get(LATER, "0")) * 366 * 86400.0


def _now(tz: datetime.tzinfo = datetime.UTC) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(time.time() + seconds_later(), tz=tz)


if seconds_later():
    for module in (ingest, resources, schedules, settings):
        if hasattr(module, "datetime"):
            later = SimpleNamespace(now=_now)
            module.datetime = SimpleNamespace(**{**vars(datetime), "datetime": later})  # type: ignore[attr-defined]
    dagster._time._mockable_get_current_datetime = _now
    dagster._time._mockable_get_current_timestamp = lambda: _now().timestamp()
