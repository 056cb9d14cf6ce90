"""Columns of the results and laps tables: names, types, and messages on wrong columns.

A table is recognised by the names of its columns. They are those of the R package nascaR.data, or our own,
which are the names of `RaceResults` and `LapTelemetry`. The returned frames have our names and types.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import polars as pl

from calibration_pipeline.sources.base import NAME_MARKS, SourceError
from calibration_pipeline.sources.tables.reader import TableFile


class Kind(Enum):
    """Data types of a table's columns; a member's value is its name in error messages."""

    WHOLE = "whole numbers"
    NUMBER = "numbers"
    TEXT = "text"
    DATE = "dates (YYYY-MM-DD)"


DTYPES = {Kind.WHOLE: pl.Int64(), Kind.NUMBER: pl.Float64(), Kind.TEXT: pl.String(), Kind.DATE: pl.Date()}


@dataclass(frozen=True)
class Column:
    """Declaration of a column that is read.

    Attributes
    ----------
    kind : Kind
    required : bool
        Whether a table must have it.
    low, high : int
        Least and largest number allowed.
    """

    kind: Kind
    required: bool = False
    low: int = 0
    high: int = 1_000_000


RESULTS: Mapping[str, Column] = {
    "season": Column(Kind.WHOLE, required=True, low=1949, high=2200),
    "round": Column(Kind.WHOLE, low=1, high=99),
    "race_date": Column(Kind.DATE),
    "race_name": Column(Kind.TEXT),
    "track": Column(Kind.TEXT, required=True),
    "surface": Column(Kind.TEXT),
    "driver": Column(Kind.TEXT, required=True),
    "driver_id": Column(Kind.TEXT),
    "car_number": Column(Kind.TEXT),
    "team": Column(Kind.TEXT),
    "make": Column(Kind.TEXT),
    "start_position": Column(Kind.WHOLE, required=True),
    "finish_position": Column(Kind.WHOLE, required=True),
    "laps_completed": Column(Kind.WHOLE, required=True),
    "laps_led": Column(Kind.WHOLE),
    "status": Column(Kind.TEXT),
    "race_laps": Column(Kind.WHOLE, low=1),
    "scheduled_laps": Column(Kind.WHOLE, low=1),
    "green_laps": Column(Kind.WHOLE),
    "n_cautions": Column(Kind.WHOLE),
    "fastest_laps": Column(Kind.WHOLE),
    "rating": Column(Kind.NUMBER, high=150),
}
LAPS: Mapping[str, Column] = {
    "season": Column(Kind.WHOLE, required=True, low=1949, high=2200),
    "round": Column(Kind.WHOLE, required=True, low=1, high=99),
    "driver": Column(Kind.TEXT, required=True),
    "lap": Column(Kind.WHOLE, required=True),
    "position": Column(Kind.WHOLE, required=True),
    "lap_time_s": Column(Kind.NUMBER, required=True),
    "flag": Column(Kind.TEXT),
}
# Names that a table may use instead of ours.
OUR_NAMES = {"track": ("track", "track_id")}
NASCAR_DATA_NAMES = {
    "season": ("Season",),
    "round": ("Race",),
    "race_name": ("Name",),
    "track": ("Track",),
    "surface": ("Surface",),
    "driver": ("Driver",),
    "car_number": ("Car",),
    "team": ("Team",),
    "make": ("Make",),
    "start_position": ("Start",),
    "finish_position": ("Finish",),
    "laps_completed": ("Laps",),
    "laps_led": ("Led",),
    "status": ("Status",),
    "rating": ("Rating",),
}
# A results table must have at least one column of each group.
ONE_OF = (("round", "race_date"),)
SHOWN_COLUMNS = 30
LONGEST_TEXT = 1_000


class Columns:
    """The columns of one table, found by name and cast to their types.

    Parameters
    ----------
    file : TableFile
    wanted : mapping of str to Column
        `RESULTS` or `LAPS`.

    Raises
    ------
    SourceError
        If the file cannot be read, or a column is missing (with the nearest names) or occurs twice.
    """

    def __init__(self, file: TableFile, wanted: Mapping[str, Column]) -> None:
        self._file = file
        self._wanted = wanted
        found = list(file.schema)
        aliases = _recognise(wanted, found)
        if repeated := _repeated(found, [name for names in aliases.values() for name in names]):
            raise SourceError(f"{file.path}: column {repeated} occurs twice.")
        present = {ours: next((n for n in names if n in found), None) for ours, names in aliases.items()}
        self.names: dict[str, str] = {ours: name for ours, name in present.items() if name is not None}
        self._refuse_missing(aliases, found)

    def seasons(self) -> list[int]:
        """Return the seasons in the table, ascending; only this column is read."""
        return sorted(self._season_values())

    def read(self, season: int) -> pl.DataFrame:
        """Return the rows of a season, every wanted column with its type, null where the table lacks it.

        Raises
        ------
        SourceError
            If a column has a value of another type; the message names the first such value.
        """
        values = self._season_values().get(season, [])
        rows = self._file.read(
            list(self.names.values()), pl.col(self.names["season"]).is_in(values, nulls_equal=True)
        )
        return pl.DataFrame(
            [
                self._cast(rows[self.names[ours]], ours)
                if ours in self.names
                else pl.Series(ours, [None] * rows.height, dtype=DTYPES[column.kind])
                for ours, column in self._wanted.items()
            ]
        )

    def _season_values(self) -> dict[int, list[object]]:
        """Return the seasons, each with its values in the file."""
        raw = self._file.read([self.names["season"]]).to_series().unique(maintain_order=True)
        season = self._cast(raw, "season")
        if season.null_count():
            raise SourceError(f"{self._file.path}: column {self.names['season']} is empty in some rows.")
        values: dict[int, list[object]] = {}
        for value, year in zip(raw, season, strict=True):
            values.setdefault(year, []).append(value)
        return values

    def _cast(self, raw: pl.Series, ours: str) -> pl.Series:
        """Return a column, cast to its type and checked."""
        column = self._wanted[ours]
        where = f"{self._file.path}: column {raw.name}"
        if raw.dtype == pl.String and int(raw.str.len_bytes().max() or 0) > LONGEST_TEXT:  # type: ignore[arg-type]
            raise SourceError(f"{where} must hold texts of at most {LONGEST_TEXT} bytes; one is longer.")
        try:
            values = _CASTS[column.kind](raw)
        except TypeError:
            raise SourceError(f"{where} must hold {column.kind.value}; it holds {raw.dtype}.") from None
        bad = values.is_null() & ~_empty(raw)
        if column.kind in (Kind.WHOLE, Kind.NUMBER):
            bad |= (~values.is_between(column.low, column.high)).fill_null(value=False)
            rule = f"{column.kind.value} from {column.low} to {column.high}"
        else:
            rule = column.kind.value
        if n := int(bad.sum()):
            first = raw.filter(bad)[0]
            raise SourceError(f"{where} must hold {rule}; it does not in {n} rows, the first has {first!r}.")
        return values.cast(DTYPES[column.kind]).alias(ours)

    def _refuse_missing(self, aliases: Mapping[str, Sequence[str]], found: Sequence[str]) -> None:
        groups: list[tuple[str, ...]] = [(ours,) for ours, column in self._wanted.items() if column.required]
        if self._wanted is RESULTS:
            groups += ONE_OF
        missing = [group for group in groups if not any(ours in self.names for ours in group)]
        if not missing:
            return
        described = []
        for group in missing:
            names = [aliases[ours][0] for ours in group if ours in aliases]
            near = _near(names, [name for name in found if name not in self.names.values()])
            described.append(" or ".join(names) + (f" (near it: {', '.join(near)})" if near else ""))
        shown = ", ".join(found[:SHOWN_COLUMNS]) + (", ..." if len(found) > SHOWN_COLUMNS else "")
        raise SourceError(f"{self._file.path} lacks the columns {', '.join(described)}; it has {shown}.")


def plain_name(name: pl.Expr) -> pl.Expr:
    """Return a driver's name without the marks that feeds add to it, such as `#` or `(i)`."""
    return name.str.replace_all(NAME_MARKS, "").str.replace_all(r"\s+", " ").str.strip_chars()


def _recognise(wanted: Mapping[str, Column], found: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Return which names each column may have in a table with these columns."""
    ours = {name: OUR_NAMES.get(name, (name,)) for name in wanted}
    if wanted is not RESULTS:
        return ours
    n_ours, n_theirs = (
        sum(any(name in found for name in names) for names in aliases.values())
        for aliases in (ours, NASCAR_DATA_NAMES)
    )
    return NASCAR_DATA_NAMES if n_theirs > n_ours else ours


def _repeated(found: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the first of `names` that a CSV file's header has twice."""
    again = (re.fullmatch(r"(.*)_duplicated_\d+", name) for name in found)
    return next((match[1] for match in again if match and match[1] in names), None)


def _near(names: Sequence[str], found: Sequence[str]) -> list[str]:
    """Return the names in `found` that are similar to one of `names`."""
    folded = {name.casefold(): name for name in found}
    near: dict[str, None] = {}
    for name in names:
        parts = [part for part in folded if part in name.casefold() and len(part) > 2]
        like = difflib.get_close_matches(name.casefold(), folded, n=2)
        near |= dict.fromkeys(folded[key] for key in (*like, *parts))
    return list(near)[:3]


def _empty(raw: pl.Series) -> pl.Series:
    """Return which rows are empty: null, NaN, or blank text."""
    if raw.dtype.is_float():
        return raw.is_null() | raw.is_nan()
    if isinstance(raw.dtype, pl.String | pl.Categorical | pl.Enum):
        return (raw.cast(pl.String).str.strip_chars() == "").fill_null(value=True)
    return raw.is_null()


def _text(raw: pl.Series) -> pl.Series:
    if raw.dtype.is_float():
        raw = _whole(raw)
    if not (raw.dtype.is_integer() or isinstance(raw.dtype, pl.String | pl.Categorical | pl.Enum | pl.Null)):
        raise TypeError
    text = raw.cast(pl.String).str.strip_chars()
    return text.set(text == "", None)


def _number(raw: pl.Series) -> pl.Series:
    if raw.dtype.is_numeric() or raw.dtype == pl.Null:
        values = raw.cast(pl.Float64)
    elif isinstance(raw.dtype, pl.String | pl.Categorical | pl.Enum):
        values = _text(raw).cast(pl.Float64, strict=False)
    else:
        raise TypeError
    return values.set(~values.is_finite(), None)


def _whole(raw: pl.Series) -> pl.Series:
    values = _number(raw)
    return values.set(values != values.floor(), None).cast(pl.Int64, strict=False)


def _date(raw: pl.Series) -> pl.Series:
    if isinstance(raw.dtype, pl.Date | pl.Datetime | pl.Null):
        return raw.cast(pl.Date)
    if isinstance(raw.dtype, pl.String | pl.Categorical | pl.Enum):
        return _text(raw).str.to_date("%Y-%m-%d", strict=False)
    raise TypeError


_CASTS = {Kind.WHOLE: _whole, Kind.NUMBER: _number, Kind.TEXT: _text, Kind.DATE: _date}
