"""Interface of every source of races: frames, counts and errors."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import pandera.polars as pa
import polars as pl
from pandera.errors import SchemaErrors

from calibration_pipeline.schemas.quarantine import Quarantine


class SourceError(ValueError):
    """Error of a source that cannot return the requested data; one line names data, address and reason."""


class DefectError(SourceError):
    """Error of data that cannot be used, such as a damaged document: what it is about is left out."""


class MissingDocumentError(DefectError):
    """Error of a document that a source does not have."""


RUNNING_SHARE = 0.9
"""Without a status, a car counts as running from this share of the race's laps on. In Cup races since 2013
this rule is right for 95 % of cars, and its errors of both types are equally frequent."""
NAME_MARKS = r"\*|#|\([A-Za-z]{1,2}\)"
"""Marks of drivers' names in public results: ineligible for points, rookie, play-off, another series."""


@dataclass(frozen=True)
class SeasonData:
    """Frames of a season, and counts of the rows that were read and left out.

    Attributes
    ----------
    race_results : polars.DataFrame
        Schema `RaceResults`, ordered by race and finish.
    lap_telemetry : polars.DataFrame
        Schema `LapTelemetry`, ordered by race, driver and lap; empty where the source has no laps.
    counts : dict[str, int]
        Numbers of races, cars and laps that were read or left out, by name.
    quarantine : polars.DataFrame
        Schema `Quarantine`: what was left out, nulled or corrected, and why.
    """

    race_results: pl.DataFrame
    lap_telemetry: pl.DataFrame
    counts: dict[str, int] = field(default_factory=dict)
    quarantine: pl.DataFrame = field(default_factory=Quarantine.empty)


class AnnouncedRace(NamedTuple):
    """Next race of a source: its entry list, and its defects.

    Attributes
    ----------
    entries : polars.DataFrame
        Schema `EntryList`.
    defects : tuple of str
        A sentence for each earlier race that cannot be forecast, each entry that is left out, and each value
        that is nulled or corrected.
    """

    entries: pl.DataFrame
    defects: tuple[str, ...] = ()


@dataclass(frozen=True)
class NoNextRace:
    """Reason why a source has no entry list of a next race that it knows of, such as an unknown track.

    Attributes
    ----------
    why : str
        The race and the reason, as a sentence.
    """

    why: str

    @property
    def before(self) -> str:
        """The reason as a defect of a later race, which is forecast in place of this one."""
        return f"{self.why} It comes before the race that is forecast."


class Source(Protocol):
    """Protocol of a source of seasons; all sources are interchangeable."""

    @property
    def name(self) -> str:
        """Name of the source in the settings."""
        ...

    @property
    def seasons(self) -> Sequence[int]:
        """The seasons that the source has, ascending.

        Raises
        ------
        SourceError
            If the source cannot list its seasons.
        """
        ...

    def load_season(self, season: int) -> SeasonData:
        """Return the races of `season` that have run.

        Raises
        ------
        SourceError
            If the source has no such season, or its data cannot be used.
        """
        ...

    def finished_races(self, season: int) -> dict[int, str]:
        """Return the races of `season` that have run and that `load_season` would read.

        The request is as small as the source allows, so that a sensor can repeat it every few minutes.

        Returns
        -------
        dict[int, str]
            race_id → label of the race, in race order; empty where the source has no such season yet.

        Raises
        ------
        SourceError
            If the source cannot be read.
        """
        ...

    def version(self, season: int) -> str:
        """Return a digest of what the source has of `season` now; it changes where the data change.

        Raises
        ------
        SourceError
            If the source cannot be read.
        """
        ...

    def refresh(self, season: int, number: int) -> None:
        """Have the data of a race read again, also where they count as final.

        Raises
        ------
        SourceError
            If the source has no such race, or always reads everything.
        """
        ...

    def next_race(self, after_season: int) -> AnnouncedRace | NoNextRace | None:
        """Return the first race that has not run and can be forecast, with its entry list.

        Parameters
        ----------
        after_season : int
            Newest season known; the race is in it or in the following season.

        Returns
        -------
        AnnouncedRace, NoNextRace or None
            The defects name earlier races that cannot be forecast. `NoNextRace` if every announced race is
            at an unknown track or fits no archetype; None if no entry list is announced.
        """
        ...


def validate_frame(schema: type[pa.DataFrameModel], frame: pl.DataFrame, where: str) -> pl.DataFrame:
    """Return the columns of `frame` that `schema` declares, after a check of the contract.

    Parameters
    ----------
    schema : type of pandera.polars.DataFrameModel
        The contract.
    frame : polars.DataFrame
        Frame that a source has read.
    where : str
        Season and address, for messages.

    Returns
    -------
    polars.DataFrame

    Raises
    ------
    SourceError
        If the frame breaks the contract.
    """
    try:
        return schema.validate(frame.select(list(schema.to_schema().columns)), lazy=True)
    except SchemaErrors as error:
        first = str(error.schema_errors[0]).splitlines()[0]
        raise SourceError(f"{where} breaks {schema.__name__}: {first}") from error
