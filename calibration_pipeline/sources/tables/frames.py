"""Races from a season's rows with our names and types: numbered, joined to tracks, checked, completed.

Impossible values are refused, with race and values; irregular but possible values are counted. The docstrings
below describe the defaults.
"""

from collections import Counter
from collections.abc import Mapping

import polars as pl

from calibration_pipeline.schemas.frames import FLAGS
from calibration_pipeline.sources.base import SourceError
from calibration_pipeline.sources.laps import attach_fastest_laps, attach_laps
from calibration_pipeline.sources.names import Nicknames, driver_keys, lap_driver_keys
from calibration_pipeline.sources.quarantine import QuarantineLog
from calibration_pipeline.sources.tables.columns import plain_name
from calibration_pipeline.stats.ranking import missing_positions
from calibration_pipeline.tracks import CompiledTracks, UnknownTrackError

# One value a race.
RACE_COLUMNS = (
    "track",
    "surface",
    "race_date",
    "race_name",
    "race_laps",
    "scheduled_laps",
    "green_laps",
    "n_cautions",
)
DIRT = "dirt"
RUNNING = "running"
# Ran to the end and lost the position afterwards: no retirement.
DISQUALIFIED = "disqualified"
# Without a status, a car counts as running from this share of the race's laps on. In Cup races since 2013
# this rule is right for 95 % of cars, and its errors of both types are equally frequent.
RUNNING_SHARE = 0.9
UNKNOWN_STATUS = "unknown"


def number_races(
    rows: pl.DataFrame, where: str, counts: Counter[str], nicknames: Nicknames | None = None
) -> pl.DataFrame:
    """Add the keys of race and driver to each row.

    Rows that are equal in every column count once. Without rounds, a season's races are numbered by date.
    Without driver ids, the name identifies a driver, as `sources.names` does. A grid
    position of 0 counts as not set.

    Returns
    -------
    polars.DataFrame
        The rows with round, race_id and race_order (both 100 * season + round), driver_id, driver_key (the
        name's key), and columns of the race filled in all its rows.

    Raises
    ------
    SourceError
        If a row has no track, driver or race, or a race has two values of a race column.
    """
    once = rows.unique(maintain_order=True)
    counts["results_repeated"] += rows.height - once.height
    if once["round"].null_count() == once.height:
        _refuse_empty(once, "race_date", where)
        once = once.with_columns(round=pl.col("race_date").rank("dense").cast(pl.Int64))
    for column in ("round", "track", "driver"):
        _refuse_empty(once, column, where)
    for column in RACE_COLUMNS:
        distinct = pl.col(column).unique().drop_nulls().sort()
        torn = once.group_by("season", "round").agg(distinct).filter(pl.col(column).list.len() > 1)
        for season, round_, found in torn.sort("round").head(1).iter_rows():
            values = ", ".join(str(value) for value in found)
            raise SourceError(
                f"{where}, race {round_} of {season}: a race must have one {column}; it has {values}."
            )
    order = 100 * pl.col("season") + pl.col("round")
    name = plain_name(pl.col("driver"))
    key = driver_keys(once["driver"], once.select(order).to_series(), nicknames)
    start = pl.col("start_position")
    return once.with_columns(
        *(pl.col(column).drop_nulls().first().over("round") for column in RACE_COLUMNS),
        race_id=order,
        race_order=order,
        driver=name,
        driver_key=key,
        driver_id=pl.coalesce("driver_id", key),
        start_position=pl.when(start > 0).then(start),
    )


def locate_races(rows: pl.DataFrame, tracks: CompiledTracks, where: str, log: QuarantineLog) -> pl.DataFrame:
    """Add track, archetype and scheduled laps; leave out races of no archetype or of an unknown track.

    Where the table lacks the scheduled laps, those of the track's usual race in the catalogue are used. They
    are known before the race, so they never come from the laps that were run.

    Returns
    -------
    polars.DataFrame
        The rows of the races kept, with track_id, archetype and scheduled_laps; `log` gets the others.
    """
    races = rows.unique("race_order", keep="first").sort("race_order")
    found: list[tuple[int, str, str, int]] = []
    for race in races.iter_rows(named=True):
        name = ", ".join(filter(None, (race["race_name"], race["track"])))
        label = f"{race['season']} race {race['round']} ({name})"
        try:
            track = tracks.find(race["season"], name=race["track"])
        except UnknownTrackError as error:
            reason = str(error).rstrip(".")
        else:
            if track.archetype is not None and (race["surface"] or "").lower() != DIRT:
                laps = race["scheduled_laps"] or track.scheduled_laps
                found.append((race["race_order"], track.track_id, str(track.archetype), laps))
                continue
            reason = f"{track.name} fits no archetype" if track.archetype is None else "it was run on dirt"
        log.add("race", "left out", reason, place=where, race_id=race["race_id"], race=label)
    schema = {
        "race_order": pl.Int64,
        "track_id": pl.String,
        "archetype": pl.String,
        "scheduled_laps": pl.Int64,
    }
    located = pl.DataFrame(found, schema=schema, orient="row")
    return rows.drop("scheduled_laps").join(located, on="race_order", how="inner", maintain_order="left")


def starters(rows: pl.DataFrame, where: str, counts: Counter[str]) -> pl.DataFrame:
    """Return the cars that started races that have run, checked.

    A row without a finish, or with finish 0, did not start.

    Raises
    ------
    SourceError
        If a driver or car occurs twice in a race, finishes are not 1..n, a grid position is missing or occurs
        twice, or a car has no number of laps or more laps than the race.
    """
    cars = rows.filter(pl.col("finish_position") > 0)
    counts["non_starters"] += rows.height - cars.height
    counts["cars"] += cars.height
    for column in ("driver_id", "car_number", "finish_position", "start_position"):
        _refuse_repeats(cars, column, where)
    for (order,), field in cars.group_by("race_order", maintain_order=True):
        if missing := missing_positions(field["finish_position"].to_numpy()):
            raise SourceError(
                f"{_race(where, order)}: finish_position must be 1..{field.height}; "
                f"{', '.join(map(str, missing))} are missing."
            )
    for column in ("start_position", "laps_completed"):
        _refuse_empty(cars, column, where)
    _refuse(
        cars.filter(pl.col("laps_completed") > pl.col("race_laps")),
        "laps_completed must be at most race_laps, {race_laps}; it is {laps_completed} for {driver}",
        where,
    )
    return cars


def entries(rows: pl.DataFrame, where: str) -> pl.DataFrame:
    """Return the cars entered for one race that has not run.

    Raises
    ------
    SourceError
        If a driver, car or grid position occurs twice, or only some cars have a grid position.
    """
    for column in ("driver_id", "car_number", "start_position"):
        _refuse_repeats(rows, column, where)
    if rows["start_position"].null_count() not in (0, rows.height):
        _refuse_empty(rows, "start_position", where)
    return rows


def complete(cars: pl.DataFrame, counts: Counter[str]) -> pl.DataFrame:
    """Fill missing values of a car's race, and count irregular ones.

    `race_laps` are the most laps that a car completed. Without a status a car is running if it completed
    `RUNNING_SHARE` of them, else its status is 'unknown'. A car that is disqualified after the race keeps its
    official finish, and counts as running. Other missing values stay null.
    """
    most_laps = pl.col("laps_completed").max().over("race_order")
    race_laps = pl.col("race_laps").fill_null(pl.when(most_laps > 0).then(most_laps))
    guessed = pl.when(pl.col("laps_completed") >= RUNNING_SHARE * pl.col("race_laps"))
    counts["cars_without_status"] += cars["status"].null_count()
    done = (
        cars.sort("race_order", "finish_position")
        .with_columns(race_laps=race_laps)
        .with_columns(
            pl.col("status")
            .str.to_lowercase()
            .fill_null(guessed.then(pl.lit(RUNNING)).otherwise(pl.lit(UNKNOWN_STATUS)))
        )
        .with_columns(running=pl.col("status").is_in([RUNNING, DISQUALIFIED]))
    )
    by_race = done.group_by("race_order").agg(
        off=pl.col("laps_led").sum() != pl.col("race_laps").first(),
        known=pl.col("laps_led").is_not_null().all(),
        gaps=pl.col("start_position").max() > pl.len(),
        moved_back=(pl.col("laps_completed") > pl.col("laps_completed").cum_min().shift(1)).sum(),
    )
    counts["races_laps_led_mismatch"] += by_race.filter(pl.col("known") & pl.col("off")).height
    counts["races_grid_with_gaps"] += by_race.filter(pl.col("gaps")).height
    counts["cars_ranked_behind_fewer_laps"] += int(by_race["moved_back"].sum())
    counts["cars_without_rating"] += done["rating"].null_count()
    return done


def add_laps(
    cars: pl.DataFrame,
    laps: pl.DataFrame,
    where: str,
    counts: Counter[str],
    nicknames: Nicknames | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Join laps to the cars that drove them, and fill missing results from the laps.

    A lap belongs to the driver of that name in the race. The flag of a lap is that of its first row with a
    flag. Green laps, cautions and fastest laps are counted from flagged laps where the table lacks them.

    Returns
    -------
    results : polars.DataFrame
        `cars`, completed.
    telemetry : polars.DataFrame
        Columns of `LapTelemetry`.

    Raises
    ------
    SourceError
        If a lap has no driver or number, or a flag is not one of `FLAGS`.
    """
    laps = laps.with_columns(
        pl.col("flag").str.to_lowercase(), driver_key=lap_driver_keys(laps, cars, nicknames)
    )
    for column in ("round", "driver", "lap"):
        _refuse_empty(laps, column, where)
    if strange := sorted(set(laps["flag"].drop_nulls()) - set(FLAGS)):
        raise SourceError(f"{where}: column flag must hold {', '.join(FLAGS)}; it has {strange[0]!r}.")
    # `attach_laps` identifies drivers by number.
    numbered = cars.with_columns(feed_driver_id=pl.col("driver_key").rank("dense").cast(pl.Int64))
    keys = ["round", "driver_key"]
    driven = laps.join(numbered.select(*keys, "feed_driver_id"), on=keys, maintain_order="left").select(
        "round", "feed_driver_id", "lap", pl.col("position").fill_null(0), "lap_time_s", "flag",
        car_number=pl.lit(None, pl.String),
    )  # fmt: skip
    counts["laps_without_result"] += laps.height - driven.height
    by_round = driven.partition_by("round", as_dict=True, include_key=False)
    results: list[pl.DataFrame] = []
    telemetry: list[pl.DataFrame] = []
    for race in numbered.partition_by("race_order", maintain_order=True):
        first = race.row(0, named=True)
        own = by_round.get((first["round"],), driven.clear().drop("round"))
        flags = own.group_by("lap").agg(pl.col("flag").drop_nulls().first()).sort("lap")
        joined = attach_laps(race, own.drop("flag"), flags, counts)
        counts["races_without_laps"] += joined.is_empty()
        results.append(_filled_from_laps(race, joined, flags))
        of_race = (
            pl.lit(first[name], race.schema[name]).alias(name) for name in ("race_id", "season", "track_id")
        )
        telemetry.append(joined.with_columns(of_race))
    return pl.concat(results), pl.concat(telemetry).sort("race_id", "driver_id", "lap")


def _filled_from_laps(race: pl.DataFrame, laps: pl.DataFrame, flags: pl.DataFrame) -> pl.DataFrame:
    """Fill fastest laps, green laps and cautions of one race from its flagged laps."""
    race_laps = race["race_laps"][0]
    known = flags.filter(pl.col("flag").is_not_null(), pl.col("lap").is_between(1, race_laps or 0))
    counted = attach_fastest_laps(race.rename({"fastest_laps": "given"}), laps, race_laps)
    filled = counted.with_columns(fastest_laps=pl.coalesce("given", "fastest_laps")).select(race.columns)
    if known.is_empty():
        return filled
    yellow = known["flag"] == "yellow"
    return filled.with_columns(
        pl.col("green_laps").fill_null(int((known["flag"] == "green").sum())),
        pl.col("n_cautions").fill_null(int((yellow & ~yellow.shift(1, fill_value=False)).sum())),
    )


def _race(where: str, race_order: int) -> str:
    return f"{where}, race {race_order % 100} of {race_order // 100}"


def _refuse(bad: pl.DataFrame, rule: str, where: str) -> None:
    """Raise with the first row of `bad`, if there is one."""
    if not bad.is_empty():
        row: Mapping[str, object] = bad.sort("race_order").row(0, named=True)
        raise SourceError(f"{_race(where, bad['race_order'].min())}: {rule.format(**row)}.")  # type: ignore[arg-type]


def _refuse_repeats(cars: pl.DataFrame, column: str, where: str) -> None:
    known = cars.filter(pl.col(column).is_not_null())
    repeated = known.filter(pl.struct("race_order", column).is_duplicated()).sort("race_order", column)
    if not repeated.is_empty():
        order, value = repeated.select("race_order", column).row(0)
        drivers = repeated.filter(pl.col("race_order") == order, pl.col(column) == value)["driver"].to_list()
        raise SourceError(
            f"{_race(where, order)}: {column} {value} occurs {len(drivers)} times ({', '.join(drivers)})."
        )


def _refuse_empty(rows: pl.DataFrame, column: str, where: str) -> None:
    empty = rows.filter(pl.col(column).is_null())
    if empty.is_empty():
        return
    first = empty.row(0, named=True)
    race = (
        f", race {first['round']} of {first['season']}" if first["round"] else f", season {first['season']}"
    )
    who = f", the first that of {first['driver']}" if first["driver"] else ""
    raise SourceError(f"{where}{race}: {column} is empty in {empty.height} rows{who}.")
