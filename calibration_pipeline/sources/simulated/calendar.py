"""Calendar of the simulated seasons: tracks in order, and race dates."""

import datetime

import numpy as np

# fmt: off
CALENDAR: tuple[str, ...] = (
    "daytona", "atlanta", "las_vegas", "phoenix", "cota", "richmond", "bristol", "martinsville",
    "texas", "talladega", "dover", "kansas", "darlington", "charlotte", "sonoma", "nashville",
    "michigan", "road_america", "pocono", "atlanta", "new_hampshire", "indianapolis_road",
    "watkins_glen", "michigan", "indianapolis", "daytona", "darlington", "kansas", "bristol",
    "richmond", "talladega", "charlotte_roval", "las_vegas", "homestead", "martinsville", "phoenix",
)
# fmt: on
IDLE_WEEKS_AFTER_ROUND = (7, 21)


def race_dates(season: int) -> list[datetime.date]:
    """Return the Sundays of a season's races, from mid-February, with two idle weeks.

    Examples
    --------
    >>> dates = race_dates(2023)
    >>> dates[0].isoformat(), dates[-1].isoformat()
    ('2023-02-19', '2023-11-05')
    """
    valentine = datetime.date(season, 2, 14)
    first = valentine + datetime.timedelta(days=(6 - valentine.weekday()) % 7)
    rounds = np.arange(len(CALENDAR))
    weeks = rounds + (rounds[:, None] >= np.array(IDLE_WEEKS_AFTER_ROUND)).sum(axis=1)
    return [first + datetime.timedelta(weeks=int(week)) for week in weeks]
