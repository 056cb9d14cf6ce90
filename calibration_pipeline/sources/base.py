"""What every source of races promises: the frames, the counts and the one error."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pandera.polars as pa
import polars as pl
from pandera.errors import SchemaErrors


class SourceError(ValueError):
    """A source cannot give what was asked for; one line says what, where and why."""


class MissingDocumentError(SourceError):
    """A source has no such document."""


NAME_MARKS = r"\*|#|\([A-Za-z]{1,2}\)"
"""Marks of drivers' names in public results: ineligible for points, rookie, play-off, another series."""


@dataclass(frozen=True)
class SeasonData:
    """A season as a source tells it.

    Attributes
    ----------
    race_results : polars.DataFrame
        Schema `RaceResults`, ordered by race and finish.
    lap_telemetry : polars.DataFrame
        Schema `LapTelemetry`, ordered by race, driver and lap; empty where the source has no laps.
    counts : dict[str, int]
        What was read and what was left out, by name.
    left_out : list[str]
        One line for every race that was left out, with the reason.
    """

    race_results: pl.DataFrame
    lap_telemetry: pl.DataFrame
    counts: dict[str, int] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


class Source(Protocol):
    """A source of seasons; all sources are interchangeable."""

    @property
    def name(self) -> str:
        """The name by which settings know the source."""
        ...

    @property
    def seasons(self) -> Sequence[int]:
        """The seasons that the source has, ascending.

        Raises
        ------
        SourceError
            If the source cannot tell.
        """
        ...

    def load_season(self, season: int) -> SeasonData:
        """Return the races of `season` that have run.

        Raises
        ------
        SourceError
            If the source has no such season, or what it has cannot be used.
        """
        ...

    def finished_races(self, season: int) -> dict[int, str]:
        """Return the races of `season` that have run and that `load_season` would read.

        It asks for as little as the source allows, so that it can be asked every few minutes.

        Returns
        -------
        dict[int, str]
            race_id → what people call the race, in race order; empty where the source has no such season yet.

        Raises
        ------
        SourceError
            If the source cannot be read.
        """
        ...

    def next_race(self, after_season: int) -> pl.DataFrame | None:
        """Return the entry list of the next race that has not run.

        Parameters
        ----------
        after_season : int
            Newest season known; the race is looked for in it and in the one that follows.

        Returns
        -------
        polars.DataFrame or None
            Schema `EntryList`; None if no entry list is announced.
        """
        ...


def hold_to_contract(schema: type[pa.DataFrameModel], frame: pl.DataFrame, where: str) -> pl.DataFrame:
    """Return the columns of `frame` that `schema` names, held against it.

    Parameters
    ----------
    schema : type of pandera.polars.DataFrameModel
        The contract.
    frame : polars.DataFrame
        What a source read.
    where : str
        Season and address, for the message.

    Returns
    -------
    polars.DataFrame

    Raises
    ------
    SourceError
        If the frame breaks the contract.
    """
    try:
        return schema.validate(frame.select(schema.empty().columns), lazy=True)
    except SchemaErrors as error:
        first = str(error.schema_errors[0]).splitlines()[0]
        raise SourceError(f"{where} breaks {schema.__name__}: {first}") from error


def describe_missing(missing: Mapping[int, Mapping[int, str]]) -> str:
    """Return a sentence that names the finished races without results.

    Examples
    --------
    >>> describe_missing({2026: {7: "2026 race 7 (daytona)"}})
    '1 finished race is not in the results: 2026 race 7 (daytona).'
    """
    labels = [label for races in missing.values() for label in races.values()]
    if not labels:
        return "Every finished race is in the results."
    named = ", ".join(labels[:3]) + (f" and {len(labels) - 3} more" if len(labels) > 3 else "")
    count = "1 finished race is" if len(labels) == 1 else f"{len(labels)} finished races are"
    return f"{count} not in the results: {named}."
