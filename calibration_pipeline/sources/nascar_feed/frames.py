"""Frames of the feed's entries and results: the rows of a document, cleaned, with their defects named.

A value that nothing important needs is nulled, one that the others determine is corrected, and a row that is
no car is left out. `DefectError` means that the race cannot be used.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import polars as pl
from pydantic import BaseModel

from calibration_pipeline.sources.base import NAME_MARKS, RUNNING_SHARE, DefectError
from calibration_pipeline.sources.names import Nicknames, driver_keys
from calibration_pipeline.sources.nascar_feed.documents import Entry, Race, Result, read_leniently
from calibration_pipeline.sources.quarantine import DID_NOT_START

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
MOST_GIVEN_STARTS = 0.1
"""Largest share of a field whose grid positions are given from the free ones."""
SET_GRID = 0.5
"""Share of the entries with a grid position from which on the others did not qualify."""

type Note = Callable[..., None]
"""`QuarantineLog.add` for one race: entity, consequence, rule, and subject and value by name."""


def result_frame(
    rows: list[Any],
    race_laps: int | None,
    note: Note,
    counts: Counter[str],
    nicknames: Nicknames | None = None,
) -> pl.DataFrame:
    """Return the starters of a race, one row each.

    Parameters
    ----------
    rows : list
        The document's results.
    race_laps : int or None
        Laps that were run.
    note : callable
        Adds a defect to the quarantine.
    counts : collections.Counter
        Gets the numbers of cars and of rows that are left out.
    nicknames : Nicknames, optional
        Table of other spellings, for drivers without an id; that of the package if None.

    Raises
    ------
    DefectError
        If finishes, grid or laps of the race cannot be known.
    """
    parsed = _columns(rows, Result, RESULT_COLUMNS, note)
    cars = parsed.unique(maintain_order=True)
    counts["results_repeated"] += parsed.height - cars.height
    starters = _named(_starters(cars, note), note, nicknames)
    counts["non_starters"] += cars.height - starters.height
    counts["cars"] += starters.height
    counts["cars_without_id"] += starters["feed_driver_id"].null_count()
    if starters.height < 2:
        raise DefectError(f"it must have two cars; {starters.height} started")
    complete = _with_laps(_with_starts(_once(starters, note), note), race_laps, note)
    return _with_status(complete, race_laps, note)


def entry_frame(rows: list[Any], note: Note, nicknames: Nicknames | None = None) -> pl.DataFrame:
    """Return the cars entered for a race that has not run; a grid position that is not set yet is null.

    Once most entries have a grid position, those without one did not qualify and are left out. Of a driver or
    car that is entered twice, the entry with a grid position counts, else the later one.
    """
    parsed = _columns(rows, Entry, ENTRY_COLUMNS, note).unique(maintain_order=True)
    has_driver = (pl.col("driver_id").fill_null(0) > 0) | pl.col("driver_fullname").is_not_null()
    start = pl.col("starting_position")
    named = _named(parsed.filter(has_driver), note, nicknames).with_columns(
        start_position=pl.when(start > 0).then(start), order=pl.int_range(pl.len())
    )
    if named["start_position"].count() > SET_GRID * named.height:
        for driver in named.filter(pl.col("start_position").is_null())["driver"]:
            note("entry", "left out", "it has no grid position, most entries have one", subject=driver)
        named = named.drop_nulls("start_position")
    for column in ("driver_id", "car_number"):
        ranked = named.sort(pl.col("start_position").is_null(), -pl.col("order"))
        kept = pl.concat(
            [ranked.filter(pl.col(column).is_null()), ranked.drop_nulls(column).unique(column, keep="first")]
        )
        for driver, number in named.join(kept, on="order", how="anti").select("driver", "car_number").rows():
            note("entry", "left out", f"{column} is entered twice", subject=driver, value=f"car {number}")
        named = kept.sort("order")
    places = named["start_position"].drop_nulls()
    if places.is_duplicated().any():
        note("value", "nulled", "a grid position is taken twice: the grid counts as not set", subject="grid")
        named = named.with_columns(start_position=pl.lit(None, pl.Int64))
    return named.drop("starting_position", "order")


def green_laps(race: Race, race_laps: int | None, flags: pl.DataFrame | None, note: Note) -> int | None:
    """Return the laps of a race under green: from its flags, else from its number of caution laps."""
    if not race_laps:
        return None
    if flags is not None and not flags.is_empty():
        return flags.filter(pl.col("flag") == "green", pl.col("lap").is_between(1, race_laps)).height
    caution_laps = race.number_of_caution_laps
    if caution_laps is not None and caution_laps > race_laps:
        rule = f"the race has {race_laps} laps"
        note("value", "nulled", rule, subject="number_of_caution_laps", value=caution_laps)
        return None
    return None if caution_laps is None else race_laps - caution_laps


def _columns(
    rows: list[Any], model: type[BaseModel], schema: dict[str, type[pl.DataType]], note: Note
) -> pl.DataFrame:
    """Return rows as columns; wrong fields are null, rows that are no objects are left out."""
    entries = []
    for row in rows:
        entry, wrong = read_leniently(model, row)
        number = row.get("car_number") if isinstance(row, dict) else None
        for rule in wrong:
            what = ("value", "nulled") if entry else ("entry", "left out")
            note(*what, rule, subject=f"car {number}" if number else None)
        entries += [entry] if entry else []
    columns = {name: [getattr(entry, name) for entry in entries] for name in schema}
    return pl.DataFrame(columns, schema=schema, strict=True)


def _named(cars: pl.DataFrame, note: Note, nicknames: Nicknames | None) -> pl.DataFrame:
    """Clean names and add driver_id: the feed's id, else `name:` and the key of the name, else the car's."""
    no_name = ~cars["driver_fullname"].str.contains(r"\p{L}")
    if no_name.any():
        for number, found in cars.filter(no_name).select("car_number", "driver_fullname").rows():
            note("value", "nulled", "a driver's name must have letters", subject=f"car {number}", value=found)
        cars = cars.with_columns(driver_fullname=pl.when(~no_name).then("driver_fullname"))
    name = pl.col("driver_fullname").str.replace_all(NAME_MARKS, "").str.replace_all(r"\s+", " ")
    known = pl.when(pl.col("driver_id") > 0).then(pl.col("driver_id"))
    named = (
        cars.lazy()
        .with_columns(
            feed_driver_id=known,
            driver=name.str.strip_chars().fill_null(""),
            name_id=_name_ids(cars, nicknames),
            car_number=_text_or_null("car_number"),
            team=_text_or_null("team_name"),
            make=_text_or_null("car_make"),
        )
        .with_columns(
            driver_id=pl.coalesce(known.cast(pl.String), "name_id", pl.format("unknown:car {}", "car_number"))
        )
        .drop("driver_fullname", "team_name", "car_make")
        .collect()
    )
    if named["feed_driver_id"].null_count():
        for number in named.filter(pl.col("driver_id").str.starts_with("unknown:"))["car_number"]:
            note("value", "nulled", "it has neither driver id nor name", subject=f"car {number}")
    if named["driver_id"].null_count():
        raise DefectError("a car has neither driver nor number")
    return named


def _name_ids(cars: pl.DataFrame, nicknames: Nicknames | None) -> pl.Series:
    """Return `name:` and the key of each driver's name; null where every car has an id of its own."""
    ids = cars["driver_id"]
    if (ids > 0).all(ignore_nulls=False) and ids.n_unique() == len(ids):
        return pl.Series("name_id", [None] * len(ids), dtype=pl.String)
    key = driver_keys(cars["driver_fullname"], pl.repeat(0, cars.height, eager=True), nicknames)
    return ("name:" + key).set(key == "", None)


def _starters(cars: pl.DataFrame, note: Note) -> pl.DataFrame:
    """Return the cars that started, with finishes 1..n; a single missing one is known from the others."""
    finish = pl.col("finishing_position")
    for driver in _labels(cars.filter(finish == 0)):
        note("entry", "left out", DID_NOT_START, subject=driver)
    started = cars.filter(finish.fill_null(-1) != 0)
    known = started["finishing_position"].drop_nulls()
    lacking = _labels(started.filter(finish.is_null())) if len(known) < started.height else []
    if known.n_unique() == known.max() == known.len():
        for driver in lacking:
            note("entry", "left out", "it has no finish", subject=driver)
        return _as_finish(started.drop_nulls("finishing_position") if lacking else started)
    n = started.height
    absent = sorted(set(range(1, n + 1)) - set(known))
    if len(lacking) == len(absent) == 1:
        note("value", "corrected", "its finish is missing; it is the only free one", subject=lacking[0])
        started = started.with_columns(finish.fill_null(absent[0]))
    elif absent or known.len() != n:
        twice = sorted(set(known.filter(known.is_duplicated())))
        raise DefectError(
            f"its finishes must be 1 to {n}; missing: {_listed(absent)}; taken twice: {_listed(twice)}"
        )
    return _as_finish(started)


def _labels(cars: pl.DataFrame) -> list[str]:
    """Return the driver of each car, else its number, for messages."""
    number = pl.format("car {}", "car_number")
    return cars.select(pl.coalesce("driver_fullname", number)).to_series().to_list()


def _as_finish(cars: pl.DataFrame) -> pl.DataFrame:
    return cars.rename({"finishing_position": "finish_position"})


def _once(cars: pl.DataFrame, note: Note) -> pl.DataFrame:
    """Return the cars with every driver and car number once: later ones are nulled, or known by name."""
    repeated = ~cars["driver_id"].is_first_distinct()
    if repeated.any():
        for driver, number in cars.filter(repeated).select("driver", "car_number").rows():
            note(
                "value", "nulled", "its driver id is another car's too", subject=driver, value=f"car {number}"
            )
        taken = pl.col("name_id").is_in(cars["driver_id"].implode())
        by_name = pl.when(taken).then(None).otherwise("name_id")
        cars = cars.with_columns(
            driver_id=pl.when(repeated)
            .then(pl.coalesce(by_name, pl.format("unknown:car {}", "car_number")))
            .otherwise("driver_id"),
            feed_driver_id=pl.when(~repeated).then("feed_driver_id"),
        )
        if cars["driver_id"].is_duplicated().any() or cars["driver_id"].null_count():
            raise DefectError("a driver must have one car; several share driver, name and car number")
    again = ~cars["car_number"].is_first_distinct() & cars["car_number"].is_not_null()
    if again.any():
        for driver, number in cars.filter(again).select("driver", "car_number").rows():
            note("value", "nulled", "its car number is another car's too", subject=driver, value=number)
        cars = cars.with_columns(car_number=pl.when(~again).then("car_number"))
    return cars.drop("name_id")


def _with_starts(cars: pl.DataFrame, note: Note) -> pl.DataFrame:
    """Return the cars with a grid: the few that lack a position get the free ones, in order of their numbers.

    The finish plays no part in it: the grid is known before the race.
    """
    start = pl.col("starting_position")
    usable = (start > 0) & start.is_first_distinct()
    by_number = (pl.col("car_number").cast(pl.Int64, strict=False), "car_number", "driver_id")
    cars = cars.sort(by_number).with_columns(start_position=pl.when(usable).then(start))
    if not cars["start_position"].null_count():
        return cars.drop("starting_position")
    lacking = cars.filter(pl.col("start_position").is_null())
    if lacking.height > max(1, MOST_GIVEN_STARTS * cars.height):
        raise DefectError(f"its grid is not known; {lacking.height} of {cars.height} cars have no position")
    free = sorted(set(range(1, cars.height + 1)) - set(cars["start_position"].drop_nulls()))
    given = dict(zip(lacking["driver_id"], free, strict=False))
    for driver, found, driver_id in lacking.select("driver", "starting_position", "driver_id").rows():
        rule = f"its grid position is missing or another car's; it gets the free one, {given[driver_id]}"
        note("value", "corrected", rule, subject=driver, value=found)
    filled = pl.col("driver_id").replace_strict(given, default=None, return_dtype=pl.Int64)
    return cars.with_columns(pl.col("start_position").fill_null(filled)).drop("starting_position")


def _with_laps(cars: pl.DataFrame, race_laps: int | None, note: Note) -> pl.DataFrame:
    """Return the cars with their laps; one that lacks them gets those of the car behind it, else ahead."""
    usable = pl.col("laps_completed") <= (race_laps or 2**31)
    cars = cars.sort("finish_position").with_columns(known=pl.when(usable).then("laps_completed"))
    n_unknown = cars["known"].null_count()
    if n_unknown == cars.height:
        raise DefectError("no car has a number of laps")
    if n_unknown:
        for driver, found in cars.filter(pl.col("known").is_null()).select("driver", "laps_completed").rows():
            note("value", "corrected", "its laps are those of the next car", subject=driver, value=found)
    if cars["laps_led"].null_count():
        unknown = cars.filter(pl.col("laps_led").is_null())["driver"].to_list()
        for driver in unknown if len(unknown) < cars.height else ["every car"]:
            note("value", "nulled", "its laps led are not known", subject=driver)
    filled = pl.col("known").fill_null(strategy="backward").fill_null(strategy="forward")
    return cars.with_columns(laps_completed=filled).drop("known")


def _with_status(cars: pl.DataFrame, race_laps: int | None, note: Note) -> pl.DataFrame:
    """Return the cars with their status; one that lacks it runs if it completed most of the race's laps."""
    status = pl.col("finishing_status").str.strip_chars().str.to_lowercase()
    cars = cars.with_columns(status=pl.when(status != "").then(status)).drop("finishing_status")
    for driver in cars.filter(pl.col("status").is_null())["driver"]:
        note("value", "corrected", "its status is missing; its laps decide whether it ran", subject=driver)
    most = race_laps or int(cars["laps_completed"].max() or 0)  # type: ignore[arg-type]
    runs = pl.col("laps_completed") >= RUNNING_SHARE * most
    guessed = pl.when(runs).then(pl.lit("running")).otherwise(pl.lit("unknown"))
    return cars.with_columns(pl.col("status").fill_null(guessed)).with_columns(
        running=pl.col("status") == "running"
    )


def _listed(values: list[int]) -> str:
    return ", ".join(map(str, values)) or "none"


def _text_or_null(column: str) -> pl.Expr:
    text = pl.col(column).str.strip_chars()
    return pl.when(text != "").then(text)
