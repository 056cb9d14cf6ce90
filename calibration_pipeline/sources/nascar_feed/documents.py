"""Documents of NASCAR's timing feed as checked models and frames, with the fields that are read.

Small documents are Pydantic models; the laps, hundreds of thousands of them, become columns at once.
"""

import datetime
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import polars as pl
from polars.exceptions import PolarsError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from calibration_pipeline.sources.base import SourceError
from calibration_pipeline.sources.nascar_feed.drift import drift
from calibration_pipeline.tracks import Series

FLAG_STATES = {1: "green", 2: "yellow", 3: "red", 4: "checkered", 8: "warm_up"}
POINTS_RACE = 1
# Numbers of the feed fit 32 bits; a larger number is damage, and would not fit a column.
Whole = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Count = Annotated[int, Field(ge=0, lt=2**31)]


class FeedModel(BaseModel):
    """Base model: reads the declared fields and ignores the others."""

    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)


class ScheduledRace(FeedModel):
    """One race of a season's list."""

    race_id: Count
    race_season: int
    race_type_id: int
    race_name: str
    race_date: datetime.datetime
    track_id: Whole | None = None
    track_name: str | None = None
    scheduled_laps: Count | None = None
    average_speed: float | None = None
    total_race_time: str | None = None

    @property
    def has_run(self) -> bool:
        """Whether the race has been run: it has an average speed or a total time."""
        return bool((self.average_speed or 0) > 0 or (self.total_race_time or "").strip(" 0:."))

    @property
    def label(self) -> str:
        """Name of the race in messages, with its id."""
        return f"{self.race_season} race {self.race_id} ({self.race_name}, {self.track_name})"


class RaceList(FeedModel):
    """`race_list_basic.json`: the Cup races of a season."""

    series_1: list[ScheduledRace]


class XfinityRaceList(RaceList):
    """The Xfinity races of the same document."""

    series_1: list[ScheduledRace] = Field(alias="series_2")


class TruckRaceList(RaceList):
    """The Truck races of the same document."""

    series_1: list[ScheduledRace] = Field(alias="series_3")


RACE_LISTS: Mapping[Series, type[RaceList]] = {
    "cup": RaceList,
    "xfinity": XfinityRaceList,
    "truck": TruckRaceList,
}


class Entry(FeedModel):
    """One car that is entered."""

    car_number: str
    driver_fullname: str | None = None
    driver_id: Whole | None = None
    team_name: str | None = None
    car_make: str | None = None
    starting_position: Count | None = None


class Result(Entry):
    """One car's result. Finishing position 0 means that it did not start."""

    finishing_position: Count
    laps_completed: Count
    laps_led: Count
    finishing_status: str | None = None


class Race(FeedModel):
    """Fields of the race in every weekend document."""

    race_id: int
    scheduled_laps: Count | None = None


class EnteredRace(Race):
    """A race before it is run."""

    results: list[Entry]


class FinishedRace(Race):
    """A race that was run."""

    actual_laps: Count | None = None
    number_of_cautions: Count | None = None
    number_of_caution_laps: Count | None = None
    results: list[Result] = Field(min_length=1)


class EntryWeekend(FeedModel):
    """`weekend-feed.json` before the race."""

    weekend_race: list[EnteredRace] = Field(min_length=1, max_length=1)


class WeekendResult(FeedModel):
    """Finish position of a car, 0 or null without a finish."""

    finishing_position: Count | None = None


class WeekendResults(FeedModel):
    """The cars of a weekend's race."""

    results: list[WeekendResult] = []


class AnyWeekend(FeedModel):
    """`weekend-feed.json` before or after the race."""

    weekend_race: list[WeekendResults]

    @property
    def has_results(self) -> bool:
        """Whether any car has finished."""
        return any(row.finishing_position for race in self.weekend_race for row in race.results)


class FinishedWeekend(FeedModel):
    """`weekend-feed.json` after the race."""

    weekend_race: list[FinishedRace] = Field(min_length=1, max_length=1)


class _StrictModel(FeedModel):
    """Base model without type conversion, except of whole numbers to floats."""

    model_config = ConfigDict(strict=True, coerce_numbers_to_str=False)


class _Lap(_StrictModel):
    Lap: Whole
    RunningPos: Whole | None
    LapTime: float | None


class _Car(_StrictModel):
    Number: str | int
    NASCARDriverID: Whole | None
    Laps: list[_Lap]


class _FlagOfLap(_StrictModel):
    LapsCompleted: Whole
    FlagState: Whole


class _LapTimes(_StrictModel):
    """`lap-times.json` as a model, to find the wrong field; the fast parser only detects an error."""

    laps: list[_Car]
    flags: list[_FlagOfLap]


def parse_document[Document: BaseModel](model: type[Document], document: Any, where: str) -> Document:
    """Return `document` as `model`. Fields that `model` does not declare are ignored.

    Raises
    ------
    SourceError
        With the first missing or wrong fields, their expected and found values, in one line.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise SourceError(f"{where}: {drift(error, document)}.") from error


def parse_laps(document: Any, where: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return `lap-times.json` as two frames.

    Returns
    -------
    laps : polars.DataFrame
        feed_driver_id (null if the feed has none), car_number, lap, position, lap_time_s: one row a car
        and lap, as the feed has them.
    flags : polars.DataFrame
        lap, flag (null if the state is not known), one row a lap.

    Raises
    ------
    SourceError
        If a field is missing or has the wrong type, as `parse_document` does.
    """
    try:
        cars = document["laps"]
        rows = [row for car in cars for row in car["Laps"]]
        car_of_row = np.repeat(np.arange(len(cars)), [len(car["Laps"]) for car in cars])
        headers = pl.DataFrame(
            {
                "feed_driver_id": [car["NASCARDriverID"] or None for car in cars],
                "car_number": [str(car["Number"]).strip() for car in cars],
            },
            schema={"feed_driver_id": pl.Int64, "car_number": pl.String},
            strict=True,
        )
        laps = pl.DataFrame(
            {
                "lap": [row["Lap"] for row in rows],
                "position": [row["RunningPos"] for row in rows],
                "lap_time_s": [row["LapTime"] for row in rows],
            },
            schema={"lap": pl.Int64, "position": pl.Int64, "lap_time_s": pl.Float64},
            strict=True,
        )
        states = document["flags"]
        flags = pl.DataFrame(
            {
                "lap": [state["LapsCompleted"] for state in states],
                "state": [state["FlagState"] for state in states],
            },
            schema={"lap": pl.Int64, "state": pl.Int64},
            strict=True,
        )
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError, PolarsError) as error:
        parse_document(_LapTimes, document, where)
        reason = " ".join(str(error).split())[:200]
        raise SourceError(f"{where}: the laps cannot be laid out in columns: {reason}.") from error
    known = pl.col("state").replace_strict(FLAG_STATES, default=None, return_dtype=pl.String)
    return (
        pl.concat([headers[car_of_row], laps], how="horizontal"),
        flags.select("lap", known.alias("flag")).unique("lap", keep="last", maintain_order=True),
    )
