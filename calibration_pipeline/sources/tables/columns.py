"""Columns of the results and laps tables: which ones are read, and their values with our names and types.

A cell that is not of its column's type becomes null and is named as a defect: one cell never refuses a table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import polars as pl

from calibration_pipeline.sources.base import NAME_MARKS, SourceError
from calibration_pipeline.sources.tables.aliases import (
    describe_missing_columns,
    recognise_columns,
)
from calibration_pipeline.sources.tables.casts import DTYPES, Kind, cast_column, is_day_first, is_empty
from calibration_pipeline.sources.tables.delimited import RAGGED
from calibration_pipeline.sources.tables.reader import TableFile
from calibration_pipeline.tracks.compiled import normalise_name


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
    high: int = 10_000


RESULTS: Mapping[str, Column] = {
    "season": Column(Kind.WHOLE, low=1949, high=2200),
    "round": Column(Kind.WHOLE, low=-99, high=99),
    "race_date": Column(Kind.DATE),
    "driver": Column(Kind.TEXT, required=True),
    "race_name": Column(Kind.TEXT),
    "series": Column(Kind.TEXT),
    "track": Column(Kind.TEXT, required=True),
    "surface": Column(Kind.TEXT),
    "driver_id": Column(Kind.TEXT),
    "car_number": Column(Kind.TEXT),
    "team": Column(Kind.TEXT),
    "make": Column(Kind.TEXT),
    "start_position": Column(Kind.WHOLE, required=True, high=99),
    "finish_position": Column(Kind.WHOLE, required=True, high=99),
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
    "season": Column(Kind.WHOLE, low=1949, high=2200),
    "round": Column(Kind.WHOLE, low=-99, high=99),
    "race_date": Column(Kind.DATE),
    "driver": Column(Kind.TEXT, required=True),
    "lap": Column(Kind.WHOLE, required=True),
    "position": Column(Kind.WHOLE, required=True),
    "lap_time_s": Column(Kind.NUMBER, required=True),
    "flag": Column(Kind.TEXT),
}
# A table must have at least one column of each group.
ONE_OF = (("season", "race_date"), ("round", "race_date"))
LONGEST_TEXT = 1_000
ROW = "row"
"""Number of a row among the rows of its season, which identifies it in `Defect`."""
MOSTLY = 0.5
"""From this share of a column's cells on, the column is the defect and not each cell."""


class Defect(NamedTuple):
    """Cells that are not of their column's type; one cell, or a column of which most cells are not."""

    row: int | None
    column: str
    rule: str
    value: str


class SeasonRows(NamedTuple):
    """Rows of a season, and the defects of their cells."""

    rows: pl.DataFrame
    defects: list[Defect]


class Columns:
    """The columns of one table, found by name and cast to their types.

    Parameters
    ----------
    file : TableFile
    wanted : mapping of str to Column
        `RESULTS` or `LAPS`.
    mapping : mapping of str to str, optional
        A user's names of columns: our name → name in the table.

    Raises
    ------
    SourceError
        If the file cannot be read, or a column is missing (with the nearest names) or occurs twice.
    """

    def __init__(
        self, file: TableFile, wanted: Mapping[str, Column], mapping: Mapping[str, str] | None = None
    ) -> None:
        self._file = file
        self._wanted = wanted
        self._last_read: dict[int, SeasonRows] = {}
        found = list(file.schema)
        self.names = recognise_columns(wanted, found, mapping or {}, file.path)
        self._move_race_names(mapping or {})
        groups: list[Sequence[str]] = [(ours,) for ours, column in wanted.items() if column.required]
        if missing := [group for group in (*ONE_OF, *groups) if not any(n in self.names for n in group)]:
            table = "results" if wanted is RESULTS else "laps"
            raise SourceError(describe_missing_columns(missing, found, self.names.values(), table, file.path))

    def seasons(self) -> list[int]:
        """Return the seasons in the table, ascending; only this column is read."""
        return sorted(self._season_values)

    def read(self, season: int) -> pl.DataFrame:
        """Return the rows of a season, every wanted column with its type, null where the table lacks it."""
        return self.read_checked(season).rows

    def read_checked(self, season: int) -> SeasonRows:
        """Return the rows of a season and the defects of their cells; those of the last season are cached.

        Columns are those of `read` and `ROW`. A row whose season is not given belongs to the season of the
        row above it, which is a defect.

        Raises
        ------
        SourceError
            If a required column can hold no such values, or a text is too long.
        """
        if season not in self._last_read:
            self._last_read = {season: self._read_season(season)}
        return self._last_read[season]

    def _read_season(self, season: int) -> SeasonRows:
        raw = self._raw_rows(season)
        defects: list[Defect] = []
        given = [
            self._cast(raw[self.names[ours]], ours, defects)
            if ours in self.names
            else pl.Series(ours, [None] * raw.height, dtype=DTYPES[column.kind])
            for ours, column in self._wanted.items()
        ]
        rows = pl.DataFrame([*given, pl.int_range(raw.height, eager=True).alias(ROW)])
        if rows["season"].null_count():
            if "season" in self.names:
                rule = "season is not given, it is that of the row above"
                bad = rows.filter(pl.col("season").is_null())[ROW]
                defects = [d for d in defects if d.column != "season"]
                defects += [Defect(row, "season", rule, "") for row in bad]
            rows = rows.with_columns(pl.col("season").fill_null(season))
        if RAGGED in raw.columns:
            rule = "its line has more fields than the header"
            ragged = raw[RAGGED]
            defects += [Defect(int(i), RAGGED, rule, ragged[int(i)]) for i in ragged.is_not_null().arg_true()]
        return SeasonRows(rows, defects)

    def _raw_rows(self, season: int) -> pl.DataFrame:
        """Return the rows of a season with the names and types of the file."""
        names = list(dict.fromkeys(self.names.values()))
        names += [RAGGED] if RAGGED in self._file.schema else []
        values = self._season_values.get(season, [])
        key = pl.col(self._season_name)
        if not self._rows_without_season:
            return self._file.read(names, key.is_in(values, nulls_equal=True))
        # These rows are found by their number alone.
        rows = self._file.read(names)
        seasons = pl.Series(self._season_of_rows)
        return rows.filter(seasons == season)

    @property
    def _season_name(self) -> str:
        return self.names["season"] if "season" in self.names else self.names["race_date"]

    @cached_property
    def _raw_seasons(self) -> pl.Series:
        return self._file.read([self._season_name]).to_series()

    def _as_season(self, raw: pl.Series) -> pl.Series:
        """Return the season of raw values, null where there is none."""
        if "season" in self.names:
            return self._cast(raw, "season", [])
        return self._cast(raw, "race_date", []).dt.year().cast(pl.Int64)

    @cached_property
    def _season_values(self) -> dict[int, list[object]]:
        """The seasons, each with its values in the file."""
        raw = self._raw_seasons.unique(maintain_order=True)
        values: dict[int, list[object]] = {}
        for value, year in zip(raw, self._as_season(raw), strict=True):
            if year is not None:
                values.setdefault(year, []).append(value)
        return values

    @cached_property
    def _rows_without_season(self) -> bool:
        """Whether some rows have no season.

        Raises
        ------
        SourceError
            If most rows have none.
        """
        raw = self._raw_seasons
        known = [value for values in self._season_values.values() for value in values]
        n_without = len(raw) - int(raw.is_in(known).sum()) if known else len(raw)
        if n_without > MOSTLY * len(raw):
            column = self._wanted["season" if "season" in self.names else "race_date"]
            rule = f"{column.kind.value} from {column.low} to {column.high}" if column.low else "dates"
            first = next((repr(v) for v in raw if v not in known), "none")
            raise SourceError(
                f"{self._file.path}: column {self._season_name} must hold {rule}; it does not in "
                f"{n_without} rows, the first has {first}."
            )
        return n_without > 0

    @cached_property
    def _season_of_rows(self) -> pl.Series:
        """The season of every row of the file; of a row without one, that of the nearest row above."""
        season = self._as_season(self._raw_seasons)
        return season.fill_null(strategy="forward").fill_null(strategy="backward")

    @cached_property
    def _is_day_first(self) -> bool:
        """Whether the day comes first in the dates of the whole column: one season may not show it."""
        return is_day_first(self._file.read([self.names["race_date"]]).to_series())

    def _cast(self, raw: pl.Series, ours: str, defects: list[Defect]) -> pl.Series:
        """Return a column, cast to its type and checked; bad cells are null and added to `defects`."""
        column = self._wanted[ours]
        where = f"{self._file.path}: column {raw.name}"
        if raw.dtype == pl.String and int(raw.str.len_bytes().max() or 0) > LONGEST_TEXT:  # type: ignore[arg-type]
            raise SourceError(f"{where} must hold texts of at most {LONGEST_TEXT} bytes; one is longer.")
        rule = f"{ours} must hold {column.kind.value}"
        try:
            day_first = column.kind is Kind.DATE and self._is_day_first
            values = cast_column(
                raw, column.kind, decimal_comma=self._file.decimal_comma, day_first=day_first
            )
        except TypeError:
            if column.required or (ours == "season"):
                raise SourceError(f"{where} must hold {column.kind.value}; it holds {raw.dtype}.") from None
            defects.append(Defect(None, ours, rule, str(raw.dtype)))
            return pl.Series(ours, [None] * len(raw), dtype=DTYPES[column.kind])
        bad = values.is_null()
        if bad.any():
            bad &= ~is_empty(raw)
        if column.kind in (Kind.WHOLE, Kind.NUMBER):
            outside = (~values.is_between(column.low, column.high)).fill_null(value=False)
            values = values.set(outside, None)
            bad |= outside
            rule += f" from {column.low} to {column.high}"
        if bad.any():
            found = raw.filter(bad)
            n_given = len(raw) - int(is_empty(raw).sum())
            if len(found) > 1 and len(found) > MOSTLY * n_given:
                defects.append(Defect(None, ours, rule, f"{found[0]!r} and {len(found) - 1} more"))
            else:
                cells = zip(bad.arg_true(), found, strict=True)
                defects += [Defect(int(row), ours, rule, str(value)) for row, value in cells]
        return values.alias(ours)

    def _move_race_names(self, mapping: Mapping[str, str]) -> None:
        """Take a column `race` of texts for the race's name, and not for its number."""
        name = self.names.get("round")
        if name is None or "round" in mapping or normalise_name(name) != "race":
            return
        values = self._file.read([name]).to_series().drop_nulls().unique()
        numbers = cast_column(values, Kind.WHOLE, decimal_comma=False) if _is_castable(values) else None
        if numbers is None or numbers.null_count() > MOSTLY * len(values):
            del self.names["round"]
            self.names.setdefault("race_name", name)


def _is_castable(values: pl.Series) -> bool:
    return values.dtype.is_numeric() or isinstance(values.dtype, pl.String | pl.Categorical | pl.Enum)


def plain_name(name: pl.Expr) -> pl.Expr:
    """Return a driver's name without the marks that feeds add to it, such as `#` or `(i)`."""
    return name.str.replace_all(NAME_MARKS, "").str.replace_all(r"\s+", " ").str.strip_chars()
