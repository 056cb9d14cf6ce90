"""Models of the timing feed's documents, with the fields that are read.

A field that is wrong is null, and its document or row is read all the same: `read_leniently`.
"""

import datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from calibration_pipeline.sources.base import DefectError
from calibration_pipeline.sources.nascar_feed.drift import drift
from calibration_pipeline.tracks import SERIES, Series

POINTS_RACE = 1


def _number(value: Any) -> Any:
    """Return a text that is a whole number, as '12' or '12.0', as a number."""
    if isinstance(value, str):
        text = value.strip().removesuffix(".0")
        return text or None
    return value


# Numbers of the feed fit 32 bits; a larger number is damage, and would not fit a column.
Whole = Annotated[int, Field(ge=-(2**31), lt=2**31), BeforeValidator(_number)]
Count = Annotated[int, Field(ge=0, lt=2**31), BeforeValidator(_number)]


class FeedModel(BaseModel):
    """Base model: reads the declared fields and ignores the others."""

    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)


class ScheduledRace(FeedModel):
    """One race of a season's list."""

    race_id: Count
    race_season: int | None = None
    race_type_id: int | None = None
    race_name: str | None = None
    race_date: datetime.datetime | None = None
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
    def day(self) -> datetime.date | None:
        """Day of the race, local."""
        return self.race_date.date() if self.race_date else None

    @property
    def label(self) -> str:
        """Name of the race in messages, with its id."""
        names = ", ".join(filter(None, (self.race_name, self.track_name))) or "no name"
        return f"{self.race_season} race {self.race_id} ({names})"


class Entry(FeedModel):
    """One car that is entered."""

    car_number: str | None = None
    driver_fullname: str | None = None
    driver_id: Whole | None = None
    team_name: str | None = None
    car_make: str | None = None
    starting_position: Count | None = None


class Result(Entry):
    """One car's result. Finishing position 0 means that it did not start."""

    finishing_position: Count | None = None
    laps_completed: Count | None = None
    laps_led: Count | None = None
    finishing_status: str | None = None


class Race(FeedModel):
    """The race of a weekend document, its results not yet read."""

    race_id: Count | None = None
    race_date: datetime.datetime | None = None
    scheduled_laps: Count | None = None
    actual_laps: Count | None = None
    number_of_cautions: Count | None = None
    number_of_caution_laps: Count | None = None
    results: list[Any] | None = None


def read_leniently[Model: BaseModel](model: type[Model], value: Any) -> tuple[Model | None, list[str]]:
    """Return a value as a model, wrong fields as null; None where that is not enough.

    Returns
    -------
    model : Model or None
    wrong : list of str
        A sentence for each wrong field, or on the value as a whole.
    """
    try:
        return model.model_validate(value), []
    except ValidationError as error:
        if not isinstance(value, dict):
            return None, [drift(error, value)]
        wrong = {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}
        try:
            good = {name: found for name, found in value.items() if name not in wrong}
            return model.model_validate(good), drift(error, value).split("; ")
        except ValidationError:
            return None, [drift(error, value)]


def races_of(document: Any, series: Series, where: str) -> list[Any] | None:
    """Return the rows of a series in a season's list; None where the document is empty.

    Raises
    ------
    DefectError
        If the document has no such list.
    """
    if document in (None, [], {}):
        return None
    name = f"series_{SERIES.index(series) + 1}"
    rows = document.get(name) if isinstance(document, dict) else document
    if not isinstance(rows, list):
        known = (
            ", ".join(sorted(map(str, document))) if isinstance(document, dict) else type(document).__name__
        )
        raise DefectError(f"{where} must have a list {name}; it has {known}.")
    return rows


def race_of(document: Any, where: str) -> tuple[Race, list[str]] | None:
    """Return the race of a weekend document and its wrong fields; None where the document holds no race.

    Raises
    ------
    DefectError
        If it holds several races, or something else.
    """
    found = document.get("weekend_race", document) if isinstance(document, dict) else document
    if not found:
        return None
    if not isinstance(found, list) or len(found) != 1:
        count = len(found) if isinstance(found, list) else 0
        raise DefectError(f"{where} must hold one weekend_race; it holds {count or type(found).__name__}.")
    race, wrong = read_leniently(Race, found[0])
    if race is None:
        raise DefectError(f"{where}: {wrong[0]}.")
    return race, wrong
