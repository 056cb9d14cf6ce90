"""A later date: told to a run of the pipeline, and to the processes that it starts.

Importing this module tells it to the process, as many years later as the environment says. A pool's processes
are forked from a server that has imported it.
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
    """Return by how much the date that this process was told is later than the true one."""
    return int(os.environ.get(LATER, "0")) * 366 * 86400.0


class Date(datetime.date):
    """A date whose today is later."""

    @classmethod
    def today(cls) -> datetime.date:
        """Return the later date."""
        return datetime.date.fromtimestamp(time.time() + seconds_later())


def _now() -> datetime.datetime:
    return datetime.datetime.fromtimestamp(time.time() + seconds_later(), tz=datetime.UTC)


if seconds_later():
    for module in (ingest, resources, schedules, settings):
        if hasattr(module, "datetime"):
            module.datetime = SimpleNamespace(**{**vars(datetime), "date": Date})  # type: ignore[attr-defined]
    dagster._time._mockable_get_current_datetime = _now
    dagster._time._mockable_get_current_timestamp = lambda: _now().timestamp()
