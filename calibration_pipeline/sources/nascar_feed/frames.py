"""Frames of the feed's entries and results: cleaned, checked and counted."""

from collections import Counter
from collections.abc import Sequence

import polars as pl

from calibration_pipeline.sources.base import NAME_MARKS, SourceError
from calibration_pipeline.sources.names import driver_keys
from calibration_pipeline.sources.nascar_feed.documents import Entry, FinishedRace, Result
from calibration_pipeline.stats.ranking import missing_positions

ENTRY_COLUMNS = {
    "car_number": pl.String,
    "driver_fullname": pl.String,
    "driver_id": pl.Int64,
    "team_name": pl.String,
    "car_make": pl.String,
    "starting_position": pl.Int64,
}
RESULT_COLUMNS = ENTRY_COLUMNS | {
    "finishing_position": pl.Int64,
    "laps_completed": pl.Int64,
    "laps_led": pl.Int64,
    "finishing_status": pl.String,
}


def result_frame(results: Sequence[Result], where: str, counts: Counter[str]) -> pl.DataFrame:
    """Return the starters of a race, one row each; add rows that are left out to `counts`.

    Raises
    ------
    SourceError
        If a driver, car, start or finish position occurs twice, a finish is skipped, or a starter has no
        status or name.
    """
    rows = _columns(results, RESULT_COLUMNS)
    cars = rows.unique(maintain_order=True)
    starters = cars.filter(pl.col("finishing_position") > 0)
    counts["results_repeated"] += rows.height - cars.height
    counts["non_starters"] += cars.height - starters.height
    counts["cars"] += starters.height
    frame = _named(starters, where).with_columns(
        pl.col("starting_position").alias("start_position"),
        pl.col("finishing_position").alias("finish_position"),
        pl.col("finishing_status").str.strip_chars().str.to_lowercase().alias("status"),
    )
    frame = frame.with_columns(running=pl.col("status") == "running").select(
        pl.exclude("starting_position", "finishing_position", "finishing_status")
    )
    for column in ("driver_id", "car_number", "finish_position", "start_position"):
        _refuse_repeats(frame, column, where)
    missing = missing_positions(frame["finish_position"].to_numpy())
    if missing or frame.is_empty():
        raise SourceError(f"{where}: finish positions must be 1..{frame.height}; {missing} are missing.")
    if nameless := frame.filter(pl.col("status").fill_null("") == "")["car_number"].to_list():
        raise SourceError(f"{where}: every starter must have a finishing_status; cars {nameless} have none.")
    counts["cars_without_id"] += frame["feed_driver_id"].null_count()
    return frame


def entry_frame(entries: Sequence[Entry], where: str) -> pl.DataFrame:
    """Return the cars entered for a race that has not run; a grid position that is not set yet is null.

    Raises
    ------
    SourceError
        If a driver or car occurs twice. Entries without a driver are left out.
    """
    rows = _columns(entries, ENTRY_COLUMNS).unique(maintain_order=True)
    has_driver = (pl.col("driver_id").fill_null(0) > 0) | pl.col("driver_fullname").is_not_null()
    start = pl.col("starting_position")
    frame = _named(rows.filter(has_driver), where).select(
        pl.exclude("starting_position"), start_position=pl.when(start > 0).then(start)
    )
    for column in ("driver_id", "car_number"):
        _refuse_repeats(frame, column, where)
    return frame


def green_laps(race: FinishedRace, flags: pl.DataFrame | None) -> int | None:
    """Return the laps of a race under green: from its flags, else from its number of caution laps."""
    if not race.actual_laps:
        return None
    if flags is not None and not flags.is_empty():
        return flags.filter(pl.col("flag") == "green", pl.col("lap").is_between(1, race.actual_laps)).height
    return None if race.number_of_caution_laps is None else race.actual_laps - race.number_of_caution_laps


def _columns(entries: Sequence[Entry], schema: dict[str, type[pl.DataType]]) -> pl.DataFrame:
    """Return models as columns."""
    columns = {name: [getattr(entry, name) for entry in entries] for name in schema}
    return pl.DataFrame(columns, schema=schema, strict=True)


def _named(cars: pl.DataFrame, where: str) -> pl.DataFrame:
    """Clean names and add driver_id: the feed's id, else `name:` and the key of the name."""
    text = pl.col("driver_fullname").str.replace_all(NAME_MARKS, "").str.replace_all(r"\s+", " ")
    name = text.str.strip_chars()
    key = driver_keys(cars["driver_fullname"], pl.repeat(0, cars.height, eager=True))
    known = pl.when(pl.col("driver_id") > 0).then(pl.col("driver_id"))
    named = cars.with_columns(
        feed_driver_id=known,
        driver=name.fill_null(""),
        driver_id=pl.coalesce(known.cast(pl.String), pl.lit("name:") + key),
        car_number=pl.col("car_number").str.strip_chars(),
        team=_text_or_null("team_name"),
        make=_text_or_null("car_make"),
    ).drop("driver_fullname", "team_name", "car_make")
    nobody = named.filter(pl.col("driver_id").is_null() | (pl.col("driver_id") == "name:"))
    if not nobody.is_empty():
        raise SourceError(f"{where}: cars {nobody['car_number'].to_list()} have neither driver id nor name.")
    return named


def _text_or_null(column: str) -> pl.Expr:
    text = pl.col(column).str.strip_chars()
    return pl.when(text != "").then(text)


def _refuse_repeats(frame: pl.DataFrame, column: str, where: str) -> None:
    repeated = frame.filter(pl.col(column).is_duplicated()).sort(column)
    if not repeated.is_empty():
        value = repeated[column][0]
        cars = repeated.filter(pl.col(column) == value)["car_number"].to_list()
        raise SourceError(f"{where}: {column} {value} occurs {len(cars)} times (cars {', '.join(cars)}).")
