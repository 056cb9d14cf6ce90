"""The documents of NASCAR's timing feed: what is read of them, checked, as models and frames.

Small documents are Pydantic models; the laps, hundreds of thousands of them, become columns at once.
"""

import datetime
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from calibration_pipeline.sources.base import SourceError

FLAG_STATES = {1: "green", 2: "yellow", 3: "red", 4: "checkered", 8: "warm_up"}
POINTS_RACE = 1


class FeedModel(BaseModel):
    """Reads the declared fields, leaves the others alone."""

    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)


class ScheduledRace(FeedModel):
    """One race of a season's list."""

    race_id: int = Field(ge=0)
    race_season: int
    race_type_id: int
    race_name: str
    race_date: datetime.datetime
    track_id: int | None = None
    track_name: str | None = None
    scheduled_laps: int | None = Field(default=None, ge=0)
    average_speed: float | None = None
    total_race_time: str | None = None

    @property
    def has_run(self) -> bool:
        """Whether the race has been run: it has an average speed or a total time."""
        return bool((self.average_speed or 0) > 0 or (self.total_race_time or "").strip(" 0:."))

    @property
    def label(self) -> str:
        """What people call it, with its id."""
        return f"{self.race_season} race {self.race_id} ({self.race_name}, {self.track_name})"


class RaceList(FeedModel):
    """`race_list_basic.json`: the Cup races of a season."""

    series_1: list[ScheduledRace]


class Entry(FeedModel):
    """One car that is entered."""

    car_number: str
    driver_fullname: str | None = None
    driver_id: int | None = None
    team_name: str | None = None
    car_make: str | None = None
    starting_position: int | None = Field(default=None, ge=0)


class Result(Entry):
    """One car's result. Finishing position 0 means that it did not start."""

    finishing_position: int = Field(ge=0)
    laps_completed: int = Field(ge=0)
    laps_led: int = Field(ge=0)
    finishing_status: str | None = None


class Race(FeedModel):
    """What every weekend document says of its race."""

    race_id: int
    scheduled_laps: int | None = Field(default=None, ge=0)


class EnteredRace(Race):
    """A race before it is run."""

    results: list[Entry]


class FinishedRace(Race):
    """A race that was run."""

    actual_laps: int | None = Field(default=None, ge=0)
    number_of_cautions: int | None = Field(default=None, ge=0)
    number_of_caution_laps: int | None = Field(default=None, ge=0)
    results: list[Result] = Field(min_length=1)


class EntryWeekend(FeedModel):
    """`weekend-feed.json` before the race."""

    weekend_race: list[EnteredRace] = Field(min_length=1, max_length=1)


class FinishedWeekend(FeedModel):
    """`weekend-feed.json` after the race."""

    weekend_race: list[FinishedRace] = Field(min_length=1, max_length=1)


def parse_document[Document: BaseModel](model: type[Document], document: Any, where: str) -> Document:
    """Return `document` as `model`.

    Raises
    ------
    SourceError
        Naming the first field that is missing or wrong, and how many there are.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first, *others = error.errors(include_url=False, include_input=False)
        field = ".".join(str(part) for part in first["loc"]) or "the document"
        more = f" (and {len(others)} more)" if others else ""
        raise SourceError(f"{where}: {field}: {first['msg']}{more}.") from error


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
        If a key is missing or a value has the wrong type.
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
    except KeyError as error:
        raise SourceError(f"{where}: key {error} is missing.") from error
    except TypeError as error:
        reason = str(error).splitlines()[0]
        raise SourceError(f"{where}: a value has the wrong type: {reason}.") from error
    known = pl.col("state").replace_strict(FLAG_STATES, default=None, return_dtype=pl.String)
    return (
        pl.concat([headers[car_of_row], laps], how="horizontal"),
        flags.select("lap", known.alias("flag")).unique("lap", keep="last", maintain_order=True),
    )
