"""Casts of a table's raw columns to their types; a value that is not of its type becomes null."""

from collections.abc import Callable
from enum import Enum

import polars as pl

from calibration_pipeline.sources.tables.reader import NULL_VALUES

TEXTS = (pl.String, pl.Categorical, pl.Enum)
TIME_OF_DAY = r"(?i)[T ]+\d{1,2}:\d{2}.*$"
WEEKDAY = r"(?i)^(mon|tues?|wed(nes)?|thu(rs)?|fri|sat(ur)?|sun)(day)?\.?,?\s+"
DATE_FORMATS = ("%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%B %d %Y", "%b %d %Y", "%d %B %Y", "%d %b %Y", "%d.%m.%Y")
# American dates, then those of which the day comes first.
SLASH_FORMATS = (("%m/%d/%Y", "%m-%d-%Y", "%m/%d/%y"), ("%d/%m/%Y", "%d-%m-%Y", "%d/%m/%y"))


class Kind(Enum):
    """Data types of a table's columns; a member's value is its name in messages."""

    WHOLE = "whole numbers"
    NUMBER = "numbers"
    TEXT = "text"
    DATE = "dates"


DTYPES = {Kind.WHOLE: pl.Int64(), Kind.NUMBER: pl.Float64(), Kind.TEXT: pl.String(), Kind.DATE: pl.Date()}


def cast_column(
    raw: pl.Series, kind: Kind, *, decimal_comma: bool = False, day_first: bool = False
) -> pl.Series:
    """Return a column with the type of `kind`, null where a value is empty or of another type.

    Parameters
    ----------
    raw : polars.Series
    kind : Kind
    decimal_comma : bool
        Whether a comma in a number is a decimal point.
    day_first : bool
        Whether the day comes before the month in dates such as 1/2/2025, as `is_day_first` finds it.

    Raises
    ------
    TypeError
        If the column's type can never hold such values, as a list can hold no number.
    """
    if decimal_comma and kind in (Kind.WHOLE, Kind.NUMBER) and isinstance(raw.dtype, TEXTS):
        raw = raw.cast(pl.String).str.replace(",", ".", literal=True)
    values = _date(raw, day_first=day_first) if kind is Kind.DATE else _CASTS[kind](raw)
    return values.cast(DTYPES[kind])


def is_day_first(raw: pl.Series) -> bool:
    """Return whether the day comes before the month in dates such as 1/2/2025.

    The order that reads more distinct values of the column counts; the American one if both read as many.
    """
    if not isinstance(raw.dtype, TEXTS):
        return False
    plain = _plain_dates(_text(raw).unique().drop_nulls())
    slashed = plain.filter(_parse_dates(plain, DATE_FORMATS).is_null())
    american, european = (_parse_dates(slashed, formats).null_count() for formats in SLASH_FORMATS)
    return european < american


def is_empty(raw: pl.Series) -> pl.Series:
    """Return which values are empty: null, NaN, blank text or a text for missing values."""
    if raw.dtype.is_float():
        return raw.is_null() | raw.is_nan()
    if isinstance(raw.dtype, TEXTS):
        return _text(raw).is_null()
    return raw.is_null()


def _text(raw: pl.Series) -> pl.Series:
    if raw.dtype.is_float():
        raw = _whole(raw)
    if not (raw.dtype.is_integer() or isinstance(raw.dtype, (*TEXTS, pl.Null))):
        raise TypeError
    text = raw.cast(pl.String).str.strip_chars()
    return text.set(text.is_in(NULL_VALUES), None)


def _number(raw: pl.Series) -> pl.Series:
    if raw.dtype.is_numeric() or raw.dtype == pl.Null:
        values = raw.cast(pl.Float64)
    elif isinstance(raw.dtype, TEXTS):
        values = _text(raw).cast(pl.Float64, strict=False)
    else:
        raise TypeError
    return values.set(~values.is_finite(), None)


def _whole(raw: pl.Series) -> pl.Series:
    values = _number(raw)
    return values.set(values != values.floor(), None).cast(pl.Int64, strict=False)


def _date(raw: pl.Series, *, day_first: bool) -> pl.Series:
    if isinstance(raw.dtype, pl.Date | pl.Datetime | pl.Null):
        return raw.cast(pl.Date)
    if raw.dtype.is_integer():
        raw = raw.cast(pl.String)
    if not isinstance(raw.dtype, TEXTS):
        raise TypeError
    text = _text(raw).alias("text")
    once = text.unique().drop_nulls()
    dates = _parse_dates(_plain_dates(once), (*DATE_FORMATS, *SLASH_FORMATS[day_first]))
    table = pl.DataFrame({"text": once, "date": dates}, schema_overrides={"date": pl.Date})
    return text.to_frame().join(table, on="text", how="left", maintain_order="left")["date"]


def _plain_dates(text: pl.Series) -> pl.Series:
    """Return texts of dates without time, weekday and commas."""
    return text.str.replace(TIME_OF_DAY, "").str.replace(WEEKDAY, "").str.replace_all(r"[,.]?\s+", " ")


def _parse_dates(text: pl.Series, formats: tuple[str, ...]) -> pl.Series:
    dates = pl.Series([None] * len(text), dtype=pl.Date)
    for form in formats:
        parsed = text.str.to_date(form, strict=False)
        # A year of two digits is read literally by a format with four.
        dates = dates.fill_null(parsed.set((parsed.dt.year() < 1900).fill_null(value=False), None))
    return dates


_CASTS: dict[Kind, Callable[[pl.Series], pl.Series]] = {
    Kind.WHOLE: _whole,
    Kind.NUMBER: _number,
    Kind.TEXT: _text,
}
