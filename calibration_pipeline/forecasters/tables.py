"""Tables of a forecaster: the columns that name races and cars, and cells as numbers, without reading rows.

`sources.tables.reader` opens the file: CSV with any delimiter and encoding, Parquet or Excel. The forms of
forecasts are in the other modules of the package.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import polars as pl
from polars.exceptions import PanicException, PolarsError

from calibration_pipeline.forecasters import ForecasterError
from calibration_pipeline.sources.base import SourceError
from calibration_pipeline.sources.tables.aliases import describe_near
from calibration_pipeline.sources.tables.reader import MAX_CELLS, TableFile
from calibration_pipeline.tracks.compiled import normalise_name

KEYS: Mapping[str, tuple[str, ...]] = {
    "race_id": (),
    "season": ("year", "race_season", "season_year"),
    "round": ("race_number", "race_num", "race_no", "race_round", "rnd"),
}
LABELS: Mapping[str, tuple[str, ...]] = {
    "driver": ("driver_name", "driver_fullname", "name", "full_name"),
    "driver_id": (),
    "car_number": ("car", "car_no", "car_num", "number", "num"),
}
SHOWN_COLUMNS = 20
TRUE, FALSE = ("true", "1", "yes"), ("false", "0", "no")
HIGHER_IS_BETTER = "higher_is_better"
DUPLICATED = re.compile(r"(.*)_duplicated_\d+")
"""Name that Polars gives to a column whose name occurs before."""


@dataclass(frozen=True)
class ForecastTable:
    """One table of a forecaster.

    Attributes
    ----------
    path : str
        Its name in messages, without credentials.
    rows : polars.LazyFrame
        Cells of a text file are text.
    decimal_comma : bool
        Whether a comma in a number is a decimal point.
    attributes : mapping of str to str
        Metadata of the file, such as `higher_is_better`.
    """

    path: str
    rows: pl.LazyFrame
    decimal_comma: bool = False
    attributes: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def schema(self) -> dict[str, pl.DataType]:
        """Columns and their types."""
        return dict(self.rows.collect_schema())

    @cached_property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(collect(self.rows.select(pl.len()), self.path).item())

    @cached_property
    def keys(self) -> dict[str, str]:
        """Column of the race's `race_id`, or of `season` and `round`; of all three if the table has them.

        A column `race` is the round if it stands beside a season alone, and else the race_id. Beside season
        and round it is an index, and no key.

        Raises
        ------
        ForecasterError
            If the table does not name its races.
        """
        found = self.find(KEYS)
        race = self.find({"race": ()})
        if race and "season" in found and "round" not in found:
            found["round"] = race["race"]
        elif race and "season" not in found and "race_id" not in found:
            found["race_id"] = race["race"]
        if "race_id" not in found and not {"season", "round"} <= set(found):
            near = describe_near(["season", "round", "race_id"], list(self.schema))
            raise ForecasterError(
                f"{self.path} must name its races by season and round, or by race_id; it has "
                f"{self.shown_columns}{near}."
            )
        if not {"season", "round"} <= set(found):
            found.pop("season", None)
            found.pop("round", None)
        return found

    @cached_property
    def labels(self) -> dict[str, str]:
        """Columns that may name the cars, the first one the likeliest."""
        return self.find(LABELS)

    @property
    def shown_columns(self) -> str:
        """Names of the first columns."""
        names = list(self.schema)
        return ", ".join(names[:SHOWN_COLUMNS]) + (", ..." if len(names) > SHOWN_COLUMNS else "")

    def find(self, wanted: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """Return the table's name of each wanted column that it has; case and punctuation do not count.

        Raises
        ------
        ForecasterError
            If two columns have one name.
        """
        found: dict[str, str] = {}
        for ours, aliases in wanted.items():
            for alias in (ours, *aliases):
                hits = [name for name in self.schema if normalise_name(name) == normalise_name(alias)]
                hits += [
                    name for name in self.schema if (again := DUPLICATED.fullmatch(name)) and again[1] in hits
                ]
                if len(hits) > 1 and alias not in hits:
                    raise ForecasterError(f"{self.path}: columns {' and '.join(hits)} have one name.")
                if any(DUPLICATED.fullmatch(name) for name in hits):
                    raise ForecasterError(f"{self.path}: column {hits[0]} occurs twice.")
                if hits and (name := alias if alias in hits else hits[0]) not in found.values():
                    found[ours] = name
                    break
        return found

    def number(self, name: str) -> pl.Expr:
        """Return a column as floats, null where a cell is empty or no number."""
        return self.parse(pl.col(name), self.schema[name])

    def parse(self, cells: pl.Expr, dtype: pl.DataType) -> pl.Expr:
        """Return cells of a type of the file as floats, null where a cell is empty or no finite number."""
        if not (dtype.is_numeric() or dtype == pl.Boolean):
            text = cells.cast(pl.String).str.strip_chars()
            cells = text.str.replace(",", ".", literal=True) if self.decimal_comma else text
        number = cells.cast(pl.Float64, strict=False)
        return pl.when(number.is_finite()).then(number)

    def whole(self, name: str) -> pl.Expr:
        """Return a column as integers, null where a cell is no whole number."""
        number = self.number(name)
        return pl.when(number == number.floor()).then(number).cast(pl.Int64, strict=False)

    def text(self, name: str) -> pl.Expr:
        """Return a column as text without outer blanks; a whole float such as 7.0 is `7`."""
        cells = pl.col(name).cast(pl.String).str.strip_chars()
        if self.schema[name].is_float():
            cells = cells.str.replace(r"\.0$", "")
        return pl.when(cells != "").then(cells)

    def key_columns(self) -> list[pl.Expr]:
        """Return the race keys as integer columns `race_id`, `season` and `round`."""
        return [self.whole(theirs).alias(ours) for ours, theirs in self.keys.items()]

    def collect(self, *columns: pl.Expr) -> pl.DataFrame:
        """Return columns of all rows; a large text file is read in batches.

        Raises
        ------
        ForecasterError
            If the file is damaged or too large.
        """
        if self.n_rows * len(columns) > MAX_CELLS:
            raise ForecasterError(
                f"{self.path} is too large: rows times columns must be at most {MAX_CELLS:,}."
            )
        return collect(self.rows.select(*columns), self.path)

    def higher_is_better(self) -> bool | None:
        """Return the direction of scores that the file's metadata or a column states, None without it.

        Raises
        ------
        ForecasterError
            If it is neither true nor false, or both.
        """
        stated = {self.attributes[HIGHER_IS_BETTER]} if HIGHER_IS_BETTER in self.attributes else set()
        if column := self.find({HIGHER_IS_BETTER: ()}).get(HIGHER_IS_BETTER):
            values = self.rows.select(self.text(column).alias("value")).unique()
            stated |= set(collect(values, self.path)["value"].drop_nulls())
        plain = {str(value).lower().removesuffix(".0") for value in stated}
        if not plain:
            return None
        if not (plain <= set(TRUE) or plain <= set(FALSE)):
            raise ForecasterError(
                f"{self.path}: {HIGHER_IS_BETTER} must be true or false throughout; got "
                f"{', '.join(sorted(stated)[:3])}."
            )
        return plain <= set(TRUE)


def open_table(address: str) -> ForecastTable:
    """Open a table of a forecaster; only its header is read.

    Parameters
    ----------
    address : str
        Path or address of a file that `TableFile` reads.

    Raises
    ------
    ForecasterError
        If the file does not exist, is too large, or is not a table of its format.
    """
    try:
        file = TableFile(address)
        rows = file.rows
        attributes = file.attributes
    except SourceError as error:
        raise ForecasterError(str(error)) from error.__cause__
    schema = collect(rows.head(0), file.path).schema
    if not schema:
        raise ForecasterError(f"{file.path} has no columns.")
    return ForecastTable(file.path, rows, file.decimal_comma, attributes)


def collect(rows: pl.LazyFrame, path: str) -> pl.DataFrame:
    """Return the rows of a scan, read in batches.

    Raises
    ------
    ForecasterError
        If the file is damaged; the message names it.
    """
    try:
        return rows.collect(engine="streaming")
    except (PolarsError, PanicException) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ForecasterError(f"{path} is not a table: {reason.rstrip('.')}.") from error
