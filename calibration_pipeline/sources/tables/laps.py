"""Laps of a table, joined to the cars that drove them; missing results are filled from the laps."""

from collections import Counter

import polars as pl

from calibration_pipeline.schemas.frames import FLAGS
from calibration_pipeline.sources.laps import attach_fastest_laps, attach_laps
from calibration_pipeline.sources.names import Nicknames, lap_driver_keys
from calibration_pipeline.sources.quarantine import QuarantineLog
from calibration_pipeline.sources.tables.columns import Defect, SeasonRows

FLAG_CODES = {"1": "green", "2": "yellow", "3": "red", "4": "checkered", "8": "warm_up", "caution": "yellow"}
"""Codes of NASCAR's timing feed, and other words for flags."""


def add_laps(
    cars: pl.DataFrame,
    season_rows: SeasonRows,
    where: str,
    log: QuarantineLog,
    counts: Counter[str],
    nicknames: Nicknames | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Join laps to the cars that drove them, and fill missing results from the laps.

    A lap belongs to the driver of that name in the race, which is found by the round or the date that the
    race has in the tables; by both where two races have one round. Rows without driver, number or race are
    left out. The flag of a lap is that of its first row with a flag. Green laps, cautions and fastest laps
    are counted from flagged laps where the table lacks them.

    Returns
    -------
    results : polars.DataFrame
        `cars`, completed.
    telemetry : polars.DataFrame
        Columns of `LapTelemetry`.
    """
    key = "table_round" if season_rows.rows["round"].count() else "race_date"
    laps = _usable_laps(season_rows, cars, key, where, log, nicknames)
    # `attach_laps` identifies drivers by number.
    numbered = cars.with_columns(feed_driver_id=pl.col("driver_key").rank("dense").cast(pl.Int64))
    keys = ["race_order", "driver_key"]
    driven = laps.join(numbered.select(*keys, "feed_driver_id"), on=keys, maintain_order="left").select(
        "race_order", "feed_driver_id", "lap", pl.col("position").fill_null(0), "lap_time_s", "flag",
        car_number=pl.lit(None, pl.String),
    )  # fmt: skip
    counts["laps_without_result"] += laps.height - driven.height
    by_race = driven.partition_by("race_order", as_dict=True, include_key=False)
    results: list[pl.DataFrame] = []
    telemetry: list[pl.DataFrame] = []
    for race in numbered.partition_by("race_order", maintain_order=True):
        first = race.row(0, named=True)
        own = by_race.get((first["race_order"],), driven.clear().drop("race_order"))
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


def _race_orders(laps: pl.DataFrame, cars: pl.DataFrame, key: str) -> pl.Series:
    """Return the race_order of each row of laps, null where none or more than one can be its race."""
    races = cars.select("race_order", "table_round", "race_date").unique()
    alone = pl.col(key).is_unique()
    found = [
        laps.join(some.select(*on, found="race_order"), on=on, how="left", maintain_order="left")["found"]
        for some, on in ((races.filter(alone), [key]), (races.filter(~alone), ["table_round", "race_date"]))
    ]
    return found[0].zip_with(found[0].is_not_null(), found[1])


def _usable_laps(
    season_rows: SeasonRows,
    cars: pl.DataFrame,
    key: str,
    where: str,
    log: QuarantineLog,
    nicknames: Nicknames | None,
) -> pl.DataFrame:
    """Return the laps that have a race, a driver and a number, flags by their names; log the others."""
    flag = pl.col("flag").str.to_lowercase()
    laps = season_rows.rows.rename({"round": "table_round"}).with_columns(flag.replace(FLAG_CODES))
    laps = laps.with_columns(race_order=_race_orders(laps, cars, key))
    laps = laps.with_columns(driver_key=lap_driver_keys(laps, cars, "race_order", nicknames))
    by_column: dict[str, list[Defect]] = {}
    for defect in season_rows.defects:
        by_column.setdefault(defect.column, []).append(defect)
    for column, defects in by_column.items():
        more = f" and {len(defects) - 1} more" if len(defects) > 1 else ""
        log.add(
            "value", "nulled", defects[0].rule, place=where, subject=column, value=f"{defects[0].value}{more}"
        )
    known = pl.col("flag").is_in(FLAGS)
    for value, n in laps.filter(~known)["flag"].value_counts(sort=True).iter_rows():
        rule = f"flag must hold {', '.join(FLAGS)}"
        log.add("value", "nulled", rule, place=where, subject="flag", value=f"{value!r} in {n} rows")
    unknown = laps.filter(pl.col("race_order").is_null(), pl.col(key).is_in(cars[key].drop_nulls().implode()))
    for number, n in unknown[key].value_counts(sort=True).iter_rows():
        rule = "two races have its number, and it has the date of neither"
        log.add("laps", "left out", rule, place=where, subject=key, value=f"{number} in {n} rows")
    required = {key: "race", "driver": "driver", "lap": "lap"}
    for column, subject in required.items():
        if n := laps[column].null_count():
            rule = f"{subject} is not given"
            log.add("laps", "left out", rule, place=where, subject=subject, value=f"{n} rows")
    return laps.with_columns(flag=pl.when(known).then("flag")).drop_nulls([*required])
